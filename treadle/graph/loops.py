"""Lowering of pointwise groups and of rows: reductions along the inner loops, stage by stage.

    for rows in parallel:
        for cols: max = max(max, x)
        for cols: sum += exp(x - max)
        for cols: out = exp(x - max) / sum

Stage `k` is one pass over the columns: it accumulates the reductions whose elements depend on `k`
others in a row, and stores the outputs that do. Dear values that several passes need are kept in
a scratch row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from treadle.base import shape as sh
from treadle.base.symbolic import varies
from treadle.graph.anchors import DEAR
from treadle.graph.emit import Emitter
from treadle.graph.group import Group
from treadle.graph.layout import Layout
from treadle.graph.nest import Nest, Piece, cut
from treadle.graph.plan import Launch, Place
from treadle.graph.pull import Read, Value
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

FAR_APART = 16
"""Elements from one to the next of which each is on a line of memory of its own."""
TILE = 32
"""Lines of memory that stay in the first-level cache even where they all lie in one set of it."""


def lower_loops(
    group: Group,
    stored: Iterable[Node],
    layouts: Mapping[Node, Layout],
    places: Mapping[Node, Place],
) -> Launch:
    """The launch of a pointwise or row group."""
    roots, order, indices = opened(group, stored, layouts)
    rows = merge(dims_of(group.rows, group), indices)
    cols = merge(dims_of(group.cols, group), indices)
    nest = Nest(Emitter(places))
    work = sum([v.node.op.cost if v.kind == "expr" else 1 for v in order]) or 1
    if any(v.kind == "reduce" for v in order):
        _Rows(group, nest, roots, order, rows, cols, work).build()
        name = "rows"
    else:
        pointwise(nest, roots, order, [*rows, *cols] if group.cols else rows, work)
        name = "pointwise"
    return nest.launch(name, order, [*rows, *cols])


def pointwise(
    nest: Nest, roots: list[Root], order: list[Value], dims: list[Dim], work: int
) -> None:
    """The loops over the elements of some results."""
    pieces: list[Piece] = []
    if dims:
        dims, cols = _tiled(dims, order)
        last = dims[-1]
        cols = cols or cut(last.extent, work)
        pieces = [Piece(last, cols)]
        if len(dims) > 1:
            pieces.insert(0, Piece(dims[-2], cut(dims[-2].extent, work * cols)))
        nest.parallel(dims[:-2], pieces)
        for piece in pieces:
            nest.loop(piece.dim, "vector" if piece.dim is last else "serial")
    bound = name_values(order, dims)
    if len(roots) > 1:
        # All that is read is read before anything is written: an output may lie on an input.
        bound.update(r.value for r in roots if r.value.body is not None)
    for v in order:
        if v in bound:
            nest.place(v)
    for root in roots:
        store(nest, root)


def _tiled(dims: list[Dim], order: list[Value]) -> tuple[list[Dim], int]:
    """Where something is read across the innermost loop: the loop that it lies along, just outside
    of that one, which is cut short; what a line of memory holds is used while it is at hand."""
    last = dims[-1]
    for v in order:
        if not isinstance(v.body, Read):
            continue
        step = v.body.address.coefficient(last.atom)
        # What varies is far apart as a rule.
        if varies(step) or step >= FAR_APART:
            for d in dims[:-1]:
                if v.body.address.coefficient(d.atom) == 1:
                    return [*[e for e in dims[:-1] if e is not d], d, last], TILE
    return dims, 0


def store(nest: Nest, root: Root) -> None:
    """Writes a result in the innermost loop."""
    emitter = nest.emitter
    value = emitter.value(root.value)
    buffer = emitter.param(root.node, "out").name
    nest.inner.append(Store(buffer, emitter.affine(root.address), value))


class _Rows:
    """The body of a row kernel."""

    def __init__(
        self,
        group: Group,
        nest: Nest,
        roots: list[Root],
        order: list[Value],
        rows: list[Dim],
        cols: list[Dim],
        work: int,
    ) -> None:
        self.group = group
        self.nest = nest
        self.roots = roots
        self.order = order
        self.rows = rows
        self.cols = cols
        self.work = work
        self.mask = 0
        for d in cols:
            self.mask |= d.mask
        self.stage: dict[Value, int] = {}
        self.kept: dict[Value, str] = {}
        self.bound: set[Value] = set()

    def build(self) -> None:
        """Emits the loops over rows with all stages inside."""
        nest, rows = self.nest, self.rows
        if rows:
            width = sh.count([d.piece or d.extent for d in self.cols])
            piece = Piece(rows[-1], cut(rows[-1].extent, width * self.work))
            nest.parallel(rows[:-1], [piece])
            nest.loop(rows[-1], "serial")
        for v in self.order:
            own = 1 if v.kind == "reduce" else 0
            self.stage[v] = max([self.stage[a] for a in v.args], default=0) + own
        passes = self._passes()
        self.bound = name_values(self.order, [*rows, *self.cols])
        ends = [r.value for r in self.roots if not r.mask & self.mask]
        if len(ends) > 1:
            # All that is read is read before anything is written: an output may lie on an input.
            self.bound.update(v for v in ends if v.body is not None)
        scratch = self._scratch(passes)
        last = max([*passes, *[self.stage[v] for v in self.order]], default=0)
        for k in range(last + 1):
            for v in self.order:
                row = not v.mask & self.mask and v.kind != "reduce"
                if row and self.stage[v] == k and v in self.bound:
                    nest.place(v)
            if k in passes:
                self._pass(k, passes[k], scratch)
        for root in self.roots:
            if not root.mask & self.mask:
                store(nest, root)

    def _passes(self) -> dict[int, list[Value]]:
        """The values over the columns that each pass needs."""
        targets: dict[int, list[Value]] = {}
        for v in self.order:
            if v.kind == "reduce":
                targets.setdefault(self.stage[v] - 1, []).append(v.args[0])
        for root in self.roots:
            if root.mask & self.mask:
                targets.setdefault(self.stage[root.value], []).append(root.value)
        return {k: self._inside(t) for k, t in sorted(targets.items())}

    def _inside(self, targets: list[Value]) -> list[Value]:
        needed: set[Value] = set()
        stack = list(targets)
        while stack:
            v = stack.pop()
            if v in needed or not v.mask & self.mask:
                continue
            needed.add(v)
            if v.kind != "reduce":
                stack += v.args
        return [v for v in self.order if v in needed]

    def _scratch(self, passes: dict[int, list[Value]]) -> dict[Value, int]:
        """Dear values that more than one pass needs, with the pass that computes each first."""
        first: dict[Value, int] = {}
        again: dict[Value, int] = {}
        for k, values in passes.items():
            for v in values:
                if v.kind == "expr" and v.node.op.kind == "pointwise" and v.node.op.cost >= DEAR:
                    if v in first:
                        again[v] = first[v]
                    else:
                        first[v] = k
        size = sh.count([d.piece or d.extent for d in self.cols])
        for v in again:
            self.bound.add(v)
            name = self.kept[v] = self.nest.emitter.fresh("w")
            length = self.nest.emitter.size(size)
            self.nest.inner.append(Alloc(name, v.dtype, length, "scratch"))
        return again

    def _pass(self, k: int, values: list[Value], scratch: dict[Value, int]) -> None:
        """One loop over the columns."""
        nest, emitter = self.nest, self.nest.emitter
        level = len(nest.levels) - 1
        sums = [v for v in self.order if v.kind == "reduce" and self.stage[v] == k + 1]
        registers: dict[Value, str] = {}
        for v in sums:
            name = registers[v] = emitter.fresh("a")
            start = neutral(v.node)
            nest.inner.append(Alloc(name, start.dtype, Const(1), "register"))
            nest.inner.append(Store(name, Const(0), start))
        outs = [r for r in self.roots if r.mask & self.mask and self.stage[r.value] == k]
        kept = {v for v, at in scratch.items() if at < k}
        position = self._open_columns()
        for v in self._order_in_pass(values, sums, outs, kept):
            if v in kept:
                nest.inner.append(emitter.bind(v, Load(self.kept[v], position, v.dtype)))
            elif v in self.bound or (len(outs) > 1 and any(r.value is v for r in outs)):
                nest.place(v)
                if scratch.get(v) == k and v in self.kept:
                    nest.inner.append(Store(self.kept[v], position, emitter.value(v)))
        for v in sums:
            value = widened(emitter.value(v.args[0]), v)
            nest.inner.append(Accumulate(registers[v], Const(0), combine_of(v.node), value))
        for root in outs:
            store(nest, root)
        nest.close(level)
        for v in values:
            # The name was one of this loop.
            v.name = ""
        for v in sums:
            total: Expr = Load(registers[v], Const(0), accumulator_dtype(v.dtype))
            if total.dtype is not v.dtype:
                total = Cast(total, v.dtype)
            nest.inner.append(emitter.bind(v, total))

    def _order_in_pass(
        self, values: list[Value], sums: list[Value], outs: list[Root], kept: set[Value]
    ) -> list[Value]:
        """What this pass computes, without what only leads to values kept from an earlier one."""
        needed: set[Value] = set()
        stack = [v.args[0] for v in sums] + [r.value for r in outs]
        while stack:
            v = stack.pop()
            if v in needed or not v.mask & self.mask:
                continue
            needed.add(v)
            if v not in kept:
                stack += v.args
        return [v for v in values if v in needed]

    def _open_columns(self) -> Expr:
        """The loops over the columns; returns the position in a scratch row."""
        nest = self.nest
        chunk = self.group.chunk
        position: Expr | None = None
        for d in self.cols:
            kind = "vector" if d is self.cols[-1] else "serial"
            base = None
            if d.piece and chunk is not None:
                base = piece_of(nest, self.group, d)
            var = nest.loop(d, kind, base)
            if position is not None:
                wide = Binary("mul", position, nest.emitter.size(d.extent))
                position = Binary("add", wide, var)
            else:
                position = var
        return Const(0) if position is None else position


def piece_of(nest: Nest, group: Group, d: Dim) -> tuple[Expr, Expr]:
    """Start and length of one piece of a split reduction."""
    emitter = nest.emitter
    assert group.chunk is not None
    (at,) = emitter.real[group.chunk.piece]
    base = nest.bind("s", Binary("mul", at, emitter.size(d.piece)))
    left = Binary("sub", emitter.size(d.extent), base)
    return base, nest.bind("n", Binary("min", emitter.size(d.piece), left))


def widened(value: Expr, v: Value) -> Expr:
    kind = accumulator_dtype(v.dtype)
    return value if value.dtype is kind else Cast(value, kind)
