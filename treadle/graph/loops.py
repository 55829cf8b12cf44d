"""Lowering of pointwise groups and of rows: reductions along the inner loops, stage by stage.

    for rows in parallel:
        for cols: max = max(max, x)
        for cols: sum += exp(x - max)
        for cols: out = exp(x - max) / sum

Stage `k` is one pass over the columns: it accumulates the reductions whose elements depend on `k`
others in a row, and stores the outputs that do. Dear values that several passes need are kept in
a scratch row. What a pass is the first to read the next one asks for in the row behind, so that
memory works while it computes. A single pass over little is done for two rows at once: one stream
does not keep the memory of a processor busy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from treadle.base import shape as sh
from treadle.base.caches import last_level
from treadle.base.symbolic import derived, now, varies
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
from treadle.ir.loop import Accumulate, Alloc, Binary, Cast, Const, Expr, Load, Prefetch, Store
from treadle.ir.node import Node
from treadle.ops.reduce import combine_of

FAR_APART = 16
"""Elements from one to the next of which each is on a line of memory of its own."""
FAR = 2
"""A result larger than one part in so many of the caches is written past them: whoever reads it
would find little of it there, and others find more."""
AHEAD = 8 << 10
"""Bytes of a row up to which the next one is asked for: both stay in the first-level cache."""
SIMPLE = 8
"""Values of a row kernel up to which it takes two rows at once."""
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
    param = emitter.param(root.node, "out")
    size = sh.count(root.node.shape) * root.node.dtype.itemsize
    # What is written over what was just read is in a cache anyhow.
    streaming = param.mode == "out" and now(size) > last_level() // FAR
    nest.inner.append(Store(param.name, emitter.affine(root.address), value, streaming))


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
        self.copies: list[tuple[Expr, dict[Value, str]]] = []
        """Of several rows at once: where each is, and the names of its values."""
        self.read: set[Value] = set()
        self.asked: set[Value] = set()
        self.downs = [v for v in order if v in group.downs]
        """Sums over the rows of the task, each in a scratch row."""

    def build(self) -> None:
        """Emits the loops over rows with all stages inside."""
        nest, rows = self.nest, self.rows
        for v in self.order:
            own = 1 if v.kind == "reduce" and v not in self.group.downs else 0
            self.stage[v] = max([self.stage[a] for a in v.args], default=0) + own
        passes = self._passes()
        if self.downs:
            self._open_piece()
        elif rows:
            width = sh.count([d.piece or d.extent for d in self.cols])
            size = cut(rows[-1].extent, width * self.work)
            nest.parallel(rows[:-1], [Piece(rows[-1], size)])
            if self._is_simple(passes):
                self.copies = [(row, {}) for row in nest.pairs(rows[-1])]
            else:
                nest.loop(rows[-1], "serial")
        self.bound = name_values(self.order, [*rows, *self.cols])
        ends = [r.value for r in self.roots if not r.mask & self.mask]
        if len(ends) > 1 or self.copies:
            # All that is read is read before anything is written: an output may lie on an input.
            self.bound.update(v for v in ends if v.body is not None)
        scratch = self._scratch(passes)
        last = max([*passes, *[self.stage[v] for v in self.order]], default=0)
        for k in range(last + 1):
            for _ in self._each_row():
                for v in self.order:
                    row = not v.mask & self.mask and v.kind != "reduce"
                    if row and self.stage[v] == k and v in self.bound and not v.name:
                        nest.place(v)
            if k in passes:
                self._pass(k, passes[k], scratch)
        for _ in self._each_row():
            for root in self.roots:
                if not root.mask & self.mask:
                    store(nest, root)
        if self.downs:
            self._close_piece()

    def _open_piece(self) -> None:
        """The loops over the rows of a piece, after the sums over them began."""
        nest, emitter = self.nest, self.nest.emitter
        first, *rest = self.rows
        task = nest.parallel([], [Piece(first, first.piece)])
        assert self.group.down is not None and task is not None
        emitter.real[self.group.down.piece] = [task]
        level = len(nest.levels) - 1
        length = sh.count([d.extent for d in self.cols])
        for v in self.downs:
            name = self.kept[v] = emitter.fresh("w")
            kind = accumulator_dtype(v.dtype)
            nest.inner.append(Alloc(name, kind, emitter.size(length), "scratch"))
        position = self._open_columns()
        for v in self.downs:
            nest.inner.append(Store(self.kept[v], position, neutral(v.node)))
        nest.close(level)
        for d in (first, *rest):
            nest.loop(d, "serial")

    def _close_piece(self) -> None:
        """Stores the sums over the rows of a piece."""
        nest = self.nest
        nest.close(1)
        position = self._open_columns()
        for v in self.downs:
            self._bind_total(v, Load(self.kept[v], position, accumulator_dtype(v.dtype)))
        for root in self.roots:
            if root.value in self.group.downs:
                store(nest, root)

    def _bind_total(self, v: Value, total: Expr) -> None:
        """Names what a reduction has added up."""
        if total.dtype is not v.dtype:
            total = Cast(total, v.dtype)
        self.nest.inner.append(self.nest.emitter.bind(v, total))

    def _is_simple(self, passes: Mapping[int, list[Value]]) -> bool:
        """Whether one pass adds up one thing, and stores nothing of the length of a row."""
        sums = [v for v in self.order if v.kind == "reduce"]
        cut_up = any(d.piece for d in self.cols)
        return list(passes) == [0] and len(sums) == 1 and len(self.order) <= SIMPLE and not cut_up

    def _each_row(self) -> Iterator[int]:
        """The rows that are done at once, one after the other: the loop variable stands for each
        in turn, and what depends on it has its name."""
        if not self.copies:
            yield 0
        for i, (row, names) in enumerate(self.copies):
            self.nest.emitter.real[self.rows[-1].atom] = [row]
            for v, name in names.items():
                v.name = name
            yield i
            for v in self.order:
                if v.mask & self.rows[-1].mask:
                    names[v], v.name = v.name, ""

    def _passes(self) -> dict[int, list[Value]]:
        """The values over the columns that each pass needs."""
        targets: dict[int, list[Value]] = {}
        for v in self.order:
            if v.kind == "reduce" and v not in self.group.downs:
                targets.setdefault(self.stage[v] - 1, []).append(v.args[0])
        for root in self.roots:
            if root.mask & self.mask and root.value not in self.group.downs:
                targets.setdefault(self.stage[root.value], []).append(root.value)
        if self.downs:
            # With the last pass: it has most of what they are made of at hand.
            last = max([*targets, *[self.stage[v] for v in self.downs]])
            targets.setdefault(last, []).extend([v.args[0] for v in self.downs])
            self.stage.update(dict.fromkeys(self.downs, last))
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
        along = [v for v in self.order if v.kind == "reduce" and v not in self.group.downs]
        sums = [v for v in along if self.stage[v] == k + 1]
        downs = [v for v in self.downs if self.stage[v] == k]
        registers: dict[tuple[int, Value], str] = {}
        for row in self._each_row():
            for v in sums:
                name = registers[row, v] = emitter.fresh("a")
                start = neutral(v.node)
                nest.inner.append(Alloc(name, start.dtype, Const(1), "register"))
                nest.inner.append(Store(name, Const(0), start))
        outs = [
            r
            for r in self.roots
            if r.mask & self.mask and self.stage[r.value] == k and r.value not in self.group.downs
        ]
        kept = {v for v, at in scratch.items() if at < k}
        position = self._open_columns()
        needed = self._order_in_pass(values, [*sums, *downs], outs, kept)
        for row in self._each_row():
            for v in needed:
                if v in kept:
                    nest.inner.append(emitter.bind(v, Load(self.kept[v], position, v.dtype)))
                elif v.name:
                    continue
                elif v in self.bound or (len(outs) > 1 and any(r.value is v for r in outs)):
                    nest.place(v)
                    if scratch.get(v) == k and v in self.kept:
                        nest.inner.append(Store(self.kept[v], position, emitter.value(v)))
            for v in sums:
                value = widened(emitter.value(v.args[0]), v)
                into = registers[row, v]
                nest.inner.append(Accumulate(into, Const(0), combine_of(v.node), value))
            for v in downs:
                value = widened(emitter.value(v.args[0]), v)
                nest.inner.append(Accumulate(self.kept[v], position, combine_of(v.node), value))
            for root in outs:
                store(nest, root)
        self._ask_ahead()
        self.read.update(values)
        nest.close(level)
        for _ in self._each_row():
            for v in values:
                # The name was one of this loop.
                v.name = ""
        for row in self._each_row():
            for v in sums:
                total = Load(registers[row, v], Const(0), accumulator_dtype(v.dtype))
                self._bind_total(v, total)

    def _ask_ahead(self) -> None:
        """Asks for what an earlier pass was the first to read, in the next row."""
        emitter = self.nest.emitter
        inner = self.cols[-1].atom
        for v in self.order:
            if not isinstance(v.body, Read) or v in self.asked or not self.rows:
                continue
            address = v.body.address
            step = address.coefficient(self.rows[-1].atom)
            along = address.is_linear and address.coefficient(inner) == 1
            if along and step and v in self.read:
                self.asked.add(v)
                ahead = emitter.size(derived(_ahead, step, step * v.dtype.itemsize))
                at = Binary("add", emitter.affine(address), ahead)
                self.nest.inner.append(Prefetch(emitter.param(v.body.node, "in").name, at))

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


def _ahead(step: int, nbytes: int) -> int:
    """How far the row behind is, or 0 where it is too long to be asked for."""
    return step if nbytes <= AHEAD else 0


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
