"""Sums down the rows beside what a kernel does along them: which reductions wait for such rows.

The gradient of a layer norm's weight adds up over the rows what their own gradients are made of.
In one kernel the rows are read once; a task is a piece of the rows, as long as those pieces in
which the sum is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set

from treadle.graph.pull import Value
from treadle.ir.node import Node
from treadle.ops.reduce import PARTIAL

ENOUGH = 16
"""Pieces of rows that keep the machine busy as tasks."""


def sums_behind(order: Sequence[Node], reads: Callable[[Node], Sequence[Node]]) -> list[Node]:
    """Nodes in an order in which sums of pieces come after a reduction along the same rows.

    order: nodes, each after its inputs.
    reads: what a node reads from memory.
    """
    out = list(order)
    for node in [n for n in order if n.op is PARTIAL]:
        first = out.index(node)
        last = _rows_of(node, out[first + 1 :], reads)
        if last is None:
            continue
        part = out[first : first + 2 + last]
        later = {node}
        for other in part:
            if not later.isdisjoint(other.inputs):
                later.add(other)
        if part[-1] not in later:
            out[first : first + len(part)] = [
                *[n for n in part if n not in later],
                *[n for n in part if n in later],
            ]
    return out


def _rows_of(
    node: Node, others: Sequence[Node], reads: Callable[[Node], Sequence[Node]]
) -> int | None:
    """Where the first reduction along the rows is that a node adds up."""
    x, axes = node.inputs[0], set(node.attrs[0])
    mine: Set[Node] = set()
    for i, other in enumerate(others):
        along = other.op.kind == "reduce" and other.op is not PARTIAL
        if not along or not axes.isdisjoint(other.attrs[0]) or other.inputs[0].shape != x.shape:
            continue
        mine = mine or set(reads(node))
        if not mine.isdisjoint(reads(other)):
            return i
    return None


def reaches(value: Value, ends: Set[Value]) -> bool:
    """Whether a value is one of some others, or depends on one."""
    stack, seen = [value] if ends else [], set()
    while stack:
        at = stack.pop()
        if at in ends:
            return True
        if at not in seen:
            seen.add(at)
            stack += at.args
    return False
