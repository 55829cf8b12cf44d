"""Lowering of scans: what leads to each element, the running result, and what is made of it, in
one pass.

    for rows in parallel:                      for blocks of columns in parallel:
        run = 0                                    run[..] = 0
        for i: run += x[row, i]                    for rows: for j in block: run[j] += x[row, j]
               y[row, i] = run                                           y[row, j] = run[j]

Left: along the innermost dimension, in lanes by a scan within a register. Right: along another
one, where the lanes are columns that know nothing of each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from treadle.base import shape as sh
from treadle.graph.emit import Emitter
from treadle.graph.group import Group
from treadle.graph.layout import Layout
from treadle.graph.loop_order import loop_order
from treadle.graph.loops import piece_of, store, widened
from treadle.graph.nest import Nest, Piece, cut
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
from treadle.ir.loop import Accumulate, Alloc, Cast, Const, Expr, Load, Store
from treadle.ir.node import Node
from treadle.ops.reduce import combine_of

BLOCKS = (1024, 256)
"""Columns of a task: as many as leave enough tasks; what is read of a row is then one piece."""
ENOUGH = 16
"""Tasks that keep the machine busy."""


def lower_scan(
    group: Group,
    stored: Iterable[Node],
    layouts: Mapping[Node, Layout],
    places: Mapping[Node, Place],
) -> Launch:
    """The launch of a scan group."""
    roots, order, indices = opened(group, stored, layouts)
    own = [t for a in group.frames[0].index for t, _ in a.terms]
    atoms = loop_order(own, order, True)
    pieces = [t for t in group.rows if t not in own]
    outer = [t for t in atoms if t not in group.cols]
    rows = merge(dims_of(pieces + outer, group), indices)
    (col,) = dims_of(group.cols, group)
    nest = Nest(Emitter(places))
    scan = _Scan(group, nest, roots, order, rows, col)
    if atoms[-1] in group.cols:
        scan.along()
    else:
        scan.across()
    return nest.launch("scan", order, [d for d in [*rows, col] if not d.is_piece])


class _Scan:
    """The body of a scan kernel."""

    def __init__(
        self,
        group: Group,
        nest: Nest,
        roots: list[Root],
        order: list[Value],
        rows: list[Dim],
        col: Dim,
    ) -> None:
        self.group = group
        self.nest = nest
        self.roots = roots
        self.order = order
        self.rows = rows
        self.col = col
        self.scans = [v for v in order if v.kind == "scan"]
        self.registers: dict[Value, str] = {}
        self.bound: set[Value] = set()

    def along(self) -> None:
        """Rows in parallel, each one vector loop with the running result in a register."""
        nest, rows = self.nest, self.rows
        if rows:
            work = sum([v.node.op.cost if v.kind == "expr" else 2 for v in self.order])
            length = self.col.piece or self.col.extent
            piece = Piece(rows[-1], cut(rows[-1].extent, length * work))
            nest.parallel(rows[:-1], [piece])
            nest.loop(rows[-1], "serial")
        self._name([*rows, self.col])
        self._place(self.col.mask, inside=False)
        for v in self.scans:
            self._allocate(v, Const(1), "register")
            nest.inner.append(Store(self.registers[v], Const(0), self._start(v)))
        nest.loop(self.col, "vector", self._piece())
        self._turn(Const(0), self.col.mask)

    def across(self) -> None:
        """Blocks of the innermost dimension in parallel, with a running result for each column."""
        nest, rows = self.nest, self.rows
        last = rows[-1]
        outer = sh.count([d.extent for d in rows[:-1]])
        block = next((b for b in BLOCKS if outer * -(-last.extent // b) >= ENOUGH), BLOCKS[-1])
        blocks = -(-last.extent // block)
        width = min(block, (-(-last.extent // blocks) + 15) // 16 * 16)
        nest.parallel(rows[:-1], [Piece(last, width)])
        self._name([*rows[:-1], self.col, last])
        inner = self.col.mask | last.mask
        self._place(inner, inside=False)
        for v in self.scans:
            self._allocate(v, Const(block), "stack")
        level = len(nest.levels) - 1
        at = nest.loop(last, "vector")
        for v in self.scans:
            nest.inner.append(Store(self.registers[v], at, self._start(v)))
        nest.close(level)
        nest.loop(self.col, "serial", self._piece())
        at = nest.loop(last, "vector")
        self._turn(at, inner)

    def _piece(self) -> tuple[Expr, Expr] | None:
        return piece_of(self.nest, self.group, self.col) if self.col.piece else None

    def _name(self, dims: list[Dim]) -> None:
        self.bound = name_values(self.order, dims)
        if len(self.roots) > 1:
            # All that is read is read before anything is written: an output may lie on an input.
            self.bound.update(r.value for r in self.roots if r.value.body is not None)

    def _place(self, inner: int, inside: bool) -> None:
        """Names values, either those that change in the inner loops or those that do not."""
        starts = {v.args[1] for v in self.scans if len(v.args) > 1}
        for v in self.order:
            if bool(v.mask & inner) is inside and v in self.bound and v not in starts:
                self.nest.place(v)

    def _allocate(self, v: Value, size: Const, space: str) -> None:
        name = self.registers[v] = self.nest.emitter.fresh("a")
        self.nest.inner.append(Alloc(name, accumulator_dtype(v.dtype), size, space))

    def _start(self, v: Value) -> Expr:
        if len(v.args) == 1:
            return neutral(v.node)
        return widened(self.nest.emitter.value(v.args[1]), v)

    def _turn(self, at: Expr, inner: int) -> None:
        """One turn of the innermost loop: elements, running results, what is made of them."""
        nest, emitter = self.nest, self.nest.emitter
        for v in self.order:
            if v.kind == "scan":
                element = widened(emitter.value(v.args[0]), v)
                nest.inner.append(Accumulate(self.registers[v], at, combine_of(v.node), element))
                total: Expr = Load(self.registers[v], at, accumulator_dtype(v.dtype))
                if total.dtype is not v.dtype:
                    total = Cast(total, v.dtype)
                nest.inner.append(emitter.bind(v, total))
            elif v in self.bound and v.mask & inner:
                nest.place(v)
        for root in self.roots:
            store(nest, root)
