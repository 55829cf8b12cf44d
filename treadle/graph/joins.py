"""Sums of slices laid out in zeros become joins: what cutting a value apart has as its gradient.

A sum over everything, zeros included, is only the same up to the sign of zeros, and much more
work: every part is then read at every element.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.ir.node import Node, topological
from treadle.ops.gather import JOIN
from treadle.ops.pointwise import ADD
from treadle.ops.table import make
from treadle.ops.view import UNSLICE


def join_slices(outputs: Sequence[Node]) -> list[Node]:
    """The same outputs with sums of slices that lie side by side as joins of them."""
    order = topological(outputs)
    if not any(n.op is ADD and any(i.op in (UNSLICE, ADD) for i in n.inputs) for n in order):
        return list(outputs)
    inner = _inner_sums(order, outputs)
    new: dict[Node, Node] = {}
    for node in order:
        built = node.with_inputs(tuple([new[i] for i in node.inputs]))
        if node.op is ADD and node not in inner:
            built = _joined(_terms(built, node, inner)) or built
        new[node] = built
    return [new[o] for o in outputs]


def _inner_sums(order: Sequence[Node], outputs: Sequence[Node]) -> set[Node]:
    """The sums that are terms of one other sum and nothing else."""
    uses: dict[Node, int] = dict.fromkeys(outputs, 2)
    summed: set[Node] = set()
    for node in order:
        for i in node.inputs:
            uses[i] = uses.get(i, 0) + 1
            if node.op is ADD and i.op is ADD and i.shape == node.shape:
                summed.add(i)
    return {node for node in summed if uses[node] == 1}


def _terms(built: Node, node: Node, inner: set[Node]) -> list[Node]:
    """What a sum adds up, from first to last, as it is built now."""
    out: list[Node] = []
    stack = [(built, node)]
    while stack:
        now, before = stack.pop()
        if before is node or before in inner:
            stack += list(zip(now.inputs, before.inputs, strict=True))[::-1]
        else:
            out.append(now)
    return out


def _joined(terms: Sequence[Node]) -> Node | None:
    """The join of slices that fill one axis without overlap, plus at most one other term."""
    slices = [t for t in terms if t.op is UNSLICE]
    others = [t for t in terms if t.op is not UNSLICE]
    if len(slices) < 2 or len(others) > 1 or any(t.shape != slices[0].shape for t in terms):
        return None
    shape = slices[0].shape
    source = slices[0].inputs[0].shape
    axes = [d for d, (n, m) in enumerate(zip(source, shape, strict=True)) if n != m]
    if len(axes) != 1:
        return None
    (axis,) = axes
    at = 0
    parts: list[Node] = []
    for term in sorted(slices, key=lambda t: t.attrs[1][axis]):
        part, (_, starts, steps) = term.inputs[0], term.attrs
        rest = all(
            n == m for d, (n, m) in enumerate(zip(part.shape, shape, strict=True)) if d != axis
        )
        if starts[axis] != at or not rest or any(s != 1 for s in steps):
            return None
        at += part.shape[axis]
        parts += part.inputs if part.op is JOIN and part.attrs == (axis,) else [part]
    if at != shape[axis]:
        return None
    whole = make(JOIN, tuple(parts), (axis,))
    return make(ADD, (others[0], whole)) if others else whole
