"""How a contraction walks its buffers: strides along the variables of its space."""

from __future__ import annotations

from dataclasses import dataclass

from treadle.graph.index import Affine, Atom
from treadle.ir.node import Node

Classes = tuple[list[Atom], list[Atom], list[Atom], list[Atom]]
"""Variables that are batch, rows, columns and summed."""


@dataclass(frozen=True, slots=True)
class Axis:
    """A dimension of a contraction: `times` steps of a variable, or none where it has extent 1."""

    atom: Atom | None
    extent: int
    times: int = 1

    @classmethod
    def of(cls, atom: Atom) -> Axis:
        """All of a variable."""
        return cls(atom, atom.hi + 1)


Dims = list[Axis]


@dataclass(slots=True)
class Access:
    """The strides of a buffer, and where it begins."""

    node: Node
    step: dict[Atom, int]
    offset: int

    @classmethod
    def of(cls, node: Node, address: Affine) -> Access:
        """The access of a linear address."""
        return cls(node, dict(address.terms), address.const)

    def along(self, axis: Axis) -> int:
        """The elements from one index of an axis to the next."""
        return 0 if axis.atom is None else self.step.get(axis.atom, 0) * axis.times
