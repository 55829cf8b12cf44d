"""Packing: streams of an operand interleaved into a panel, converted to the accumulator's type."""

from __future__ import annotations

from typing import Any, Final

from treadle.base.dtype import DType
from treadle.codegen.contract.flow import Flow, function
from treadle.codegen.contract.shared import share
from treadle.codegen.contract.tile import Tile
from treadle.codegen.convert import cast, from_memory, memory_type
from treadle.codegen.target import Target
from treadle.codegen.value import Value, ir, llvm_type

AHEAD: Final = 8
"""Rows that are fetched ahead; tables of steps have so much slack."""

_PACK: Final = "pppiiii"


def share_pack(
    module: Any, target: Target, tile: Tile, width: int, dtype: DType, to: DType, unit: str
) -> Any:
    """The function of `render_pack`, compiled by itself."""
    return share(
        module, target, f"pack {tile.name} {width} {dtype.name} {to.name} {unit}", _PACK,
        lambda alone, symbol: render_pack(alone, target, symbol, tile, width, dtype, to, unit),
    )  # fmt: skip


def render_pack(
    module: Any, target: Target, name: str, tile: Tile, width: int, dtype: DType, to: DType,
    unit: str,
) -> Any:  # fmt: skip
    """`pack(panel, streams, steps, depth, start, extent, whole)`: one panel.

        panel[k, s] = operand[streams[s] + steps[k]]      k < depth, s < width

    Streams are the rows of A or the columns of B. `unit` is the direction with stride 1:
    `"across"` streams (where `whole` says that these ones are adjacent), `"along"` k (in runs: k
    counts from `start` in a dimension of `extent`), or `""`. At most one vector behind the panel
    is overwritten.
    """
    made, f, args = function(module, target, name, _PACK)
    panel, streams, steps, depth, start, extent, whole = args
    packer = _Packer(f, tile, width, dtype, to, panel, streams, steps)
    if unit == "across":
        with f.choose(whole > 0) as (adjacent, apart):
            with adjacent, f.loop(0, depth) as k:
                packer.row(k)
            with apart, f.loop(0, depth) as k:
                packer.elements(k)
    elif unit == "along":
        with f.when(depth > 0):
            packer.runs(depth, start, extent)
    else:
        with f.loop(0, depth) as k:
            packer.elements(k)
    f.builder.ret_void()
    return made


_PACK_ROWS: Final = "pippiii"


def share_pack_rows(module: Any, target: Target, tile: Tile, width: int, dtype: DType) -> Any:
    """The function of `render_pack_rows`, compiled by itself."""
    return share(
        module, target, f"pack rows {tile.name} {width} {dtype.name}", _PACK_ROWS,
        lambda alone, symbol: render_pack_rows(alone, target, symbol, tile, width, dtype),
    )  # fmt: skip


def render_pack_rows(
    module: Any, target: Target, name: str, tile: Tile, width: int, dtype: DType
) -> Any:
    """`pack_rows(panels, distance, source, steps, depth, count, ahead)`: neighbouring panels of
    adjacent streams, `distance` bytes apart.

        panels[p][k, s] = source[steps[k] + p * width + s]   k < depth, p < count, s < width

    A row of all panels is one piece of memory: it is read at once, and fetched `ahead` rows before.
    """
    made, f, args = function(module, target, name, _PACK_ROWS)
    panels, distance, source, steps, depth, count, ahead = args
    size = dtype.itemsize
    with f.loop(0, depth) as k:
        row = f.at(source, f.word(steps, k))
        soon = f.at(source, f.word(steps, f.least(k + ahead, depth - 1)))
        to = f.at(panels, k * (width * size))
        with f.loop(0, count) as p:
            f.prefetch(f.at(soon, p * (width * size)))
            for s, lanes in _pieces(width, tile.lanes):
                kind = llvm_type(dtype, lanes)
                at = f.at(row, p * (width * size) + s * size)
                raw = f.builder.load(at, typ=kind, align=size)
                f.builder.store(raw, f.at(to, p * distance + s * size), align=size)
    f.builder.ret_void()
    return made


