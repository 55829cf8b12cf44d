"""Lowering of reductions across rows: blocks of the kept inner dimension, accumulated side by side.

for blocks of columns in parallel:
    acc[..] = 0
    for rows: for j in block: acc[j] += x[row, j]
    for j in block: out[j] = acc[j] / n
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from treadle.base import shape as sh
from treadle.base.symbolic import derived
from treadle.graph.emit import Emitter
from treadle.graph.group import Group
from treadle.graph.layout import Layout
from treadle.graph.loops import piece_of, store, widened
from treadle.graph.nest import Nest, Piece
from treadle.graph.plan import Launch, Place
from treadle.graph.pull import Value
from treadle.graph.values import (
    Dim,
    Root,
    accumulator_dtype,
    dims_of,
    merge,
    name_values,
    neutral,
    opened,
)
from treadle.ir.loop import Accumulate, Alloc, Binary, Cast, Const, Expr, Load, Store
from treadle.ir.node import Node
from treadle.ops.reduce import combine_of

BLOCK = 2048
"""Columns of a task: the accumulators stay in the first-level cache, and what is read of a row is
a page or two of memory, so that the prefetcher gets going."""
NARROW = 256
"""Columns of a task where wide blocks would be too few."""
TOGETHER = 4
"""Rows that are added up at once."""
SIMPLE = 12
"""Values of an element up to which that is worth the longer code."""
ENOUGH = 16
"""Tasks that keep the machine busy."""


def lower_columns(
    group: Group,
    stored: Iterable[Node],
    layouts: Mapping[Node, Layout],
    places: Mapping[Node, Place],
) -> Launch:
    """The launch of a column group."""
    roots, order, indices = opened(group, stored, layouts)
    rows = merge(dims_of(group.rows, group), indices)
    cols = merge(dims_of(group.cols, group), indices)
    nest = Nest(Emitter(places))
    _Columns(group, nest, roots, order, rows, cols).build()
    return nest.launch("columns", order, [*rows, *cols])


def _width(outer: int, extent: int) -> int:
    """How many columns make a task."""
    block = BLOCK if outer * -(-extent // BLOCK) >= ENOUGH else NARROW
    blocks = -(-extent // block)
    return min(block, ((extent + blocks - 1) // blocks + 15) // 16 * 16)


class _Columns:
    """The body of a column kernel."""

    def __init__(
        self,
        group: Group,
        nest: Nest,
        roots: list[Root],
        order: list[Value],
        rows: list[Dim],
        cols: list[Dim],
    ) -> None:
        self.group = group
        self.nest = nest
        self.roots = roots
        self.order = order
        self.rows = rows
        self.cols = cols
        self.sums = [v for v in order if v.kind == "reduce"]
        self.registers: dict[Value, str] = {}

    def build(self) -> None:
        """Emits the accumulation, then what becomes of the sums."""
        nest, emitter, last = self.nest, self.nest.emitter, self.rows[-1]
        outer = sh.count([d.extent for d in self.rows[:-1]])
        width = derived(_width, outer, last.extent, least=1)
        nest.parallel(self.rows[:-1], [Piece(last, width)])
        for v in self.sums:
            name = self.registers[v] = emitter.fresh("a")
            kind = accumulator_dtype(v.dtype)
            nest.inner.append(Alloc(name, kind, Const(BLOCK), "stack"))
        level = len(nest.levels) - 1
        at = nest.loop(last, "vector")
        for v in self.sums:
            nest.inner.append(Store(self.registers[v], at, neutral(v.node)))
        nest.close(level)
        elements, results = self._parts()
        outside = [v for v in self.order if not v.mask & self._inner_mask()]
        bound = name_values(self.order, [*self.rows[:-1], *self.cols, last])
        for v in outside:
            if v in bound:
                nest.place(v)
        self._accumulate(elements, bound, level)
        at = nest.loop(last, "vector")
        for v in results:
            if v.kind == "reduce":
                nest.inner.append(emitter.bind(v, self._total(v, at)))
            elif v in bound or (len(self.roots) > 1 and any(r.value is v for r in self.roots)):
                nest.place(v)
        for root in self.roots:
            store(nest, root)

    def _inner_mask(self) -> int:
        mask = self.rows[-1].mask
        for d in self.cols:
            mask |= d.mask
        return mask

    def _total(self, v: Value, at: Expr) -> Expr:
        total: Expr = Load(self.registers[v], at, accumulator_dtype(v.dtype))
        return total if total.dtype is v.dtype else Cast(total, v.dtype)

    def _accumulate(self, elements: list[Value], bound: set[Value], level: int) -> None:
        nest = self.nest
        *outer, last = self.cols
        for d in outer:
            nest.loop(d, "serial", piece_of(nest, self.group, d) if d.piece else None)
        start: Expr = Const(0)
        stop: Expr = nest.emitter.size(last.extent)
        if last.piece:
            start, stop = piece_of(nest, self.group, last)
        # What belongs to a row as a whole is made once a row, not once for every few columns.
        alike = any(not v.mask & self.rows[-1].mask for v in elements)
        together = 1 if alike or len(elements) > SIMPLE else TOGETHER
        inside = len(nest.levels) - 1
        if together > 1:
            groups = nest.bind("g", Binary("floordiv", stop, Const(together)))
            self._some_rows(elements, bound, (start, groups), together, inside)
            done = nest.bind("d", Binary("mul", groups, Const(together)))
            start = nest.bind("s", Binary("add", start, done))
            stop = nest.bind("n", Binary("sub", stop, done))
        self._some_rows(elements, bound, (start, stop), 1, inside)
        nest.close(level)

    def _some_rows(
        self,
        elements: list[Value],
        bound: set[Value],
        rows: tuple[Expr, Expr],
        together: int,
        level: int,
    ) -> None:
        """Rows from the first on, in so many groups of `together`: a sum is loaded and stored once
        for all rows of a group."""
        nest, emitter = self.nest, self.nest.emitter
        sums = {v: self.registers[v] for v in self.sums}
        if together == 1:
            nest.loop(self.cols[-1], "serial", rows)
            at: Expr = nest.loop(self.rows[-1], "vector")
            place = at
        else:
            turn = nest.turns(rows[1])
            at, place = nest.loop(self.rows[-1], "vector"), Const(0)
            for v in self.sums:
                name, kind = emitter.fresh("a"), accumulator_dtype(v.dtype)
                nest.inner.append(Alloc(name, kind, Const(1), "register"))
                nest.inner.append(Store(name, place, Load(sums[v], at, kind)))
                sums[v] = name
            columns = len(nest.levels) - 1
            first = Binary("add", rows[0], Binary("mul", turn, Const(together)))
            nest.unroll(self.cols[-1], first, together)
        for v in elements:
            if v in bound:
                nest.place(v)
        for v in self.sums:
            value = widened(emitter.value(v.args[0]), v)
            nest.inner.append(Accumulate(sums[v], place, combine_of(v.node), value))
        if together > 1:
            nest.close(columns)
            for v in self.sums:
                total = Load(sums[v], place, accumulator_dtype(v.dtype))
                nest.inner.append(Store(self.registers[v], at, total))
        nest.close(level)
        for v in elements:
            v.name = ""

    def _parts(self) -> tuple[list[Value], list[Value]]:
        """The values of the elements, and those of the results, both inside of loops."""
        elements: set[Value] = set()
        results: set[Value] = set()
        inner = self._inner_mask()
        for found, stack in (
            (elements, [v.args[0] for v in self.sums]),
            (results, [r.value for r in self.roots]),
        ):
            while stack:
                v = stack.pop()
                if v in found or not v.mask & inner:
                    continue
                found.add(v)
                if v.kind != "reduce":
                    stack += v.args
        return (
            [v for v in self.order if v in elements],
            [v for v in self.order if v in results],
        )
