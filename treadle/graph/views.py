"""Nodes seen through views: reshapes, permutations and slices that are plain strided reads."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.base import shape as sh
from treadle.graph.index import Space
from treadle.graph.pull import Index, Pull
from treadle.ir.loop import Expr, Var
from treadle.ir.node import Node
from treadle.ops.view import UNSLICE


@dataclass(slots=True)
class View:
    """A node seen through views: `base` at an index linear in the address of its row-major form.

    `flexible`: also linear in each dimension by itself, so that any order of storage will do.
    """

    base: Node
    index: Index
    flexible: bool


def see_through(space: Space, node: Node, index: Index) -> View:
    """The deepest node below views of which `node` at `index` is a plain strided read."""
    pull = Pull(space, frozenset(), {}, frozenset())
    best = View(node, index, True)
    while node.op.kind == "view" and node.op is not UNSLICE:
        asked: list[tuple[Expr, ...]] = []
        marker = Var("", node.dtype)

        def read(i: int, at: tuple[Expr, ...], asked: list = asked, marker: Var = marker) -> Expr:
            asked.append(at)
            return marker

        if pull.normal(node.op.lower(node, index, read)) is not marker:
            break
        index = tuple([pull.index_of(e) for e in asked[0]])
        node = node.inputs[0]
        if space.dot(index, sh.strides(node.shape)).is_linear:
            best = View(node, index, all(a.is_linear for a in index))
    return best
