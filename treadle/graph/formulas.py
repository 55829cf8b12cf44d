"""A graph again, with formulas for the sizes that vary."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from treadle.base.algebra import Algebra, both
from treadle.base.errors import TreadleError
from treadle.base.shape import Shape
from treadle.base.symbolic import Symbolic
from treadle.graph.structure import join, sizes_of
from treadle.ir.node import Node
from treadle.ops.table import INPUT, make

Sizes = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """The sizes of a graph of some structure, and the shapes of its nodes."""

    sizes: Sizes
    shapes: tuple[Shape, ...]


class Unsuitable(Exception):
    """Something that no template can be made of; the reason says why."""


def varying(sizes: Sizes, before: Sizes) -> frozenset[int]:
    """Which sizes differ from those of an earlier sample."""
    return frozenset([i for i, (a, b) in enumerate(zip(sizes, before, strict=True)) if a != b])


class Formulas:
    """Nodes made once more, in an order in which inputs come before their users.

    A size that has the value of a formula, here and in the graph before, is taken for that; that
    it is, is a condition.

    Args:
        algebra: that the formulas are to belong to.
        nodes: the graph at hand.
        sizes: of the nodes, one after another.
        before: another graph of the same structure.
        vary: which sizes are to be symbols; all others are constants.

    Attributes:
        new: for each node that with formulas.
        symbols: which sizes vary.
        constants: which must be the same.

    Raises:
        Unsuitable: a rule of an op does not keep to sums, products, quotients and comparisons.
    """

    def __init__(
        self, algebra: Algebra, nodes: Sequence[Node], sizes: Sizes, before: Sample,
        vary: Collection[int],
    ) -> None:  # fmt: skip
        self.algebra = algebra
        self.symbols: list[int] = []
        self.constants: list[int] = []
        self.new: dict[Node, Node] = {}
        self._sizes = sizes
        self._before = before
        self._vary = vary
        self._known: dict[tuple[int, int], Symbolic] = {}
        self._at = 0
        for node, shape in zip(nodes, before.shapes, strict=True):
            if node.op is INPUT:
                mine = tuple([self._next() for _ in node.shape])
                self.new[node] = Node(INPUT, (), node.attrs, mine, node.dtype, site=node.site)
            else:
                self.new[node] = self._remade(node, shape)

    def _remade(self, node: Node, before: Shape) -> Node:
        inputs = tuple([self.new[i] for i in node.inputs])
        old = sizes_of(node)
        attrs = join(node, iter([self._next() for _ in old])) if old else node.attrs
        try:
            made = make(node.op, inputs, attrs)
        except TreadleError as error:
            raise Unsuitable(str(error)) from error
        for n, value, other in zip(made.shape, node.shape, before, strict=True):
            if both(n) != (value, other):
                raise Unsuitable(f"the shape rule of {node!r} hides how it computes")
            self._note(n)
        made.shape = tuple([self._extent(n) for n in made.shape])
        made.site = node.site
        return made

    def _next(self) -> Any:
        """The next size, as the graph is walked."""
        i = self._at
        self._at += 1
        value, other = self._sizes[i], self._before.sizes[i]
        if i not in self._vary:
            self.constants.append(i)
            return value
        self.symbols.append(i)
        if isinstance(value, float):
            return self.algebra.real(value)
        found = self._known.get((value, other))
        if found is None:
            found = self.algebra.symbol(value, other)
            self._note(found)
            for known in list(self._known.values()):
                self._note(found * known)
        else:
            self.algebra.given(found)
        return found

    def _extent(self, number: int) -> int:
        return self.algebra.extent(number) if type(number) is Symbolic else number

    def _note(self, number: int) -> None:
        if type(number) is Symbolic:
            self._known.setdefault(both(number), number)
