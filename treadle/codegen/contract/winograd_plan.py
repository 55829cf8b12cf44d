"""The schedule of a convolution by transformed tiles: blocks, tasks, and places in memory.

As for every contraction, how k is cut depends on sizes and tile alone, never on the machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, prod
from typing import Final

from treadle.codegen.contract.address import TABLE_SLACK
from treadle.codegen.contract.cuts import up
from treadle.codegen.contract.flow import WORD
from treadle.codegen.contract.layout import (
    COMBINE,
    PACK,
    PARTIAL,
    WHOLE,
    A,
    B,
    K,
    Layout,
    M,
    N,
)
from treadle.codegen.contract.tile import Tile
from treadle.codegen.contract.transform import PIXELS, PLANES, TAPS
from treadle.ir.contraction import Contraction

NAMES: Final = (
    # What to do, and in which blocks, in tiles, filters and channels.
    "phase", "m", "n", "k", "m_block", "n_block", "k_block", "m_blocks", "n_blocks", "panels",
    "slice", "slices", "chunk", "m_rows",
    # Distances in bytes.
    "a_row", "a_step", "a_plane", "b_panel", "b_plane", "sum_plane", "sum_panel", "block",
    "slice_bytes", "rows_size", "end_size",
    # Places in bytes: in the scratch memory, and of the partial sums in the workspace.
    "rows", "steps", "origins", "ends", "zeros", "a", "b", "sums", "tiles", "partial",
)  # fmt: skip

CHUNK: Final = 12
"""Rows whose sums are transformed back before their outputs are written."""

_TILES: Final = 48
"""Tiles of a block: with a few dozen channels all its planes stay in the second-level cache."""
_DEPTH: Final = 256
"""Channels of a block: a row of each plane stays in the first-level cache."""
_SIDE: Final = 64
"""Filters, and channels, of a block of a gradient: a plane's sums stay in the first-level cache."""
_ALONG: Final = 32
"""Tiles that a gradient's block sums up before the next plane."""
_PACKED: Final = 32
"""Channels of a task that transforms filters."""
_TASKS: Final = 16
"""Tasks for any number of threads that we expect, with slack for uneven ones."""
_EACH: Final = 3
"""Tasks for each processor, where there are few: more would transform images once more."""
_SLICE: Final = 96
"""The least number of tiles of a slice: its sums are written and read once more."""
_LINE: Final = 64

Parts = list[tuple[int, int]]
"""Phases and tasks."""