def _pieces(width: int, most: int) -> list[tuple[int, int]]:
    """A row of `width` elements as vectors: where each starts, and its lanes."""
    found, start = [], 0
    while start < width:
        lanes = most
        while start + lanes > width:
            lanes //= 2
        found.append((start, lanes))
        start += lanes
    return found


class _Packer:
    """Emits the ways to fill rows of one panel."""

    def __init__(
        self, f: Flow, tile: Tile, width: int, dtype: DType, to: DType, panel: Any, streams: Any,
        steps: Any,
    ) -> None:  # fmt: skip
        self.f = f
        self.lanes = tile.lanes
        self.size = tile.itemsize
        self.width = width
        self.dtype = dtype
        self.to = to
        self.panel = panel
        self.streams = streams
        self.steps = steps

    def elements(self, k: Value) -> None:
        """One k, an element at a time."""
        step = self.f.word(self.steps, k)
        with self.f.loop(0, self.f.index(self.width)) as s:
            self._store(self._load(s, step, 1), k, s)

    def row(self, k: Value) -> None:
        """One k of adjacent streams, in vectors: never an element too many is read.

        Rows lie far apart, in no pattern that the processor would foresee.
        """
        step = self.f.word(self.steps, k)
        self.f.prefetch(self.f.at(self.f.pointer(self.streams), self.f.word(self.steps, k + AHEAD)))
        for s, lanes in _pieces(self.width, self.lanes):
            self._store(self._load(0, step + s * self.dtype.itemsize, lanes), k, s)

    def runs(self, depth: Value, start: Value, extent: Value) -> None:
        """All k: squares are transposed in registers, the rest of each run goes by elements."""
        f = self.f
        side = self.lanes
        while side >= 2 * self.width:
            side //= 2
        done = f.cell(f.index(0))
        with f.loop_while() as loop:
            first = done.get()
            run = f.least(extent - f.rem(start + first, extent), depth - first)
            end = first + run
            squares = end - f.rem(run, side)
            with f.loop(first, squares, side) as k:
                self._square(k, side)
            with f.loop(squares, end) as k:
                self.elements(k)
            done.set(end)
            loop.again = end < depth

    def _square(self, k: Value, side: int) -> None:
        """`side` k's of all streams. Rows are stored in the order of k, because a row of streams
        that are no multiple of `side` reaches into the next row."""
        step = self.f.word(self.steps, k)
        squares = []
        for s in range(0, self.width, side):
            sources = [min(s + i, self.width - 1) for i in range(side)]
            squares.append(transpose(self.f, [self._load(i, step, side) for i in sources]))
        for i in range(side):
            for number, square in enumerate(squares):
                self._store(square[i], k + i, number * side)

    def _load(self, stream: Value | int, step: Value, lanes: int) -> Value:
        address = self.f.at(self.f.pointer(self.streams, stream), step)
        kind = memory_type(self.dtype, lanes)
        raw = self.f.builder.load(address, typ=kind, align=self.dtype.itemsize)
        return cast(from_memory(self.f, raw, self.dtype), self.to)

    def _store(self, value: Value, k: Value, s: Value | int) -> None:
        at = self.f.at(self.panel, (k * self.width + s) * self.size)
        self.f.builder.store(value.raw, at, align=self.size)


def transpose(f: Flow, rows: list[Value]) -> list[Value]:
    """A square of as many vectors as lanes, by swapping ever smaller blocks."""
    side = len(rows)
    distance = side // 2
    while distance:
        swapped = list(rows)
        for i in range(side):
            if not i & distance:
                a, b = rows[i], rows[i + distance]
                swapped[i] = _blend(f, a, b, distance, 0)
                swapped[i + distance] = _blend(f, a, b, distance, distance)
        rows = swapped
        distance //= 2
    return rows


def _blend(f: Flow, a: Value, b: Value, distance: int, offset: int) -> Value:
    """Blocks of `distance` lanes from `a` and `b` in turn, of each every second one."""
    lanes = a.lanes
    chosen = [
        (lane & ~distance) + offset + (lanes if lane & distance else 0) for lane in range(lanes)
    ]
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes), chosen)
    raw = f.builder.shuffle_vector(a.raw, b.raw, mask)
    assert raw.type == llvm_type(a.dtype, lanes)
    return Value(f, raw, a.dtype)
