"""The operands of attention as strided views, and which nodes one kernel computes together."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.base import shape as sh
from treadle.graph.index import Space
from treadle.graph.layout import Layout
from treadle.graph.pull import Index
from treadle.graph.views import View, see_through
from treadle.ir.node import Node
from treadle.ops.attention import ATTENTION, ATTENTION_LSE


@dataclass(slots=True)
class Strided:
    """An operand of a kernel: a variable for each of its dimensions, and what it is a view of."""

    space: Space
    variables: Index
    view: View

    def strides(self, layout: Layout) -> tuple[list[int], int]:
        """The elements from one index to the next along each dimension, and those before all."""
        address = layout.address(self.space, self.view.index)
        return [address.coefficient(v.terms[0][0]) if v.terms else 0 for v in self.variables], (
            address.const
        )


def named_operands(node: Node) -> dict[str, Node]:
    """What the kernel of a node reads, by name. A forward pass computes lse by itself."""
    if node.op is ATTENTION_LSE:
        names: tuple[str, ...] = ("q", "k", "mask")
    elif node.op is ATTENTION:
        names = ("q", "k", "v", "", "mask")
    else:
        names = ("q", "k", "v", "lse", "g", "delta", "mask")
    return {name: x for name, x in zip(names, node.inputs, strict=False) if name}


def strided_operands(node: Node) -> dict[str, Strided]:
    """The operands of a node, seen through views as far as they stay plain strided reads."""
    return {name: _strided(name, x) for name, x in named_operands(node).items()}


def _strided(name: str, x: Node) -> Strided:
    space = Space()
    variables = tuple([space.var(n) for n in x.shape])
    found = Strided(space, variables, see_through(space, x, variables))
    # Queries are read in vectors along their features.
    steps, _ = found.strides(Layout(sh.strides(found.view.base.shape)))
    if name in ("q", "g") and x.shape[3] > 1 and steps[3] != 1:
        return Strided(space, variables, View(x, variables, True))
    return found


def same_kernel(node: Node, other: Node) -> bool:
    """Whether one kernel computes two nodes: an attention and its lse, or gradients of one."""
    if node.op is ATTENTION:
        return node.inputs[3] is other
    alike = node.op is other.op and node.inputs == other.inputs
    return alike and node.op is not ATTENTION_LSE and node.attrs[1:] == other.attrs[1:]
