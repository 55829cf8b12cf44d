"""The schedule: how one contraction of known sizes is cut into blocks, tasks and launches.

Machine code serves every size; what depends on sizes is here, as plain numbers that a launch
passes to it. The cuts depend on sizes and target alone, never on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import Final

from treadle.codegen.contract.address import TABLE_SLACK
from treadle.codegen.contract.coalesce import coalesce
from treadle.codegen.contract.flow import WORD
from treadle.codegen.contract.layout import (
    BATCH,
    COMBINE,
    DIRECT,
    LOCAL,
    NUMBERS,
    PACK,
    PARTIAL,
    SHARED,
    WHOLE,
    B,
    K,
    Layout,
    M,
    N,
)
from treadle.codegen.contract.panel import GROUP
from treadle.codegen.contract.parts import CHUNK
from treadle.codegen.contract.tile import Machine, Tile, choose
from treadle.ir.contraction import Contraction

_PANEL_BYTES: Final = 128 << 10
"""A panel of B stays in the second-level cache, from where it streams, while rows of A pass."""
_A_BYTES: Final = 192 << 10
"""A block of A stays there too (512 KiB or more) while panels of B pass."""
_ROWS: Final = 4
"""Tiles of the lowest block, as long as there is a choice."""
_TASK: Final = 1 << 19
"""Multiply-adds worth a task of their own: about 10 microseconds."""
_TASKS: Final = 32
"""Enough tasks for any number of threads that we expect, with slack for uneven ones."""
_PACK_COLUMNS: Final = 192
"""Columns against which packing A pays: below, its rows are read in place."""
_COLUMNS: Final = 512
"""The widest block: wider would not make packing A cheaper, but sums leave the cache."""
_SLICE: Final = 512
"""The least depth of a slice of k: its sums are written and read once more."""


@dataclass(frozen=True, slots=True)
class Step:
    """One launch of the kernel: `sizes` follow the buffers of `Contraction.params`."""

    tasks: int
    grain: int
    sizes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """The launches of a contraction, in order; each begins when the one before has ended.

    `scratch` is in bytes per thread, `workspace` in bytes shared by the steps.
    """

    steps: tuple[Step, ...]
    scratch: int
    workspace: int


def schedule(contraction: Contraction, sizes: Sequence[int], target: Machine) -> Schedule:
    """Cuts a contraction into launches.

    `sizes` are those of the launch as `Contraction` describes them: extents, then strides.
    """
    return _Planner(contraction, sizes, target).schedule()


class _Planner:
    def __init__(self, contraction: Contraction, sizes: Sequence[int], target: Machine) -> None:
        self.c = contraction
        self.layout = Layout(contraction)
        self.tile: Tile = choose(target, contraction.accumulator)
        self.sizes = coalesce(self.layout, sizes)
        self.batches, self.m, self.n, self.k = (
            prod(self._extents(kind)) for kind in (BATCH, M, N, K)
        )
        self.numbers = dict.fromkeys(NUMBERS, 0)

    def schedule(self) -> Schedule:
        """The launches: maybe B is packed first, maybe slices of k are summed up last."""
        if not self.batches * self.m * self.n:
            return Schedule((), 0, 0)
        self._cut_depth()
        self._cut_result()
        self._cut_slices()
        self._choose_packing()
        scratch = self._place_scratch()
        workspace = self._place_workspace()
        blocks = self.batches * self.numbers["m_blocks"] * self.numbers["n_blocks"]
        slices = self.numbers["slices"]
        steps = []
        if self.numbers["b_mode"] == SHARED:
            groups = ceil(self._panels / GROUP) * self.numbers["k_blocks"] * self.batches
            steps.append(self._step(PACK, groups, max(1, groups // _TASKS)))
        if slices > 1:
            steps.append(self._step(PARTIAL, blocks * slices, 1))
            steps.append(self._step(COMBINE, blocks, 1))
        else:
            work = self.m * self.n * max(self.k, 1) * self.batches // blocks
            steps.append(self._step(WHOLE, blocks, max(1, min(blocks, _TASK // (work + 1)))))
        return Schedule(tuple(steps), scratch, workspace)

    def _extents(self, kind: int) -> list[int]:
        start = self.layout.extents(kind) - 2 * self.layout.buffers
        return list(self.sizes[start : start + self.c.dims[kind]])

    def _strides(self, operand: int, kind: int) -> list[int]:
        start = self.layout.strides(operand, kind) - 2 * self.layout.buffers
        return list(self.sizes[start : start + self.c.dims[kind]])

    @property
    def _panels(self) -> int:
        return ceil(self.n / self.tile.width)

    def _step(self, phase: int, tasks: int, grain: int) -> Step:
        self.numbers["phase"] = phase
        return Step(tasks, grain, (*self.sizes, *self.numbers.values()))

    def _cut_depth(self) -> None:
        most = max(1, _PANEL_BYTES // (self.tile.width * self.tile.itemsize))
        blocks = max(1, ceil(self.k / most))
        self.numbers["k_block"] = block = max(1, ceil(self.k / blocks))
        self.numbers["k_blocks"] = max(1, ceil(self.k / block))

    def _cut_result(self) -> None:
        """Blocks of the result: A's rows fit the second-level cache, and tasks are many enough."""
        tile, numbers = self.tile, self.numbers
        work = self.batches * self.m * self.n * self.k
        wanted = min(_TASKS, max(1, work // _TASK))
        wanted = ceil(wanted / self.batches)
        rows = max(_ROWS * tile.rows, _A_BYTES // (numbers["k_block"] * tile.itemsize))
        m_blocks = ceil(self.m / rows)
        n_block = min(self._panels, max(1, _COLUMNS // tile.width))
        if m_blocks < wanted and self.m >= 2 * self.n:
            m_blocks = min(wanted, ceil(self.m / (_ROWS * tile.rows)))
        elif m_blocks < wanted:
            m_blocks = max(1, self.m // rows)
            n_block = min(n_block, max(1, self._panels // ceil(wanted / m_blocks)))
        m_block = _up(ceil(self.m / m_blocks), tile.rows)
        n_block = ceil(self._panels / ceil(self._panels / n_block)) * tile.width
        numbers.update(
            batches=self.batches, m=self.m, n=self.n, k=self.k, m_block=m_block, n_block=n_block,
            m_blocks=ceil(self.m / m_block), n_blocks=ceil(self.n / n_block),
            panels=self._panels,
        )  # fmt: skip

    def _cut_slices(self) -> None:
        """Slices of k, where the result alone gives too few tasks for a long sum."""
        numbers = self.numbers
        blocks = self.batches * numbers["m_blocks"] * numbers["n_blocks"]
        work = self.batches * self.m * self.n * self.k
        slices = 1
        if blocks < 16 and work >= 16 * _TASK:
            slices = max(1, min(ceil(32 / blocks), self.k // _SLICE))
        k_block = numbers["k_block"]
        numbers["slice"] = depth = _up(ceil(self.k / slices), k_block) if slices > 1 else self.k
        numbers["slices"] = max(1, ceil(self.k / depth)) if depth else 1

    def _choose_packing(self) -> None:
        c, numbers = self.c, self.numbers
        in_place = c.a.dtype is c.accumulator
        numbers["pack_a"] = int(not in_place or numbers["n_block"] >= _PACK_COLUMNS)
        direct = c.b.unit == "n" and c.b.dtype is c.accumulator and prod(self._extents(K)[:-1]) == 1
        numbers["b_mode"] = SHARED if numbers["m_blocks"] > 1 else LOCAL
        if direct and self.m <= 4 * self.tile.rows:
            numbers["b_mode"] = DIRECT
        if direct:
            numbers["b_row"] = (self._strides(B, K) or [0])[-1] * self.tile.itemsize

    def _place_scratch(self) -> int:
        numbers, tile = self.numbers, self.tile
        m_block, k_block, pack_a = numbers["m_block"], numbers["k_block"], numbers["pack_a"]
        row_table, step_table = (m_block + TABLE_SLACK) * WORD, (k_block + TABLE_SLACK) * WORD
        row_bytes = tile.width * tile.itemsize
        # Packing may write a vector too many behind each panel.
        numbers["a_panel"] = _up((k_block * tile.rows + tile.lanes) * tile.itemsize, 64)
        kept = numbers["k_blocks"] > 1 or numbers["slices"] > 1
        numbers["end_size"] = row_table
        numbers["row"] = row_bytes if kept else 0
        numbers["panel"] = m_block * row_bytes if kept else 0
        numbers["block"] = m_block * numbers["n_block"] * tile.itemsize
        places = {
            "tabled": WORD,
            "rows": row_table,
            "steps": step_table,
            "b_steps": step_table,
            "columns": (GROUP * tile.width + TABLE_SLACK) * WORD,
            "a_rows": row_table * pack_a,
            "a_steps": step_table * pack_a,
            "ends": row_table * len(self.layout.ends),
            "a_panels": m_block // tile.rows * numbers["a_panel"] * pack_a,
            "b_panel": k_block * row_bytes * GROUP,
            "tiles": numbers["block"] if kept else CHUNK * tile.rows * row_bytes,
        }
        total = 0
        for name, size in places.items():
            numbers[name] = total
            total = _up(total + size, 64)
        return total

    def _place_workspace(self) -> int:
        """Packed panels of B, then the sums of each slice."""
        numbers, tile = self.numbers, self.tile
        total = 0
        if numbers["b_mode"] == SHARED:
            panel = numbers["k_block"] * tile.width * tile.itemsize
            total = _up(panel * numbers["k_blocks"] * self._panels * self.batches, 64)
        numbers["partial"] = total
        if numbers["slices"] > 1:
            blocks = self.batches * numbers["m_blocks"] * numbers["n_blocks"]
            numbers["slice_bytes"] = blocks * numbers["block"]
            total += numbers["slice_bytes"] * numbers["slices"]
        return total


def _up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
