"""The epilogue: finished sums become outputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from treadle.codegen.contract.address import Addresses
from treadle.codegen.contract.flow import Flow, function
from treadle.codegen.contract.layout import Layout, N
from treadle.codegen.contract.tile import Tile
from treadle.codegen.convert import cast, from_memory, memory_type, to_memory
from treadle.codegen.target import Target
from treadle.codegen.value import Value, ir, llvm_type
from treadle.codegen.vector_math import UNARY
from treadle.ir.loop import Expr, Unary
from treadle.ir.walk import walk

TOGETHER: Final = 2
"""Rows that are computed side by side where each element is a long chain; a power of two."""

RenderValue = Callable[[Any, Expr, Mapping[str, Any], int, Target], Any]
"""Makes an LLVM value of an expression: (builder, expr, values by name, lanes, target)."""


@dataclass(frozen=True, slots=True)
class _End:
    """An extra operand or an output, in one run of columns: where it starts, how far columns are
    apart."""

    operand: int
    start: Value
    apart: Value


def render_finish(
    module: Any, target: Target, name: str, tile: Tile, addresses: Addresses,
    render_value: RenderValue,
) -> Any:  # fmt: skip
    """`finish(tiles, params, ends, end_size, rows, first, columns)`: a panel's sums become outputs.

    `tiles` is a matrix of `tile.width` columns. `ends` holds a table for each extra and output, of
    `end_size` bytes: a pointer per row. `first` is the column where the panel begins.
    """
    made, f, args = function(module, target, name, "pppiiii")
    tiles, params, ends, end_size, rows, first, columns = args
    finish = _Finish(f, tile, addresses, render_value, tiles, ends, end_size)
    done = f.cell(f.index(0))
    with f.loop_while() as loop:
        column = done.get()
        run = columns - column
        if addresses.layout.contraction.dims[N] > 1:
            extent = addresses.extent(f, params, N)
            run = f.least(run, extent - f.rem(first + column, extent))
        places = [
            _End(
                x,
                addresses.offset(f, params, x, N, first + column),
                addresses.last_stride(f, params, x, N),
            )
            for x in addresses.layout.ends
        ]
        with f.choose(run.equals(tile.width)) as (whole, part):
            with whole:
                together = rows - f.rem(rows, TOGETHER) if finish.long_chains else f.index(0)
                with f.loop(0, together, TOGETHER) as row:
                    finish.whole_rows(row, TOGETHER, places)
                with f.loop(together, rows) as row:
                    finish.whole_rows(row, 1, places)
            with part, f.loop(0, rows) as row:
                finish.part_row(row, column, run, places)
        done.set(column + run)
        loop.again = column + run < columns
    f.builder.ret_void()
    return made


def render_fetch(module: Any, target: Target, name: str, tile: Tile, addresses: Addresses) -> Any:
    """`fetch(params, ends, end_size, rows, first)`: asks for what `finish` will read and write.

    Lines of memory arrive while sums are still being made. Only those of rows that are adjacent.
    """
    made, f, args = function(module, target, name, "ppiii")
    params, ends, end_size, rows, first = args
    for number, x in enumerate(addresses.layout.ends):
        if addresses.layout.units[x] != "n":
            continue
        start = addresses.offset(f, params, x, N, first)
        table = f.at(ends, end_size * number)
        last = tile.width * addresses.layout.dtypes[x].itemsize - 1
        with f.loop(0, rows) as row:
            at = f.at(f.pointer(table, row), start)
            f.prefetch(at)
            f.prefetch(f.at(at, last))
    f.builder.ret_void()
    return made


def _splat(f: Flow, raw: Any, one: Any, lanes: int) -> Any:
    """One element in every lane."""
    if lanes == 1:
        return raw
    i32 = ir.IntType(32)
    wide = ir.Constant(ir.VectorType(one, lanes), ir.Undefined)
    first = f.builder.insert_element(wide, raw, ir.Constant(i32, 0))
    zeros = ir.Constant(ir.VectorType(i32, lanes), [0] * lanes)
    return f.builder.shuffle_vector(first, wide, zeros)


def _joined(f: Flow, rows: list[Any], lanes: int) -> Any:
    """Vectors one behind the other, as one."""
    while len(rows) > 1:
        lanes *= 2
        mask = _lanes(0, lanes)
        rows = [
            f.builder.shuffle_vector(a, b, mask) for a, b in zip(rows[::2], rows[1::2], strict=True)
        ]
    return rows[0]


def _part(f: Flow, raw: Any, number: int, lanes: int) -> Any:
    """A stretch of `lanes` lanes of a vector."""
    return f.builder.shuffle_vector(raw, raw, _lanes(number * lanes, lanes))


def _lanes(first: int, count: int) -> Any:
    kind = ir.VectorType(ir.IntType(32), count)
    return ir.Constant(kind, list(range(first, first + count)))


class _Finish:
    """Emits the outputs of one row."""

    def __init__(
        self, f: Flow, tile: Tile, addresses: Addresses, render_value: RenderValue, tiles: Any,
        ends: Any, end_size: Value,
    ) -> None:  # fmt: skip
        self.f = f
        self.tile = tile
        self.layout: Layout = addresses.layout
        self.render_value = render_value
        self.tiles = tiles
        self.ends = ends
        self.end_size = end_size

    @property
    def long_chains(self) -> bool:
        """Whether each element is so long a chain of operations that a few rows should be computed
        side by side: the processor does not look far enough ahead to begin with the next row."""
        outputs = self.layout.contraction.outputs
        return any(isinstance(e, Unary) and e.op in UNARY for e in walk(*outputs))

    def whole_rows(self, row: Value, count: int, places: list[_End]) -> None:
        """All vectors of `count` rows as one: they share constants, and none waits for another."""
        column = self.f.index(0)
        pointers = [self._pointers(row + i, places) for i in range(count)]
        self._emit(self._sums(row, column), column, self.tile.width, places, pointers)

    def part_row(self, row: Value, start: Value, run: Value, places: list[_End]) -> None:
        """`run` columns from `start` on: vectors, then single elements."""
        f, lanes = self.f, self.tile.lanes
        pointers = [self._pointers(row, places)]
        whole = run - f.rem(run, lanes)
        if lanes > 1:
            with f.loop(0, whole, lanes) as j:
                self._emit(self._sums(row, start + j), j, lanes, places, pointers)
        with f.loop(whole, run) as j:
            self._emit(self._sums(row, start + j), j, 1, places, pointers)

    def _pointers(self, row: Value, places: list[_End]) -> dict[int, Any]:
        found = {}
        for number, place in enumerate(places):
            table = self.f.at(self.ends, self.end_size * number)
            found[place.operand] = self.f.at(self.f.pointer(table, row), place.start)
        return found

    def _sums(self, row: Value, column: Value) -> Any:
        return self.f.at(self.tiles, (row * self.tile.width + column) * self.tile.itemsize)

    def _emit(
        self, sums: Any, column: Value, lanes: int, places: list[_End],
        pointers: list[dict[int, Any]],
    ) -> None:  # fmt: skip
        """`lanes` columns of as many rows as have pointers: extras are read, every output
        computed, then all are stored."""
        f, c = self.f, self.layout.contraction
        every = lanes * len(pointers)
        kind = llvm_type(c.accumulator, every)
        raw = f.builder.load(sums, typ=kind, align=self.tile.itemsize)
        values = {"acc": raw}
        for number, place in enumerate(places[: len(c.extras)]):
            rows = [self._load(place, p[place.operand], column, lanes) for p in pointers]
            values[f"e{number}"] = _joined(f, rows, lanes)
        outputs = [
            self.render_value(f.builder, expr, values, every, f.target) for expr in c.outputs
        ]
        for place, expr, output in zip(places[len(c.extras) :], c.outputs, outputs, strict=True):
            for i, p in enumerate(pointers):
                part = _part(f, output, i, lanes) if len(pointers) > 1 else output
                value = cast(f.value(part, expr.dtype), self.layout.dtypes[place.operand])
                self._store(place, p[place.operand], column, lanes, value)

    def _load(self, place: _End, pointer: Any, column: Value, lanes: int) -> Any:
        f, dtype = self.f, self.layout.dtypes[place.operand]
        one = memory_type(dtype)
        if self.layout.units[place.operand] == "0":
            raw = f.builder.load(pointer, typ=one, align=dtype.itemsize)
            return from_memory(f, _splat(f, raw, one, lanes), dtype).raw
        if lanes == 1 or self._adjacent(place):
            at = self._at(place, pointer, column)
            raw = f.builder.load(at, typ=memory_type(dtype, lanes), align=dtype.itemsize)
            return from_memory(f, raw, dtype).raw
        raw = ir.Constant(memory_type(dtype, lanes), ir.Undefined)
        for i in range(lanes):
            at = self._at(place, pointer, column + i)
            element = f.builder.load(at, typ=one, align=dtype.itemsize)
            raw = f.builder.insert_element(raw, element, ir.Constant(ir.IntType(32), i))
        return from_memory(f, raw, dtype).raw

    def _store(self, place: _End, pointer: Any, column: Value, lanes: int, value: Value) -> None:
        f, dtype = self.f, self.layout.dtypes[place.operand]
        raw = to_memory(value, dtype)
        if lanes == 1 or self._adjacent(place):
            f.builder.store(raw, self._at(place, pointer, column), align=dtype.itemsize)
            return
        for i in range(lanes):
            element = f.builder.extract_element(raw, ir.Constant(ir.IntType(32), i))
            f.builder.store(element, self._at(place, pointer, column + i), align=dtype.itemsize)

    def _adjacent(self, place: _End) -> bool:
        return self.layout.units[place.operand] == "n"

    def _at(self, place: _End, pointer: Any, column: Value) -> Any:
        if self._adjacent(place):
            return self.f.at(pointer, column * self.layout.dtypes[place.operand].itemsize)
        return self.f.at(pointer, column * place.apart)
