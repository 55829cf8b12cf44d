"""How a contraction is cut: blocks that stay in the caches, tasks enough for many threads.

How k is cut depends on sizes and tile alone, never on the number of threads or processors, so
results are the same for any; m and n may be cut as suits the machine, because no sum goes across
them. The constants come from measurements on cores with 32 KiB and 512 KiB of first-
and second-level cache, and suit all with more.
"""

from __future__ import annotations

from math import ceil
from typing import Final, NamedTuple

from treadle.codegen.contract.layout import DIRECT, LOCAL, SHARED
from treadle.codegen.contract.tile import Tile

_PANEL_BYTES: Final = 128 << 10
"""A panel of B stays in the second-level cache, from where it streams, while rows of A pass."""
_FEW_ROWS: Final = 256
"""Rows up to which panels are half as deep: blocks of A are then higher, and B is passed less
often. With more rows, summing up twice costs more than that saves."""
_A_BYTES: Final = 192 << 10
"""A block of A stays there too while panels of B pass."""
_B_BYTES: Final = 4 << 20
"""A block of B stays in the third-level cache while blocks of A, each packed once for it, pass."""
_ROWS: Final = 4
"""Tiles of rows in the lowest block, as long as there is a choice."""
_FEW: Final = 16
"""Tiles of rows that are never worth cutting: they are read in place, where they lie along k."""
_PACK_COLUMNS: Final = 192
"""Columns against which packing A pays, unless its rows lie along k: below, it is read in place."""
_PACK_FAR: Final = 512
"""Columns against which packing rows along k pays, where they are a page apart or more: the same
lines of the caches serve all of them. Nearer ones are always read in place."""
_PAGE: Final = 4096
"""Steps of k so far apart share no page: A is then packed for less than half as many columns."""
_SCATTERED: Final = 128
"""The depth of blocks whose rows of k lie apart, each in a line of its own, perhaps in a page of
its own: so many stay in the first-level cache."""
_TASK: Final = 1 << 19
"""Multiply-adds worth a task of their own: about 10 microseconds."""
_TASKS: Final = 32
"""Tasks for any number of threads that we expect, with slack for uneven ones."""
_EACH: Final = 2
"""Tasks for each processor, where there are few: a smaller one packs B for fewer rows, or reads A
for fewer columns."""
_SLICE: Final = 512
"""The least depth of a slice of k: its sums are written and read once more."""
_LONG: Final = 8
"""k is sliced where it is so many times longer than the result's sides."""


class Problem(NamedTuple):
    """The sizes of one contraction, and how its operands can be read.

    `a_along`: A has unit stride along k. `a_row`, `a_step`: bytes between neighbouring m and k of
    A. `a_in_place`, `b_in_place`: the operand has the accumulator's type, and B one stride along k
    and unit stride along n. `b_in_panels`: so that each panel of B is one piece of memory already.
    """

    batches: int
    m: int
    n: int
    k: int
    a_along: bool
    a_row: int
    a_step: int
    a_in_place: bool
    b_in_place: bool
    b_in_panels: bool


class Cuts(NamedTuple):
    """Blocks in elements, multiples of the tile; `slice` in elements of k; the ways to read."""

    m_block: int
    n_block: int
    k_block: int
    slice: int
    pack_a: bool
    b_mode: int


