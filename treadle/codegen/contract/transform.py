"""Winograd's minimal filtering F(2 x 2, 3 x 3): 16 products where a window asks for 36.

    pixels  = At [ (G filter Gt) * (Bt image B) ] A
    filter' = Gt [ (A pixels' At) * (Bt image B) ] G        (its transpose: the gradient)

`image` is a tile of 4 x 4, `pixels` one of 2 x 2; the products, summed over channels (or over
tiles), are 16 contractions, one for each plane.

Source: Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR 2016.
"""

from __future__ import annotations

from typing import Any, Final

from treadle.base.dtype import DType
from treadle.codegen.contract.flow import WORD, Flow, function
from treadle.codegen.contract.shared import share
from treadle.codegen.contract.tile import Tile
from treadle.codegen.target import Target
from treadle.codegen.value import Value, join, llvm_type

Matrix = tuple[tuple[float, ...], ...]
Row = list[Value | None]
Grid = list[Row]
"""Values, or `None` for zeros that are known to be there."""

_FILTER: Final[Matrix] = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_PIXELS: Final[Matrix] = ((1, 1, 1, 0), (0, 1, -1, -1))
FORWARD: Final[dict[str, Matrix]] = {
    "image": ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    "filter": _FILTER,
    "dilated": ((0, 0, 0, 0), (0, 1, 0, 0), (0, -1, 0, 0), (0, 1, 0, -1)),
    "pixels": tuple(zip(*_PIXELS, strict=True)),
}
"""From pixels and taps to planes. In a dilated image only odd rows and columns are not zero."""
BACK: Final[dict[str, Matrix]] = {
    "pixels": _PIXELS,
    "dilated": ((0, 1, 1, 0), (0, 1, -1, -1)),
    "filter": tuple(zip(*_FILTER, strict=True)),
}
"""From planes to pixels or taps."""

PLANES: Final = 16
PIXELS: Final = 4
TAPS: Final = 9
SIDE: Final = 4


def transformed(matrix: Matrix, grid: Grid) -> Grid:
    """`matrix @ grid @ matrix^T`."""
    columns = [_combined(matrix, list(column)) for column in zip(*grid, strict=True)]
    rows = [list(row) for row in zip(*columns, strict=True)]
    return [_combined(matrix, row) for row in rows]


def _combined(matrix: Matrix, values: Row) -> Row:
    """`matrix @ values`, of the factors 0, 1 and 1/2."""
    out: Row = []
    for row in matrix:
        terms = [(f, v) for f, v in zip(row, values, strict=True) if f and v is not None]
        whole = _sum([(f, v) for f, v in terms if abs(f) == 1])
        half = _sum([(f, v) for f, v in terms if abs(f) == 0.5])
        if half is not None:
            whole = half * 0.5 if whole is None else half.madd(0.5, whole)
        out.append(whole)
    return out


def used(matrix: Matrix) -> list[bool]:
    """Which elements of a vector a matrix looks at."""
    return [any(column) for column in zip(*matrix, strict=True)]


def _sum(terms: list[tuple[float, Value]]) -> Value | None:
    total: Value | None = None
    for factor, value in sorted(terms, key=lambda term: term[0] < 0):
        if total is None:
            total = value if factor > 0 else -value
        else:
            total = total + value if factor > 0 else total - value
    return total


class Planes:
    """Emits loads and stores of vectors for the transformations."""

    def __init__(self, f: Flow, tile: Tile, dtype: DType) -> None:
        self.f = f
        self.tile = tile
        self.dtype = dtype
        self.vector = tile.lanes * tile.itemsize

    def load(self, at: Any) -> Value:
        """A vector of lanes."""
        kind = llvm_type(self.dtype, self.tile.lanes)
        return self.f.value(self.f.builder.load(at, typ=kind, align=self.tile.itemsize), self.dtype)

    def read(self, begin: Any, step: Value | None) -> Value | None:
        """A vector some bytes further on; nothing where there are only zeros."""
        return None if step is None else self.load(self.f.at(begin, step))

    def store(self, value: Value, at: Any) -> None:
        """Lanes to memory."""
        self.f.builder.store(value.raw, at, align=self.tile.itemsize)

    def keep(self, grid: Grid, to: Any, plane: Value) -> None:
        """The results, each in its plane."""
        for number, value in enumerate([v for row in grid for v in row]):
            if value is not None:
                self.store(value, self.f.at(to, plane * number))


def share_spread(module: Any, target: Target, tile: Tile, dtype: DType, what: str) -> Any:
    """The transformation of tiles of an `"image"`, also a `"dilated"` one, or of a gradient's
    `"pixels"`."""
    return share(
        module, target, f"spread {what} {tile.name} {dtype.name}", _SPREAD,
        lambda alone, symbol: _render_spread(alone, target, symbol, tile, dtype, FORWARD[what]),
    )  # fmt: skip


def share_filters(module: Any, target: Target, tile: Tile, dtype: DType, adjacent: bool) -> Any:
    """The transformation of filters, which lie side by side where they are `adjacent`."""
    return share(
        module, target, f"filters {adjacent} {tile.name} {dtype.name}", _FILTERS,
        lambda alone, symbol: _render_filters(alone, target, symbol, tile, dtype, adjacent),
    )  # fmt: skip


def share_collect(module: Any, target: Target, tile: Tile, dtype: DType, what: str) -> Any:
    """The transformation of sums to `"pixels"`, also of a `"dilated"` image, or to a `"filter"`."""
    return share(
        module, target, f"collect {what} {tile.name} {dtype.name}", _COLLECT,
        lambda alone, symbol: _render_collect(alone, target, symbol, tile, dtype, BACK[what]),
    )  # fmt: skip


