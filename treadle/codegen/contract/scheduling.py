"""The schedule: one contraction of known sizes as launches of its kernel.

Machine code serves every size; what depends on sizes is passed to it as plain numbers, made here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, prod
from typing import Any, Final, NamedTuple

from treadle.codegen.contract.address import TABLE_SLACK
from treadle.codegen.contract.coalesce import coalesce
from treadle.codegen.contract.cuts import Cuts, Problem, cut, up
from treadle.codegen.contract.flow import WORD
from treadle.codegen.contract.layout import (
    BATCH,
    COMBINE,
    NUMBERS,
    PACK,
    PARTIAL,
    SHARED,
    WHOLE,
    A,
    B,
    K,
    Layout,
    M,
    N,
)
from treadle.codegen.contract.panel import GROUP
from treadle.codegen.contract.parts import CHUNK
from treadle.codegen.contract.tile import Machine, Tile, choose
from treadle.codegen.contract.winograd_plan import WinogradPlanner
from treadle.ir.contraction import Contraction

_CHUNK: Final = 1 << 16
"""Multiply-adds worth claiming by themselves: about a microsecond."""
_CHUNKS: Final = 256
"""More would only cost the claiming."""
_MOVE: Final = 8
"""Multiply-adds in the time that moving one element takes."""


class Step(NamedTuple):
    """One launch of the kernel: `sizes` follow the buffers of `Contraction.params`.

    `grain` is how many of the `tasks` a thread should claim at once.
    """

    tasks: int
    grain: int
    sizes: tuple[int, ...]


class Schedule(NamedTuple):
    """The launches of a contraction, in order; each begins when the one before has ended.

    `scratch` is in bytes per thread, `workspace` in bytes shared by the steps. Both are to start
    at a multiple of 64.
    """

    steps: tuple[Step, ...]
    scratch: int
    workspace: int


def schedule(
    contraction: Contraction, sizes: Sequence[int], target: Machine, processors: int = 16
) -> Schedule:
    """Cuts a contraction into one to three launches.

    `sizes` are extents, then strides, as `Contraction` describes them; `processors` that will
    share the work change where it is cut and no result. Without any result (an extent of 0 in b,
    m or n) there is nothing to launch.
    """
    if contraction.winograd:
        return _winograd(contraction, sizes, target, processors)
    return _Planner(contraction, sizes, target, processors).schedule()


def _winograd(
    contraction: Contraction, sizes: Sequence[int], target: Machine, processors: int
) -> Schedule:
    tile = choose(target, contraction.accumulator)
    planner = WinogradPlanner(contraction, sizes, tile, processors)
    parts, scratch, workspace = planner.plan()
    steps = [Step(tasks, 1, planner.words(phase)) for phase, tasks in parts]
    return Schedule(tuple(steps), scratch, workspace)


@lru_cache(1 << 12)
def _unsized(contraction: Contraction, target: Any) -> tuple[Layout, Tile]:
    """What does not depend on the sizes of a contraction."""
    return Layout(contraction), choose(target, contraction.accumulator)


class _Planner:
    """Fills in the `NUMBERS` of the launches."""

    def __init__(
        self, contraction: Contraction, sizes: Sequence[int], target: Machine, processors: int
    ) -> None:
        self.c = contraction
        self.processors = processors
        shared: Any = target
        self.layout, self.tile = _unsized(contraction, shared)
        self.sizes = coalesce(self.layout, sizes)
        self.numbers = dict.fromkeys(NUMBERS, 0)

    def schedule(self) -> Schedule:
        """The launches: maybe B is packed first, maybe slices of k are summed up last."""
        problem = self._problem()
        if not problem.batches * problem.m * problem.n:
            return Schedule((), 0, 0)
        cuts = cut(problem, self.tile, self.processors)
        self._number(problem, cuts)
        scratch, workspace = self._place_scratch(), self._place_workspace()
        n = self.numbers
        blocks = n["batches"] * n["m_blocks"] * n["n_blocks"]
        results = problem.batches * problem.m * problem.n
        steps = []
        if cuts.b_mode == SHARED:
            groups = ceil(n["panels"] / GROUP) * n["k_blocks"] * n["batches"]
            moved = problem.batches * problem.k * problem.n
            steps.append(self._step(PACK, groups, moved * _MOVE))
        if n["slices"] > 1:
            steps.append(self._step(PARTIAL, blocks * n["slices"], results * problem.k))
            steps.append(self._step(COMBINE, blocks, results * n["slices"] * _MOVE))
        else:
            steps.append(self._step(WHOLE, blocks, results * max(_MOVE, problem.k)))
        return Schedule(tuple(steps), scratch, workspace)

    def _problem(self) -> Problem:
        c = self.c
        batches, m, n, k = (prod(self._extents(kind)) for kind in (BATCH, M, N, K))
        one_stride = prod(self._extents(K)[:-1]) == 1
        in_place = c.b.dtype is c.accumulator and c.b.unit == "n" and one_stride
        width = self.tile.width
        one_panel = c.dims[N] > 1 and self._extents(N)[-1] == width
        return Problem(
            batches,
            m,
            n,
            k,
            a_along=c.a.unit == "k",
            a_row=self._last_stride(A, M) * c.a.dtype.itemsize,
            a_step=self._last_stride(A, K) * c.a.dtype.itemsize,
            a_in_place=c.a.dtype is c.accumulator,
            b_in_place=in_place,
            b_in_panels=in_place and one_panel and self._last_stride(B, K) == width,
        )

    def _extents(self, kind: int) -> Sequence[int]:
        start = self.layout.extents(kind) - 2 * self.layout.buffers
        return self.sizes[start : start + self.c.dims[kind]]

    def _last_stride(self, operand: int, kind: int) -> int:
        """An operand's stride along the last dimension of a class."""
        rank = self.c.dims[kind]
        start = self.layout.strides(operand, kind) - 2 * self.layout.buffers
        return self.sizes[start + rank - 1] if rank else 0

    def _step(self, phase: int, tasks: int, work: int) -> Step:
        self.numbers["phase"] = phase
        chunks = max(1, min(tasks, work // _CHUNK, _CHUNKS))
        return Step(tasks, ceil(tasks / chunks), (*self.sizes, *self.numbers.values()))

    def _number(self, p: Problem, cuts: Cuts) -> None:
        self.numbers.update(
            m=p.m,
            n=p.n,
            k=p.k,
            m_block=cuts.m_block,
            n_block=cuts.n_block,
            k_block=cuts.k_block,
            batches=p.batches,
            m_blocks=ceil(p.m / cuts.m_block),
            n_blocks=ceil(p.n / cuts.n_block),
            k_blocks=max(1, ceil(p.k / cuts.k_block)),
            panels=ceil(p.n / self.tile.width),
            slice=cuts.slice,
            slices=max(1, ceil(p.k / cuts.slice)),
            pack_a=int(cuts.pack_a),
            b_mode=cuts.b_mode,
            b_row=self._last_stride(B, K) * self.tile.itemsize,
        )

    def _place_scratch(self) -> int:
        """Distances within, and places of, what a thread keeps for itself."""
        n, tile = self.numbers, self.tile
        m_block, k_block, pack_a = n["m_block"], n["k_block"], n["pack_a"]
        rows, steps = (m_block + TABLE_SLACK) * WORD, (k_block + TABLE_SLACK) * WORD
        row_bytes = tile.width * tile.itemsize
        kept = n["k_blocks"] > 1 or n["slices"] > 1
        n["row"] = row_bytes if kept else 0
        n["panel"] = m_block * row_bytes if kept else 0
        n["block"] = m_block * n["n_block"] * tile.itemsize
        n["end_size"] = rows
        # Packing may write a vector too many behind each panel.
        n["a_panel"] = up((k_block * tile.rows + tile.lanes) * tile.itemsize, 64)
        places = {
            "tabled": WORD,
            "rows": rows,
            "steps": steps,
            "b_steps": steps,
            "columns": (GROUP * tile.width + TABLE_SLACK) * WORD,
            "a_rows": rows * pack_a,
            "a_steps": steps * pack_a,
            "ends": rows * len(self.layout.ends),
            "a_panels": m_block // tile.rows * n["a_panel"] * pack_a,
            "b_panel": k_block * row_bytes * GROUP,
            "zeros": tile.rows * row_bytes,
            "tiles": n["block"] if kept else CHUNK * tile.rows * row_bytes,
        }
        total = 0
        for name, size in places.items():
            n[name] = total
            total = -(-(total + size) // 64) * 64
        return total

    def _place_workspace(self) -> int:
        """Packed panels of B, then the sums of each slice."""
        n, tile = self.numbers, self.tile
        total = 0
        if n["b_mode"] == SHARED:
            panel = n["k_block"] * tile.width * tile.itemsize
            total = up(panel * n["k_blocks"] * n["panels"] * n["batches"], 64)
        n["partial"] = total
        if n["slices"] > 1:
            n["slice_bytes"] = n["batches"] * n["m_blocks"] * n["n_blocks"] * n["block"]
            total += n["slice_bytes"] * n["slices"]
        return total