class WinogradPlanner:
    """Fills in the numbers of the launches."""

    def __init__(
        self, contraction: Contraction, sizes: Sequence[int], tile: Tile, processors: int
    ) -> None:
        self.processors = processors
        self.c = contraction
        self.layout = Layout(contraction, NAMES)
        self.tile = tile
        self.sizes = list(sizes)
        self.numbers = dict.fromkeys(NAMES, 0)
        self.row_bytes = tile.width * tile.itemsize
        self.data = contraction.winograd != "filter"
        tiles = prod(self._extents(M if self.data else K)[:-2])
        if self.data:
            self.m, self.n, self.k = tiles, prod(self._extents(N)), self._extents(K)[-1]
        else:
            self.m, self.n, self.k = prod(self._extents(M)), self._extents(N)[0], tiles

    def plan(self) -> tuple[Parts, int, int]:
        """The phases with their tasks, then the bytes of scratch memory and of workspace."""
        self._cut_data() if self.data else self._cut_filter()
        n = self.numbers
        blocks = n["m_blocks"] * n["n_blocks"]
        scratch, workspace = self._place_scratch(), self._place_workspace()
        if self.data:
            packed = n["panels"] * ceil(self.k / n["chunk"])
            return [(PACK, packed), (WHOLE, blocks)], scratch, workspace
        self._merge_columns()
        if n["slices"] == 1:
            return [(WHOLE, blocks)], scratch, workspace
        panels = n["n_block"] // self.tile.width
        return [(PARTIAL, blocks * n["slices"]), (COMBINE, blocks * panels)], scratch, workspace

    def words(self, phase: int) -> tuple[int, ...]:
        """The sizes and numbers of a launch."""
        self.numbers["phase"] = phase
        return (*self.sizes, *self.numbers.values())

    def _extents(self, kind: int) -> list[int]:
        start = self.layout.extents(kind) - 2 * self.layout.buffers
        return self.sizes[start : start + self.c.dims[kind]]

    def _cut_data(self) -> None:
        m_blocks = ceil(self.m / _TILES)
        panels = self.n // self.tile.width
        wanted = min(_TASKS, _EACH * self.processors)
        n_blocks = max(1, min(ceil(wanted / m_blocks), panels // 2))
        self._blocks(
            up(ceil(self.m / m_blocks), self.tile.rows),
            ceil(panels / n_blocks) * self.tile.width,
            up(ceil(self.k / ceil(self.k / _DEPTH)), self.tile.width),
        )
        self.numbers.update(slice=self.k, slices=1, chunk=_PACKED)

    def _cut_filter(self) -> None:
        side = up(_SIDE, self.tile.width)
        m_blocks, n_blocks = ceil(self.m / side), ceil(self.n / side)
        self._blocks(
            up(ceil(self.m / m_blocks), self.tile.width),
            up(ceil(self.n / n_blocks), self.tile.width),
            min(_ALONG, up(self.k, 8)),
        )
        n = self.numbers
        wanted = ceil(_TASKS / (n["m_blocks"] * n["n_blocks"]))
        slices = max(1, min(wanted, self.k // _SLICE))
        n["slice"] = up(ceil(self.k / slices), n["k_block"])
        n["slices"] = ceil(self.k / n["slice"])

    def _blocks(self, m_block: int, n_block: int, k_block: int) -> None:
        self.numbers.update(
            m=self.m, n=self.n, k=self.k, m_block=m_block, n_block=n_block, k_block=k_block,
            m_blocks=ceil(self.m / m_block), n_blocks=ceil(self.n / n_block),
            panels=self.n // self.tile.width,
        )  # fmt: skip

    def _place_scratch(self) -> int:
        n, tile, size = self.numbers, self.tile, self.tile.itemsize
        m_block, k_block = n["m_block"], n["k_block"]
        # A table's writes, and a tile's reads past the last row, go a little too far.
        n["m_rows"] = up(m_block, tile.rows)
        rows = n["m_rows"] + TABLE_SLACK
        n["a_row"], n["a_step"] = (k_block * size, size) if self.data else (size, m_block * size)
        n["a_plane"] = _apart(rows * k_block * size)
        n["sum_plane"] = _apart(n["m_rows"] * self.row_bytes)
        n["sum_panel"] = PLANES * n["sum_plane"]
        n["block"] = n["sum_panel"] * (n["n_block"] // tile.width)
        n["rows_size"] = rows * WORD
        n["end_size"] = (m_block * (PIXELS if self.data else 1) + TABLE_SLACK) * WORD
        if not self.data:
            n["b_plane"] = _apart(k_block * self.row_bytes)
            n["b_panel"] = PLANES * n["b_plane"]
        places = {
            "rows": PLANES * n["rows_size"],
            "steps": (k_block + TABLE_SLACK) * WORD,
            "origins": (max(m_block, k_block) + TABLE_SLACK) * WORD,
            "ends": n["end_size"] * len(self.layout.ends),
            "zeros": tile.rows * self.row_bytes,
            "a": PLANES * n["a_plane"],
            "b": 0 if self.data else n["b_panel"] * (n["n_block"] // tile.width),
            "sums": n["block"],
            "tiles": CHUNK * self.row_bytes * (PIXELS if self.data else TAPS),
        }
        total = 0
        for name, length in places.items():
            n[name] = total
            total = up(total + length, _LINE)
        return total

    def _place_workspace(self) -> int:
        """Transformed filters, or the sums of each slice."""
        n = self.numbers
        if self.data:
            n["b_panel"] = self.k * self.row_bytes
            n["b_plane"] = _apart(n["panels"] * n["b_panel"])
            return PLANES * n["b_plane"]
        n["slice_bytes"] = n["block"] * n["m_blocks"] * n["n_blocks"]
        return n["slice_bytes"] * n["slices"] if n["slices"] > 1 else 0

    def _merge_columns(self) -> None:
        """Extras and outputs step through channels and window as through one dimension."""
        first = 2 * self.layout.buffers
        at = self.layout.extents(N) - first
        self.sizes[at : at + 3] = 1, 1, prod(self.sizes[at : at + 3])
        for operand in range(len(self.layout.dtypes)):
            if operand not in (A, B):
                at = self.layout.strides(operand, N) - first
                self.sizes[at : at + 2] = 0, 0


def _apart(nbytes: int) -> int:
    """A distance such that the same place of 16 planes is in 16 different sets of a cache."""
    lines = ceil(nbytes / _LINE)
    return (lines + 1 - lines % 2) * _LINE
