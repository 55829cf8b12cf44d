"""Lowering of borders: the zeros around a node that is stored inside of a padded buffer."""

from __future__ import annotations

from collections.abc import Mapping

from treadle.base import shape as sh
from treadle.graph.emit import Emitter
from treadle.graph.group import Group
from treadle.graph.index import Space
from treadle.graph.nest import Nest, Piece, cut
from treadle.graph.plan import Launch, Place
from treadle.graph.pull import Pull
from treadle.graph.values import dims_of
from treadle.ir.loop import Binary, Block, Const, Expr, For, Let, Stmt, Store, Var
from treadle.ir.node import Node


def lower_border(node: Node, places: Mapping[Node, Place]) -> Launch:
    """Writes zeros wherever a padded node is not its inner part."""
    emitter = Emitter(places)
    nest = Nest(emitter)
    inner = node.inputs[0].shape
    first = next(d for d, (a, b) in enumerate(zip(inner, node.shape, strict=True)) if a != b)
    border = _Border(emitter, node, inner)
    base: Expr = Const(0)
    count = sh.count(node.shape[:first])
    if count > 1:
        space = Space()
        index = space.var(count)
        group = Group(0, "border", Pull(space, frozenset(), {}, frozenset()), [])
        (dim,) = dims_of([index.terms[0][0]], group)
        work = sh.count(node.shape[first:]) - sh.count(inner[first:])
        nest.parallel([], [Piece(dim, cut(count, work))])
        nest.loop(dim, "serial")
        base = emitter.affine(space.scale(index, sh.count(node.shape[first:])))
    nest.inner.extend(border.fill(first, base))
    return emitter.launch("border", nest.finish(), nest.tasks, "border", (), 0)


class _Border:
    """The loops over the border of one node."""

    def __init__(self, emitter: Emitter, node: Node, inner: tuple[int, ...]) -> None:
        self.emitter = emitter
        self.node = node
        self.inner = inner
        self.steps = sh.strides(node.shape)
        self.name = emitter.param(node, "out").name

    def fill(self, d: int, base: Expr) -> list[Stmt]:
        """The border within one position of the dimensions before `d`."""
        emitter, step = self.emitter, self.steps[d]
        low = self.node.attrs[1][d]
        n, total = self.inner[d], self.node.shape[d]
        out: list[Stmt] = []
        if low:
            out.append(self._zeros(base, low * step))
        if any(a != b for a, b in zip(self.inner[d + 1 :], self.node.shape[d + 1 :], strict=True)):
            i, row = emitter.fresh("i"), emitter.fresh("r")
            start = Binary("add", base, emitter.size(low * step)) if low else base
            at = Binary("add", start, Binary("mul", Var(i), emitter.size(step)))
            rest = self.fill(d + 1, Var(row))
            out.append(For(i, emitter.size(n), Block((Let(row, at), *rest)), "serial"))
        if low + n < total:
            end = Binary("add", base, emitter.size((low + n) * step))
            out.append(self._zeros(end, (total - low - n) * step))
        return out

    def _zeros(self, base: Expr, count: int) -> Stmt:
        i = self.emitter.fresh("i")
        at = Binary("add", base, Var(i))
        store = Store(self.name, at, Const(0, self.node.dtype))
        return For(i, self.emitter.size(count), store, "vector")
