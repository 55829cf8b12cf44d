"""The tensor graph: a Node is one operation whose shape, dtype and device are known when made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.base.device import CPU, Device
from treadle.base.dtype import DType
from treadle.base.shape import Shape
from treadle.base.site import Site


class Node:
    """One operation on nodes. Never changed after it is made, and equal only to itself.

    `op` is the op record, `inputs` the graph edges by position, `attrs` the metadata in the order
    of `op.attr_names`, `site` the user's line that recorded it.
    """

    __slots__ = ("attrs", "device", "dtype", "inputs", "op", "shape", "site")

    def __init__(
        self,
        op: Any,
        inputs: tuple[Node, ...],
        attrs: tuple[Any, ...],
        shape: Shape,
        dtype: DType,
        device: Device = CPU,
        site: Site | None = None,
    ) -> None:
        self.op = op
        self.inputs = inputs
        self.attrs = attrs
        self.shape = shape
        self.dtype = dtype
        self.device = device
        self.site = site

    def __repr__(self) -> str:
        named = "".join(
            f", {n}={v!r}" for n, v in zip(self.op.attr_names, self.attrs, strict=False)
        )
        arguments = ", ".join(f"{i.dtype.name}{list(i.shape)}" for i in self.inputs)
        return f"{self.op.name}({arguments}{named}) -> {self.dtype.name}{list(self.shape)}"

    def with_inputs(self, inputs: tuple[Node, ...]) -> Node:
        """The same operation on other inputs of the same types."""
        if all(a is b for a, b in zip(inputs, self.inputs, strict=True)):
            return self
        return Node(self.op, inputs, self.attrs, self.shape, self.dtype, self.device, self.site)


def topological(roots: Iterable[Node], known: Iterable[Node] = ()) -> list[Node]:
    """Every node that the roots depend on, inputs before users, in a fixed order.

    Nodes that are `known` are left out, with what only they depend on. Iterative: a graph may be
    deeper than Python's stack.
    """
    order: list[Node] = []
    done: set[Node] = set(known)
    for root in roots:
        stack: list[tuple[Node, int]] = [(root, 0)]
        while stack:
            node, at = stack.pop()
            if at == 0 and node in done:
                continue
            inputs = node.inputs
            while at < len(inputs) and inputs[at] in done:
                at += 1
            if at < len(inputs):
                stack.append((node, at + 1))
                stack.append((inputs[at], 0))
            elif node not in done:
                done.add(node)
                order.append(node)
    return order