def share_pixels(module: Any, target: Target) -> Any:
    """`pixels(origins, count, y, x, to)`: pointers to the four pixels of each tile."""
    return share(
        module, target, "pixels", _POINTERS,
        lambda alone, symbol: _render_pixels(alone, target, symbol),
    )  # fmt: skip


_SPREAD: Final = "piiiiipiii"
_FILTERS: Final = "piiiiipi"
_COLLECT: Final = "piipi"
_POINTERS: Final = "piiip"


def _render_pixels(module: Any, target: Target, name: str) -> Any:
    made, f, (origins, count, y, x, to) = function(module, target, name, _POINTERS)
    with f.loop(0, count) as number:
        origin = f.pointer(origins, number)
        for i, step in enumerate((f.index(0), x, y, y + x)):
            f.builder.store(f.at(origin, step), f.at(to, number * (PIXELS * WORD) + i * WORD))
    f.builder.ret_void()
    return made


def _render_spread(
    module: Any, target: Target, name: str, tile: Tile, dtype: DType, matrix: Matrix
) -> Any:
    """`spread(origins, rows, y, x, first, columns, to, row, across, plane)`: transforms tiles.

    `origins` points to the first pixel of each of `rows` tiles, `y` and `x` are the bytes from
    one of its pixels to the next. Of each, the bytes from `first` on are read, `columns` elements
    (a multiple of the tile's width); they go to `to + tile * row + panel * across`, one after
    another, in each plane.
    """
    made, f, args = function(module, target, name, _SPREAD)
    origins, rows, y, x, first, columns, to, row, across, plane = args
    planes, size = Planes(f, tile, dtype), len(matrix[0])
    seen = used(matrix)
    steps = [
        [y * p + x * q if seen[p] and seen[q] else None for q in range(size)] for p in range(size)
    ]
    with f.loop(0, rows) as number:
        source, target_row = f.at(f.pointer(origins, number), first), f.at(to, number * row)
        with f.loop(0, columns, tile.width) as column:
            read = f.at(source, column * tile.itemsize)
            write = f.at(target_row, f.div(column, tile.width) * across)
            for v in range(tile.vectors):
                begin = f.at(read, v * planes.vector)
                grid = [[planes.read(begin, step) for step in line] for line in steps]
                planes.keep(transformed(matrix, grid), f.at(write, v * planes.vector), plane)
    f.builder.ret_void()
    return made


def _render_filters(
    module: Any, target: Target, name: str, tile: Tile, dtype: DType, adjacent: bool
) -> Any:
    """`filters(b, channel, filter, y, x, count, to, plane)`: transforms a panel of filters.

    `b` points to the first of a panel's filters, the strides are in bytes (`adjacent`: filters lie
    side by side); `count` channels go to `to`, a row of the panel each, in each plane.
    """
    made, f, args = function(module, target, name, _FILTERS)
    b, channel, filter_, y, x, count, to, plane = args
    planes = Planes(f, tile, dtype)
    steps = [[y * p + x * q for q in range(3)] for p in range(3)]

    def load(begin: Any, v: int, step: Value) -> Value:
        if adjacent:
            return planes.load(f.at(f.at(begin, step), v * planes.vector))
        lanes = []
        for lane in range(v * tile.lanes, (v + 1) * tile.lanes):
            at = f.at(f.at(begin, filter_ * lane), step)
            raw = f.builder.load(at, typ=llvm_type(dtype), align=tile.itemsize)
            lanes.append(f.value(raw, dtype))
        return join(lanes)

    with f.loop(0, count) as c:
        begin, write = f.at(b, c * channel), f.at(to, c * (tile.width * tile.itemsize))
        for v in range(tile.vectors):
            grid: Grid = [[load(begin, v, step) for step in line] for line in steps]
            planes.keep(transformed(_FILTER, grid), f.at(write, v * planes.vector), plane)
    f.builder.ret_void()
    return made


def _render_collect(
    module: Any, target: Target, name: str, tile: Tile, dtype: DType, matrix: Matrix
) -> Any:
    """`collect(sums, plane, rows, to, apart)`: the results of a panel's 16 sums.

    Pixels (a 2 x 2 result) become four rows of a panel. A filter (3 x 3) becomes a run of nine
    elements of its row: nine panels `apart` bytes from one another take the place of one.
    """
    made, f, (sums, plane, rows, to, apart) = function(module, target, name, _COLLECT)
    planes, row_bytes = Planes(f, tile, dtype), tile.width * tile.itemsize
    pixels, seen = len(matrix) == 2, used(matrix)
    read = [seen[number // SIDE] and seen[number % SIDE] for number in range(PLANES)]
    with f.loop(0, rows) as row:
        for v in range(tile.vectors):
            begin = f.at(sums, row * row_bytes + v * planes.vector)
            flat = [planes.read(begin, plane * i if read[i] else None) for i in range(PLANES)]
            grid = [flat[a : a + SIDE] for a in range(0, PLANES, SIDE)]
            results = [value for line in transformed(matrix, grid) for value in line]
            for number, value in enumerate(results):
                assert value is not None
                if pixels:
                    at = f.at(to, (row * len(results) + number) * row_bytes + v * planes.vector)
                    planes.store(value, at)
                    continue
                for lane in range(tile.lanes):
                    place = (v * tile.lanes + lane) * len(results) + number
                    panel, column = divmod(place, tile.width)
                    at = f.at(to, apart * panel + row * row_bytes + column * tile.itemsize)
                    planes.store(value.lane(lane), at)
    f.builder.ret_void()
    return made
