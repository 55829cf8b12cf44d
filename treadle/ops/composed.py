"""Gradients of an op by way of a composition of other ops that has the same value."""

from __future__ import annotations

from collections.abc import Callable

from treadle.ir.node import Node, topological
from treadle.ops import pointwise as pw
from treadle.ops.table import input_node

Compose = Callable[[tuple[Node, ...], tuple], Node]
"""`compose(inputs, attrs)`: the value of an op as a graph of other ops."""


def composed_vjp(compose: Compose) -> Callable[[Node, Node, int], Node | None]:
    """The `vjp` of an op that equals a composition: a backward pass through the latter."""

    def vjp(node: Node, g: Node, i: int) -> Node | None:
        # Inputs of their own: the inputs of the node may be one another, or have a history.
        own = tuple([input_node(x.shape, x.dtype) for x in node.inputs])
        own_g = input_node(g.shape, g.dtype)
        gradient = _backward(compose(own, node.attrs), own_g, own[i])
        if gradient is None:
            return None
        return _replaced(gradient, dict(zip((*own, own_g), (*node.inputs, g), strict=True)))

    return vjp


def _backward(root: Node, g: Node, wrt: Node) -> Node | None:
    """The gradient for one leaf of a graph, given that of its root."""
    order = topological([root])
    leads = {wrt}
    for node in order:
        if any(x in leads for x in node.inputs):
            leads.add(node)
    gradients: dict[Node, Node] = {root: g}
    for node in reversed(order):
        own = gradients.get(node)
        if own is None or node is wrt:
            continue
        for i, x in enumerate(node.inputs):
            part = node.op.vjp(node, own, i) if x in leads else None
            if part is not None:
                gradients[x] = pw.add(gradients[x], part) if x in gradients else part
    return gradients.get(wrt)


def _replaced(root: Node, by: dict[Node, Node]) -> Node:
    """A graph on other leaves."""
    new = dict(by)
    for node in topological([root]):
        if node not in new:
            new[node] = node.with_inputs(tuple([new[x] for x in node.inputs]))
    return new[root]
