"""The body of a recurrence: one step as a graph of its own, and the histories of its values.

A step takes carries (what the step before left), slices (the step's part of each sequence) and
constants (the same in every step), and says what the carries become.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, Final
from weakref import WeakValueDictionary

from treadle.ir.node import Node, topological
from treadle.ops.table import Op, input_node, make
from treadle.ops.view import expand, reshape, slice_, unslice


class Body:
    """What one step computes: `order` holds the carries, the slices, the constants and then every
    node computed from them; a value is named by its place there.

    `nexts` are the values that the carries become, `stops` those that no gradient passes. Equal
    bodies are one object. `plans` is for whoever lowers the body, once for all lengths.
    """

    __slots__ = (
        "__weakref__", "carries", "constants", "nexts", "order", "plans", "slices", "stops",
    )  # fmt: skip

    def __init__(
        self, counts: tuple[int, int, int], order: tuple[Node, ...], nexts: tuple[int, ...],
        stops: frozenset[int],
    ) -> None:  # fmt: skip
        self.carries, self.slices, self.constants = counts
        self.order = order
        self.nexts = nexts
        self.stops = stops
        self.plans: dict[Any, Any] = {}

    @property
    def leaves(self) -> int:
        """How many values a step is given."""
        return self.carries + self.slices + self.constants

    def __repr__(self) -> str:
        names = dict.fromkeys(n.op.name for n in self.order[self.leaves :])
        return f"<step of {'+'.join(names)}>"


_BODIES: Final[WeakValueDictionary[Hashable, Body]] = WeakValueDictionary()


def body_of(
    carries: Sequence[Node], slices: Sequence[Node], constants: Sequence[Node],
    nexts: Sequence[Node], others: Iterable[Node] = (), stops: Iterable[Node] = (),
) -> tuple[Body, dict[Node, int]]:  # fmt: skip
    """The body of a step, and the place of each of its nodes.

    Args:
        carries, slices, constants: what the step is given; any nodes may stand for them.
        nexts: what the carries become.
        others: further values whose history somebody will ask for.
        stops: values that no gradient passes.
    """
    leaves = (*carries, *slices, *constants)
    order = (*leaves, *topological([*nexts, *others], leaves))
    place = {node: i for i, node in enumerate(order)}
    ends = tuple([place[n] for n in nexts])
    stopped = frozenset([place[n] for n in stops if n in place])
    counts = (len(carries), len(slices), len(constants))
    key: list[Hashable] = [counts, ends, stopped]
    key += [(n.shape, n.dtype.name) for n in leaves]
    for node in order[len(leaves) :]:
        inputs = tuple([place[i] for i in node.inputs])
        key.append((node.op.name, inputs, tuple([_exact(a) for a in node.attrs])))
    known = _BODIES.get(tuple(key))
    if known is None:
        known = _BODIES[tuple(key)] = Body(counts, _fresh(order, len(leaves)), ends, stopped)
    return known, place


def _exact(attribute: Any) -> Hashable:
    """0.0 == -0.0 == False: the text tells them apart."""
    plain = isinstance(attribute, bool | int | float)
    return (type(attribute), repr(attribute)) if plain else attribute


def _fresh(order: Sequence[Node], leaves: int) -> tuple[Node, ...]:
    """The same nodes on inputs of their own."""
    new: dict[Node, Node] = {n: input_node(n.shape, n.dtype) for n in order[:leaves]}
    for node in order[leaves:]:
        new[node] = node.with_inputs(tuple([new[i] for i in node.inputs]))
    return tuple([new[n] for n in order])


def substitute(roots: Sequence[Node], given: Mapping[Node, Node]) -> list[Node]:
    """The roots over other nodes in the place of some."""
    new = dict(given)
    for node in topological(roots, given):
        new[node] = node.with_inputs(tuple([new[i] for i in node.inputs]))
    return [new[r] for r in roots]


# --- histories ---------------------------------------------------------------------------------


class Loop:
    """A body on its inputs: gives the nodes of histories, those of `op`."""

    __slots__ = ("_known", "body", "inputs", "length", "op", "reverse")

    def __init__(
        self, op: Op, body: Body, inputs: tuple[Node, ...], length: int, reverse: bool,
        known: Iterable[Node] = (),
    ) -> None:  # fmt: skip
        self.op, self.body, self.inputs = op, body, inputs
        self.length, self.reverse = length, reverse
        self._known = {node.attrs[1]: node for node in known}

    def carry(self, k: int) -> Node:
        """What carry `k` is at the ends of all turns, the first state included."""
        return self._node(k)

    def before(self, k: int) -> Node:
        """What carry `k` is when each turn begins."""
        return before(self.carry(k), self.reverse)

    def after(self, k: int) -> Node:
        """What carry `k` is when each turn has ended."""
        return after(self.carry(k), self.reverse)

    def last(self, k: int) -> Node:
        """What carry `k` is in the end."""
        return self._node(-1 - k)

    def history(self, value: int) -> Node:
        """A value in all turns, stacked."""
        body = self.body
        if value < body.carries:
            return self.before(value)
        if value < body.carries + body.slices:
            return self.inputs[value]
        if value < body.leaves:
            constant = self.inputs[value]
            column = reshape(constant, (1, *constant.shape))
            return expand(column, (self.length, *constant.shape))
        if value in body.nexts:
            return self.after(body.nexts.index(value))
        return self._node(value)

    def _node(self, value: int) -> Node:
        found = self._known.get(value)
        if found is None:
            attrs = (self.body, value, self.length, self.reverse)
            found = self._known[value] = make(self.op, self.inputs, attrs)
        return found


def _part(x: Node, start: int, stop: int) -> Node:
    rank = len(x.shape)
    return slice_(x, (start, *(0,) * (rank - 1)), (stop, *x.shape[1:]), (1,) * rank)


def before(carry: Node, reverse: bool) -> Node:
    """Of the history of a carry: what each turn begins with."""
    n = carry.shape[0]
    return _part(carry, 1, n) if reverse else _part(carry, 0, n - 1)


def after(carry: Node, reverse: bool) -> Node:
    """Of the history of a carry: what each turn ends with."""
    return before(carry, not reverse)


def last(carry: Node, reverse: bool) -> Node:
    """Of the history of a carry: the end that is reached last."""
    return first(carry, not reverse)


def first(carry: Node, reverse: bool) -> Node:
    """Of the history of a carry: what it began with."""
    n = carry.shape[0]
    return reshape(_part(carry, n - 1, n) if reverse else _part(carry, 0, 1), carry.shape[1:])


def at_last(x: Node, length: int, reverse: bool) -> Node:
    """A value at the end that is reached last, in a history of a carry that is 0 elsewhere."""
    rank = len(x.shape)
    row = reshape(x, (1, *x.shape))
    start = (0 if reverse else length, *(0,) * rank)
    return unslice(row, (length + 1, *x.shape), start, (1,) * (rank + 1))
