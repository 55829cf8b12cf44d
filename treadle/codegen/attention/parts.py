"""What forward and backward kernels share: the functions that move data into and out of blocks."""

from __future__ import annotations

from typing import Any, Final

from treadle.codegen.attention.layout import Frame, Layout
from treadle.codegen.contract.address import render_series
from treadle.codegen.contract.flow import WORD, Flow, call, function
from treadle.codegen.contract.micro import render_sweep
from treadle.codegen.contract.pack import render_pack, transpose
from treadle.codegen.contract.tile import Tile, choose
from treadle.codegen.target import Target
from treadle.codegen.value import Value, llvm_type
from treadle.ir.attention import Attention

_DIRECTIONS: Final = {"row": "across", "column": "along", "": ""}
"""How a panel of queries is packed, by the axis of an operand with stride 1."""


class Parts:
    """The helper functions of one pattern, made in its module.

    A panel holds `tile.width` queries side by side, in `tile.vectors` vectors; `row` is its bytes
    for each key or feature.
    """

    def __init__(self, module: Any, pattern: Attention, target: Target, symbol: str) -> None:
        dtype = pattern.dtype
        tile = choose(target, dtype)
        self.module = module
        self.pattern = pattern
        self.target = target
        self.symbol = symbol
        self.dtype = dtype
        self.tile: Tile = tile
        self.row = tile.width * tile.itemsize
        self.layout = Layout(pattern)
        self.sweep = render_sweep(module, target, f"{symbol}.sweep", tile, dtype)
        self.series = render_series(module, target, f"{symbol}.series")
        self.copy = self._copy()
        self.packers = {name: self._packer(name) for name in ("q", "g", "mask")}
        self.unpack = self._unpack()

    def _packer(self, name: str) -> Any:
        """`pack(panel, streams, steps, depth, start, extent, whole)` for an operand."""
        matrix = self.pattern.find(name)
        if matrix is None:
            return None
        return render_pack(
            self.module, self.target, f"{self.symbol}.pack_{name}", self.tile, self.tile.width,
            matrix.dtype, self.dtype, _DIRECTIONS[matrix.unit],
        )  # fmt: skip

    def function(self, name: str, kinds: str) -> tuple[Any, Flow, list[Any]]:
        """A new internal function of this pattern."""
        return function(self.module, self.target, f"{self.symbol}.{name}", kinds)

    def frame(self, f: Flow, args: list[Any]) -> Frame:
        """The arguments (slots, params, scratch) by name."""
        return Frame(f, self.layout, self.tile.itemsize, *args)

    def load(self, f: Flow, at: Any) -> Value:
        """A vector of numbers."""
        kind = llvm_type(self.dtype, self.tile.lanes)
        return f.value(f.builder.load(at, typ=kind, align=self.tile.itemsize), self.dtype)

    def one(self, f: Flow, at: Any) -> Value:
        """One number."""
        return f.value(f.builder.load(at, typ=llvm_type(self.dtype)), self.dtype)

    def store(self, f: Flow, value: Value, at: Any) -> None:
        """Writes a number or a vector."""
        f.builder.store(value.raw, at, align=self.tile.itemsize)

    def vectors(self, f: Flow, at: Any) -> list[Value]:
        """The numbers of a panel's row."""
        return [self.load(f, f.at(at, i)) for i in self.offsets]

    @property
    def offsets(self) -> range:
        """The bytes from a panel's row to each of its vectors."""
        return range(0, self.row, self.tile.lanes * self.tile.itemsize)

    def fill(self, f: Flow, number: float, at: Any, size: Value) -> None:
        """Sets memory of a multiple of a panel's row to one number."""
        value = f.const(number, self.dtype, self.tile.lanes)
        with f.loop(0, size, self.tile.lanes * self.tile.itemsize) as offset:
            self.store(f, value, f.at(at, offset))

    # --- functions -------------------------------------------------------------------------------

    def _copy(self) -> Any:
        """`copy(to, to_row, from, row, column, rows, columns)`: a matrix laid out with columns side
        by side; distances in bytes."""
        made, f, args = self.function("copy", "pipiiii")
        to, to_row, source, row, column, rows, columns = args
        size, lanes = self.tile.itemsize, self.tile.lanes
        adjacent = column.equals(size)
        whole = adjacent.where(columns - f.rem(columns, lanes), f.index(0))
        with f.loop(0, rows) as i:
            target, start = f.at(to, i * to_row), f.at(source, i * row)
            with f.loop(0, whole, lanes) as j:
                self.store(f, self.load(f, f.at(start, j * size)), f.at(target, j * size))
            with f.loop(whole, columns) as j:
                self.store(f, self.one(f, f.at(start, j * column)), f.at(target, j * size))
        f.builder.ret_void()
        return made

    def _unpack(self) -> Any:
        """`unpack(panel, features, count, factors, to, row)`: a panel becomes `count` rows.

        to[query, feature] = panel[feature, query] * factors[query]
        """
        made, f, args = self.function("unpack", "piippi")
        panel, features, count, factors, to, row = args
        size, lanes = self.tile.itemsize, self.tile.lanes
        by = self.vectors(f, factors)
        squares = count.equals(self.tile.width).where(features - f.rem(features, lanes), f.index(0))
        with f.loop(0, squares, lanes) as feature:
            for v, offset in enumerate(self.offsets):
                start = f.at(panel, feature * self.row + offset)
                rows = [self.load(f, f.at(start, i * self.row)) * by[v] for i in range(lanes)]
                for i, queries in enumerate(transpose(f, rows)):
                    self.store(f, queries, f.at(to, row * (v * lanes + i) + feature * size))
        with f.loop(0, count) as query, f.loop(squares, features) as feature:
            number = self.one(f, f.at(panel, feature * self.row + query * size))
            factor = self.one(f, f.at(factors, query * size))
            self.store(f, number * factor, f.at(to, row * query + feature * size))
        f.builder.ret_void()
        return made


