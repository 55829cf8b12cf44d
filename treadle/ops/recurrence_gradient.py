"""The gradient of a recurrence: another recurrence, which runs the other way.

It carries the gradients of the carries, and reads the histories of those values of the step that
the gradient rules use. Whatever is a sum over all turns, above all the gradients of weights, is
not summed turn by turn: its parts are stacked and summed, or contracted, in one go afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final

from treadle.ir.node import Node, topological
from treadle.ops import pointwise as pw
from treadle.ops.body import Body, Loop, after, at_last, body_of, first, substitute
from treadle.ops.contract import CONTRACT, contract
from treadle.ops.reduce import SUM, total
from treadle.ops.source import full
from treadle.ops.table import Op, input_node, make
from treadle.ops.view import (
    EXPAND,
    FLIP,
    PERMUTE,
    RESHAPE,
    SLICE,
    UNSLICE,
    expand,
    permute,
    reshape,
)

_LINEAR: Final = frozenset({PERMUTE, RESHAPE, EXPAND, SLICE, UNSLICE, FLIP})
"""Views that commute with a sum."""

Stack = Callable[[Node], Node]
"""From a value of a turn to its history."""


def gradients(
    nodes: Sequence[Node], gs: Sequence[Node], wanted: set[int], known: Iterable[Node] = ()
) -> dict[int, Node]:
    """The gradients of several histories of one recurrence, by the position of the input.

    Args:
        nodes: recurrence nodes that differ in the value that they tell of.
        gs: the gradient of each.
        wanted: the inputs whose gradients somebody wants.
        known: further histories of that recurrence, to be used rather than made again.
    """
    return _Backward(nodes, gs, wanted, (*known, *nodes)).run()


def used_by_gradients(
    op: Op, body: Body, values: tuple[int, ...], wanted: frozenset[int]
) -> list[int]:
    """The values of a step whose histories the gradients of some of its histories use."""
    key = ("used", values, wanted)
    if key not in body.plans:
        lead = [(), (1,), ()]
        counts = (body.carries, body.slices, body.constants)
        kinds = [extent for extent, n in zip(lead, counts, strict=True) for _ in range(n)]
        inputs = tuple(
            [
                input_node((*extent, *leaf.shape), leaf.dtype)
                for extent, leaf in zip(kinds, body.order, strict=False)
            ]
        )
        nodes = [make(op, inputs, (body, v, 1, False)) for v in values]
        found = gradients(nodes, [_like(n) for n in nodes], set(wanted))
        body.plans[key] = sorted(
            {n.attrs[1] for n in topological(found.values()) if n.op is op and n.inputs == inputs}
        )
    used: list[int] = body.plans[key]
    return used


class _Backward:
    """Builds the step of the backward recurrence, over nodes of the forward step itself."""

    def __init__(
        self, nodes: Sequence[Node], gs: Sequence[Node], wanted: set[int], known: Iterable[Node]
    ) -> None:
        some = nodes[0]
        body, _, length, reverse = some.attrs
        self.body: Body = body
        self.reverse: bool = reverse
        self.forward = Loop(some.op, body, some.inputs, length, reverse, known)
        self.place = {node: i for i, node in enumerate(body.order)}
        self.wanted = {i for i in wanted if body.order[i].dtype.is_floating_point}
        self.relevant = _relevant(body, self.wanted)
        self.carried = [k for k in range(body.carries) if k in self.relevant]
        self.carries = {k: _like(body.order[k]) for k in self.carried}
        # What gradients come in at each turn, and at what a carry was before the first one.
        self.seeds: dict[Node, Node] = {}
        self.initial: dict[int, Node] = {}
        self.grads: dict[int, Node] = {}
        self._seed(nodes, gs)
        self._differentiate()
        order = topological(self.grads.values())
        self.varies = self._varying(order)

    def _seed(self, nodes: Sequence[Node], gs: Sequence[Node]) -> None:
        body = self.body
        for k in self.carried:
            self._add(body.nexts[k], self.carries[k])
        for node, g in zip(nodes, gs, strict=True):
            value = node.attrs[1]
            if value < 0:
                value, g = -1 - value, at_last(g, self.forward.length, self.reverse)
            at = value
            if value < body.carries:
                edge = first(g, self.reverse)
                known = self.initial.get(value)
                self.initial[value] = edge if known is None else pw.add(known, edge)
                at, g = body.nexts[value], after(g, self.reverse)
            if at in self.relevant:
                seed = _like(body.order[at])
                self.seeds[seed] = g
                self._add(at, seed)

    def _add(self, at: int, gradient: Node) -> None:
        known = self.grads.get(at)
        self.grads[at] = gradient if known is None else pw.add(known, gradient)

    def _differentiate(self) -> None:
        """Gradients of everything that matters, from the last value of the step to the first."""
        body = self.body
        for at in range(len(body.order) - 1, body.leaves - 1, -1):
            if at not in self.grads or at in body.stops:
                continue
            node, g = body.order[at], self.grads[at]
            for i, source in enumerate(node.inputs):
                where = self.place[source]
                if where in self.relevant:
                    part = node.op.vjp(node, g, i)
                    if part is not None:
                        self._add(where, part)

    def _varying(self, order: Sequence[Node]) -> set[Node]:
        """The nodes that are not the same in every turn."""
        body = self.body
        varies = {*self.carries.values(), *self.seeds}
        varies.update(body.order[: body.carries + body.slices])
        for node in [*body.order[body.leaves :], *order]:
            if any(i in varies for i in node.inputs):
                varies.add(node)
        return varies

    # --- from one step to all of them ----------------------------------------------------------

    def run(self) -> dict[int, Node]:
        """The gradients of the inputs."""
        body = self.body
        nexts = [
            self.grads.get(k, full(body.order[k].shape, 0, body.order[k].dtype))
            for k in self.carried
        ]
        asked: dict[Node, Node] = {}

        def note(node: Node) -> Node:
            return asked.setdefault(
                node, input_node((self.forward.length, *node.shape), node.dtype)
            )

        self._results(note)
        loop, place = self._loop(nexts, [n for n in asked if n not in self.place])
        out = self._results(lambda node: self._history(node, loop, place))
        for k in self.wanted:
            if k in self.carries:
                back = loop.last(self.carried.index(k))
                edge = self.initial.get(k)
                out[k] = back if edge is None else pw.add(back, edge)
            elif k in self.initial:
                out[k] = self.initial[k]
        return out

    def _results(self, history: Stack) -> dict[int, Node]:
        """The gradients of slices and constants, given how a value is stacked."""
        body, out = self.body, {}
        for i in sorted(self.wanted):
            if i < body.carries or i not in self.grads:
                continue
            if i < body.carries + body.slices:
                out[i] = self._stack(self.grads[i], history)
            else:
                out[i] = self._summed(self.grads[i], history)
        return out

    def _loop(self, nexts: Sequence[Node], asked: Sequence[Node]) -> tuple[Loop, dict[Node, int]]:
        """The backward recurrence: its leaves are what it takes from the forward one."""
        forward, body = self.forward, self.body
        slices: dict[Node, Node] = dict(self.seeds)
        constants: dict[Node, Node] = {}
        own = set(self.carries.values())
        seen: set[Node] = set()
        stack = [*nexts, *asked]
        while stack:
            node = stack.pop()
            if node in seen or node in own:
                continue
            seen.add(node)
            at = self.place.get(node)
            if at is None or (node.op.kind in ("view", "source") and at >= body.leaves):
                stack += node.inputs
            elif node in self.varies:
                slices[node] = forward.history(at)
            else:
                constants[node] = self._outside(node)
        made, place = body_of(
            tuple(self.carries.values()), tuple(slices), tuple(constants), nexts, asked
        )
        zeros = [full(c.shape, 0, c.dtype) for c in self.carries.values()]
        inputs = (*zeros, *slices.values(), *constants.values())
        return Loop(forward.op, made, inputs, forward.length, not self.reverse), place

    def _history(self, node: Node, loop: Loop, place: dict[Node, int]) -> Node:
        """A value of a turn, forward or backward, stacked."""
        at = self.place.get(node)
        return loop.history(place[node]) if at is None else self.forward.history(at)

    def _outside(self, node: Node) -> Node:
        """A value that is the same in every turn, computed outside of the loop."""
        body = self.body
        first_constant = body.carries + body.slices
        given = dict(zip(body.order[first_constant : body.leaves],
                         self.forward.inputs[first_constant:], strict=True))  # fmt: skip
        return substitute([node], given)[0]

    def _stack(self, node: Node, history: Stack) -> Node:
        """The history of a value; what only looks at another value looks at its history."""
        length = self.forward.length
        if node not in self.varies:
            outside = self._outside(node)
            return expand(reshape(outside, (1, *node.shape)), (length, *node.shape))
        if node in self.seeds:
            return self.seeds[node]
        if node.op is PERMUTE:
            axes = tuple([a + 1 for a in node.attrs[0]])
            return permute(self._stack(node.inputs[0], history), (0, *axes))
        if node.op is RESHAPE:
            return reshape(self._stack(node.inputs[0], history), (length, *node.shape))
        if node.op is EXPAND:
            x = node.inputs[0]
            column = (1,) * (len(node.shape) - len(x.shape)) + x.shape
            stacked = reshape(self._stack(x, history), (length, *column))
            return expand(stacked, (length, *node.shape))
        return history(node)

    def _summed(self, node: Node, history: Stack) -> Node:
        """The sum of a value over all turns."""
        if node not in self.varies:
            return pw.mul(self._outside(node), full((), self.forward.length, node.dtype))
        if node.op is pw.ADD and node.inputs[0].shape == node.inputs[1].shape:
            a, b = node.inputs
            return pw.add(self._summed(a, history), self._summed(b, history))
        if node.op is pw.NEG:
            return pw.neg(self._summed(node.inputs[0], history))
        if node.op in _LINEAR:
            return make(node.op, (self._summed(node.inputs[0], history),), node.attrs)
        if node.op is CONTRACT:
            return self._contracted(node, history)
        if node.op is SUM:
            axes = (0, *[a + 1 for a in node.attrs[0]])
            return reshape(total(self._stack(node.inputs[0], history), axes), node.shape)
        return reshape(total(self._stack(node, history), (0,)), node.shape)

    def _contracted(self, node: Node, history: Stack) -> Node:
        """The sum of contractions as one contraction, which sums over the turns as well."""
        left, right, out = node.attrs
        turn = max((*left, *right)) + 1
        operands, labels = [], []
        for x, names in zip(node.inputs, (left, right), strict=True):
            varies = x in self.varies
            operands.append(self._stack(x, history) if varies else self._outside(x))
            labels.append((turn, *names) if varies else names)
        return contract(operands[0], operands[1], labels[0], labels[1], out)


def _like(node: Node) -> Node:
    return input_node(node.shape, node.dtype)


def _relevant(body: Body, wanted: set[int]) -> set[int]:
    """The values that gradients of the wanted inputs flow through."""
    found = set(wanted)
    place = {node: i for i, node in enumerate(body.order)}
    grown = True
    while grown:
        grown = False
        for at in range(body.leaves, len(body.order)):
            node = body.order[at]
            if at in found or at in body.stops or not node.dtype.is_floating_point:
                continue
            if any(place[i] in found for i in node.inputs):
                found.add(at)
        for k, end in enumerate(body.nexts):
            if end in found and k not in found:
                found.add(k)
                grown = True
    return found
