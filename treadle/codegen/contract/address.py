"""Addresses: an index within a class of dimensions becomes a sum of index * stride."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.codegen.contract.flow import WORD, Flow, call, function
from treadle.codegen.contract.layout import Layout
from treadle.codegen.contract.shared import share
from treadle.codegen.target import Target
from treadle.codegen.value import Value

_LANES = 4
TABLE_SLACK = 8
"""Entries behind the end of a table that `fill` may overwrite."""


class Addresses:
    """Emits address arithmetic; tables of addresses are filled by one shared function."""

    __slots__ = ("_fill", "layout", "series")

    def __init__(self, module: Any, target: Target, layout: Layout) -> None:
        self.layout = layout
        self.series = share(
            module, target, "series", _SERIES,
            lambda alone, symbol: render_series(alone, target, symbol),
        )  # fmt: skip
        self._fill = share(
            module, target, "fill", _FILL, lambda alone, symbol: _render_fill(alone, target, symbol)
        )

    def extent(self, flow: Flow, params: Any, kind: int) -> Value:
        """The extent of the last dimension of a class: how far its unit stride reaches."""
        rank = self.layout.contraction.dims[kind]
        if rank == 0:
            return flow.index(1)
        return flow.word(params, self.layout.extents(kind) + rank - 1)

    def last_stride(self, flow: Flow, params: Any, operand: int, kind: int) -> Value:
        """An operand's stride in bytes along the last dimension of a class."""
        rank = self.layout.contraction.dims[kind]
        if rank == 0:
            return flow.index(0)
        size = self.layout.dtypes[operand].itemsize
        return flow.word(params, self.layout.strides(operand, kind) + rank - 1) * size

    def offset(self, flow: Flow, params: Any, operand: int, kind: int, index: Value) -> Value:
        """The bytes from an operand's start to an index within a class."""
        rank = self.layout.contraction.dims[kind]
        total = flow.index(0)
        if rank == 0:
            return total
        first, strides = self.layout.extents(kind), self.layout.strides(operand, kind)
        for d in reversed(range(1, rank)):
            extent = flow.word(params, first + d)
            total = total + flow.rem(index, extent) * flow.word(params, strides + d)
            index = flow.div(index, extent)
        total = total + index * flow.word(params, strides)
        return total * self.layout.dtypes[operand].itemsize

    def table(
        self,
        flow: Flow,
        params: Any,
        operand: int,
        kind: int,
        at: Any,
        start: Value,
        count: Value,
        padded: Value,
        base: Value,
        rank: int | None = None,
    ) -> None:
        """Writes `base` + the offset of each index `start .. start + count` to the table `at`.

        Up to `padded` entries repeat the last one. A class without dimensions has one index. With
        a `rank` the index runs over the first dimensions of the class alone.
        """
        rank = self.layout.contraction.dims[kind] if rank is None else rank
        extents = flow.at(params, self.layout.extents(kind) * WORD)
        strides = flow.at(params, self.layout.strides(operand, kind) * WORD)
        size = flow.index(self.layout.dtypes[operand].itemsize)
        call(
            flow, self._fill, at, start, count, padded, base, extents, strides,
            flow.index(rank), size,
        )  # fmt: skip


_SERIES: Final = "piii"
_FILL: Final = "piiiippii"


def _render_fill(module: Any, target: Target, name: str) -> Any:
    """`fill(at, start, count, padded, base, extents, strides, rank, size)`: see `table`."""
    series = render_series(module, target, f"{name}.series")
    made, f, args = function(module, target, name, _FILL)
    at, start, count, padded, base, extents, strides, rank, size = args
    b = f.builder
    with f.when(rank.equals(0)):
        b.store(base.raw, at)
    with f.when((rank > 0) & (count > 0)):
        extent = f.word(extents, rank - 1)
        stride = f.word(strides, rank - 1) * size
        filled = f.cell(f.index(0))
        with f.loop_while() as loop:
            n = filled.get()
            index = start + n
            run = f.least(extent - f.rem(index, extent), count - n)
            first = base + _offset(f, index, extents, strides, rank) * size
            call(f, series, f.at(at, n * WORD), run, first, stride)
            filled.set(n + run)
            loop.again = n + run < count
    with f.when(count > 0):
        last = f.word(at, count - 1)
        with f.loop(count, padded) as n:
            b.store(last.raw, f.at(at, n * WORD))
    b.ret_void()
    return made


def _offset(f: Flow, index: Value, extents: Any, strides: Any, rank: Value) -> Value:
    """The sum of index * stride over `rank` dimensions, in elements."""
    rest, total, d = f.cell(index), f.cell(f.index(0)), f.cell(rank - 1)
    with f.loop(1, rank):
        extent = f.word(extents, d.get())
        total.set(total.get() + f.rem(rest.get(), extent) * f.word(strides, d.get()))
        rest.set(f.div(rest.get(), extent))
        d.set(d.get() - 1)
    return total.get() + rest.get() * f.word(strides)


def render_series(module: Any, target: Target, name: str) -> Any:
    """`series(at, count, first, stride)`: writes `first`, `first + stride`, ... to a table, four
    at a time, so that up to three entries behind it are overwritten."""
    made, f, (at, count, first, stride) = function(module, target, name, _SERIES)
    lane = f.iota(dt.int64, _LANES)
    row = f.cell(first.spread(_LANES) + lane * stride.spread(_LANES))
    jump = (stride * _LANES).spread(_LANES)
    with f.loop(0, count, _LANES) as n:
        f.builder.store(row.get().raw, f.at(at, n * WORD), align=WORD)
        row.set(row.get() + jump)
    f.builder.ret_void()
    return made