def prepare(frame: Frame, parts: Parts) -> None:
    """The tables and constants that all tasks of a call share: blocks lie where they always do."""
    f, row = frame.f, parts.row
    size = f.index(parts.tile.itemsize)
    d, e = frame.number("d") * size, frame.number("e") * size
    block = frame.number("block")
    tile = parts.tile
    features_d = f.div(frame.number("d") + (tile.rows - 1), tile.rows) * tile.rows
    features_e = f.div(frame.number("e") + (tile.rows - 1), tile.rows) * tile.rows
    nothing = f.index(0)

    def table(name: str, first: Any, step: Value, count: Value) -> None:
        start = first if isinstance(first, Value) else f.address(first)
        call(f, parts.series, frame.place(name), count, start, step)

    table("d_steps", nothing, size, features_d)
    table("key_e", nothing, e, block)
    table("k_rows", frame.place("k"), d, block)
    table("v_columns", frame.place("v"), size, features_e)
    if parts.pattern.find("mask") is not None:
        column = frame.stride("mask", "column", _mask_size(parts))
        table("mask_steps", nothing, column, block)
    if parts.pattern.backward:
        table("e_steps", nothing, size, features_e)
        table("key_d", nothing, d, block)
        table("k_columns", frame.place("k"), size, features_d)
        table("v_rows", frame.place("v"), e, block)
        panel = block * row
        for name, place in (("p_rows", "p"), ("s_rows", "ds")):
            table(name, frame.place(place), f.index(row), block)
        with f.loop(0, frame.number("group")) as i:
            at = f.at(frame.place("q_steps"), i * (tile.width * WORD))
            call(f, parts.series, at, f.index(tile.width), panel * i, size)
    parts.fill(f, 0.0, frame.place("zeros"), f.index(tile.rows * row))


def _mask_size(parts: Parts) -> int:
    mask = parts.pattern.find("mask")
    assert mask is not None
    return mask.dtype.itemsize


def pack_queries(frame: Frame, parts: Parts, name: str, start: Any, count: Value, to: Any) -> None:
    """A panel (feature, query) of `count` queries of q or g from an address on; the last one is
    repeated up to a panel's width."""
    f = frame.f
    features = "d" if name == "q" else "e"
    depth = frame.number(features)
    _streams(frame, parts, f.address(start), frame.stride(name, "row"), count)
    steps = frame.place(f"{features}_steps")
    _pack(frame, parts, parts.packers[name], to, steps, depth, count)


def _streams(frame: Frame, parts: Parts, start: Value, step: Value, count: Value) -> None:
    """The table `streams`: `count` addresses, the last one repeated up to a panel's width."""
    f, width = frame.f, parts.tile.width
    streams = frame.place("streams")
    call(f, parts.series, streams, count, start, step)
    with f.loop(count, f.index(width)) as i:
        f.builder.store((start + step * (count - 1)).raw, f.at(streams, i * WORD))


def _pack(
    frame: Frame, parts: Parts, packer: Any, to: Any, steps: Any, depth: Value, count: Value
) -> None:
    f = frame.f
    whole = f.flag(count.equals(parts.tile.width))
    call(f, packer, to, frame.place("streams"), steps, depth, f.index(0), depth, whole)


def pack_mask(
    frame: Frame, parts: Parts, batch: Value, head: Value, query: Value, queries: Value,
    key: Value, keys: Value,
) -> None:  # fmt: skip
    """A panel (key, query) of the mask, converted to the numbers that scores are made of."""
    f, size = frame.f, _mask_size(parts)
    start = f.address(frame.matrix("mask", batch, head, query, size))
    start = start + key * frame.stride("mask", "column", size)
    _streams(frame, parts, start, frame.stride("mask", "row", size), queries)
    steps = frame.place("mask_steps")
    _pack(frame, parts, parts.packers["mask"], frame.place("mask"), steps, keys, queries)