def cut(p: Problem, tile: Tile, processors: int) -> Cuts:
    """Decides all cuts of a problem with at least one result."""
    direct = p.b_in_panels or (p.b_in_place and p.m <= _ROWS * tile.rows)
    enough = _worth_packing(p)
    pack_a = not p.a_in_place or p.n >= enough
    scattered = (direct and not p.b_in_panels) or not (pack_a or p.a_along)
    most = _deepest(p, tile, scattered)
    slices, k_block = 1, _depth(p.k, most)
    m_blocks, n_blocks = _blocks(p, tile, k_block)
    wanted = ceil(min(_TASKS, p.batches * p.m * p.n * p.k // _TASK) / p.batches)
    if m_blocks * n_blocks < wanted and p.k >= _LONG * max(p.m, p.n):
        slices = max(1, min(ceil(wanted / (m_blocks * n_blocks)), p.k // _SLICE))
        k_block = _depth(ceil(p.k / slices), most)
    wanted = min(wanted, ceil(_EACH * processors / p.batches))
    if slices == 1 and m_blocks * n_blocks < wanted:
        m_blocks, n_blocks = _more_blocks(p, tile, m_blocks, n_blocks, wanted)
    m_blocks = _shared_evenly(p, tile, m_blocks, p.batches * n_blocks * slices, processors)
    m_block = up(ceil(p.m / m_blocks), tile.rows)
    n_block = up(ceil(p.n / n_blocks), tile.width)
    shared = SHARED if p.m > m_block else LOCAL
    return Cuts(
        m_block,
        n_block,
        k_block,
        up(ceil(p.k / slices), k_block) if slices > 1 else max(1, p.k),
        not p.a_in_place or (pack_a and n_block >= enough),
        DIRECT if direct else shared,
    )


def _worth_packing(p: Problem) -> int:
    """The number of columns against which packing A pays."""
    if p.a_along:
        return _PACK_FAR if abs(p.a_row) >= _PAGE else p.n + 1
    return _PACK_COLUMNS if abs(p.a_step) < _PAGE else _PACK_COLUMNS // 3


def _blocks(p: Problem, tile: Tile, k_block: int) -> tuple[int, int]:
    """The numbers of blocks along m and n that the caches ask for."""
    rows = max(_ROWS * tile.rows, _A_BYTES // (k_block * tile.itemsize))
    if p.a_along and p.a_in_place and p.m <= _FEW * tile.rows:
        rows = p.m
    columns = up(max(1, _B_BYTES // (k_block * tile.itemsize)), tile.width)
    return ceil(p.m / rows) if p.m >= 2 * rows else 1, ceil(p.n / columns)


def _more_blocks(
    p: Problem, tile: Tile, m_blocks: int, n_blocks: int, wanted: int
) -> tuple[int, int]:
    """As many blocks as are wanted, as far as they stay large enough to be worth it.

    Rows of A in place, along k, suffer narrow blocks: all else is better cut along m.
    """
    if p.m >= 2 * p.n or not (p.a_along and p.a_in_place):
        return max(m_blocks, min(ceil(wanted / n_blocks), p.m // (_ROWS * tile.rows))), n_blocks
    panels = ceil(p.n / tile.width)
    if m_blocks == 1:
        return 1, min(panels, max(min(8, wanted), min(wanted, panels // 2)))
    return m_blocks, max(n_blocks, min(ceil(panels / 8), ceil(wanted / m_blocks)))


def _shared_evenly(p: Problem, tile: Tile, m_blocks: int, others: int, processors: int) -> int:
    """Blocks along m, so many that no processor has much more to do than another.

    Eleven tasks take two processors as long as twelve, and the last block may be a small one. A
    third fewer still fit into the caches; more than half as many again would cost more than the
    unevenness.
    """
    if m_blocks == 1:
        return 1

    def longest(blocks: int) -> int:
        rows = up(ceil(p.m / blocks), tile.rows)
        return ceil(ceil(p.m / rows) * others / processors) * rows

    counts = range(max(2, m_blocks - m_blocks // 3), m_blocks + m_blocks // 2 + 1)
    return min(counts, key=lambda blocks: (longest(blocks), abs(blocks - m_blocks)))


def _deepest(p: Problem, tile: Tile, scattered: bool) -> int:
    """The most of k in a block."""
    if scattered:
        return _SCATTERED
    panel = _PANEL_BYTES if p.m > _FEW_ROWS else _PANEL_BYTES // 2
    return panel // (tile.width * tile.itemsize)


def _depth(k: int, most: int) -> int:
    """Blocks of k, all of nearly the same depth."""
    return up(max(1, ceil(k / max(1, ceil(k / most)))), 8)


def up(number: int, multiple: int) -> int:
    """The next multiple."""
    return -(-number // multiple) * multiple
