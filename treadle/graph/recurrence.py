"""Recurrences in a plan: one turn is planned by itself, once for all lengths, and repeated.

`lift` prepares a body: values that nobody asks for go, what is the same in every turn is computed
outside of the loop, and the weights of its contractions are laid out in panels, so that no turn
has to pack them. `lower` puts the launches of a turn where the outer plan has its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.symbolic import fixed
from treadle.graph.anchors import Strip
from treadle.graph.plan import Place, Plan, Repeat, Step, moved
from treadle.ir.node import Node, topological
from treadle.ops.body import Body, Loop, body_of, last, substitute
from treadle.ops.contract import CONTRACT, contract
from treadle.ops.recurrence import RECURRENCE, key_of
from treadle.ops.table import input_node, make
from treadle.ops.view import ALIAS, RESHAPE, permute, reshape

_PANEL: Final = 64
"""Bytes of a row of a panel: what the micro-kernels of most machines read of B for each k. On
others the code is as right, but packs."""

Passes = Callable[[Sequence[Node]], list[Node]]


# --- preparing a body --------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class _Lifted:
    """A body as it is planned: which of the old leaves it takes, what its constants are in terms
    of the old ones, and where each value that is asked for is now."""

    body: Body
    kept: tuple[int, ...]
    constants: tuple[Node, ...]
    places: dict[int, int]


def lift(outputs: Sequence[Node], passes: Passes) -> list[Node]:
    """The same outputs with every recurrence prepared; `passes` improve the graph of a body."""
    order = topological(outputs)
    asked: dict[Any, set[int]] = {}
    for node in order:
        if node.op is RECURRENCE:
            asked.setdefault(key_of(node), set()).add(node.attrs[1])
    if not asked:
        return list(outputs)
    new: dict[Node, Node] = {}
    loops: dict[Any, Loop] = {}
    for node in order:
        if node.op is not RECURRENCE:
            new[node] = node.with_inputs(tuple([new[i] for i in node.inputs]))
            continue
        key = key_of(node)
        body, value, length, reverse = node.attrs
        lifted = _prepared(body, frozenset(asked[key]), passes)
        if key not in loops:
            given = [new[i] for i in node.inputs]
            inputs = [given[i] for i in lifted.kept]
            inputs += substitute(lifted.constants, dict(zip(body.order, given, strict=False)))
            loops[key] = Loop(RECURRENCE, lifted.body, tuple(inputs), length, reverse)
        place = lifted.places[max(value, -1 - value)]
        loop = loops[key]
        if value >= body.carries:
            new[node] = loop.history(place)
        elif value >= 0:
            new[node] = loop.carry(place)
        elif -1 - value in asked[key]:
            new[node] = last(loop.carry(place), reverse)
        else:
            new[node] = loop.last(place)
    return [new[o] for o in outputs]


def _prepared(body: Body, asked: frozenset[int], passes: Passes) -> _Lifted:
    found = body.plans.get(("lift", asked))
    if found is None:
        found = body.plans["lift", asked] = _prepare(body, asked, passes)
    lifted: _Lifted = found
    return lifted


def _prepare(body: Body, asked: frozenset[int], passes: Passes) -> _Lifted:
    carries = _live(body, asked)
    others = sorted(v for v in asked if v >= body.carries)
    values = [*[body.nexts[k] for k in carries], *others]
    roots = passes([body.order[v] for v in values])
    end = body.carries + body.slices
    outside = _Outside(body.order[end : body.leaves])
    roots = outside.replaced(roots)
    used = set(topological(roots))
    slices = [i for i in range(body.carries, end) if body.order[i] in used]
    leaves = [n for n in outside.leaves if n in used]
    made, place = body_of(
        [body.order[k] for k in carries], [body.order[i] for i in slices], leaves,
        roots[: len(carries)], roots[len(carries) :],
    )  # fmt: skip
    places = {k: i for i, k in enumerate(carries)}
    places |= {v: place[n] for v, n in zip(others, roots[len(carries) :], strict=True)}
    return _Lifted(made, (*carries, *slices), tuple([outside.leaves[n] for n in leaves]), places)


def _live(body: Body, asked: frozenset[int]) -> list[int]:
    """The carries that the values asked for depend on."""
    number = {node: k for k, node in enumerate(body.order[: body.carries])}
    live: set[int] = set()
    waiting = {max(v, -1 - v) for v in asked}
    while waiting:
        carries = {v for v in waiting if v < body.carries} - live
        live |= carries
        roots = [body.order[v] for v in waiting if v >= body.carries]
        roots += [body.order[body.nexts[k]] for k in carries]
        waiting = {number[n] for n in topological(roots) if n in number} - live
    return sorted(live)


class _Outside:
    """Takes what is the same in every turn out of a body, as further constants.

    `leaves` are the constants of the new body, each with what it is made of.
    """

    def __init__(self, constants: Sequence[Node]) -> None:
        self.leaves: dict[Node, Node] = {c: c for c in constants}
        self._fixed: set[Node] = set(constants)
        self._leaf_of: dict[Node, Node] = {c: c for c in constants}

    def replaced(self, roots: Sequence[Node]) -> list[Node]:
        """The roots of the new body."""
        new: dict[Node, Node] = {}
        for node in topological(roots):
            if node.inputs and all(i in self._fixed for i in node.inputs):
                self._fixed.add(node)
        for node in topological(roots):
            if node in self._fixed:
                new[node] = self._inside(node)
                continue
            found = self._in_panels(node, new) if node.op is CONTRACT else None
            if found is None:
                found = node.with_inputs(tuple([new[i] for i in node.inputs]))
            new[node] = found
        return [new[r] for r in roots]

    def _inside(self, node: Node) -> Node:
        """A value that never changes as it is read in a turn: views of constants stay there."""
        if node in self._leaf_of:
            return self._leaf_of[node]
        if node.op.kind == "view":
            return node.with_inputs(tuple([self._inside(i) for i in node.inputs]))
        return self._leaf(node)

    def _leaf(self, node: Node) -> Node:
        found = self._leaf_of.get(node)
        if found is None:
            found = self._leaf_of[node] = input_node(node.shape, node.dtype)
            self.leaves[found] = node
        return found

    def _in_panels(self, node: Node, new: Mapping[Node, Node]) -> Node | None:
        """A contraction with a constant matrix, which is laid out panel by panel."""
        for i in (1, 0):
            w, names, other = node.inputs[i], node.attrs[i], node.attrs[1 - i]
            out = node.attrs[2]
            free = [label for label in names if label not in other]
            width = _PANEL // node.dtype.itemsize
            if w not in self._fixed or len(names) != 2 or len(free) != 1 or free[0] not in out:
                continue
            (n,) = free
            (k,) = [label for label in names if label != n]
            columns = w.shape[names.index(n)]
            if k in out or columns % width or columns == width:
                continue
            rows = permute(w, (names.index(n), names.index(k)))
            cut = reshape(rows, (columns // width, width, rows.shape[1]))
            packed = self._leaf(permute(cut, (0, 2, 1)))
            panel = max(*names, *other) + 1
            ends = tuple([x for label in out for x in ((panel, n) if label == n else (label,))])
            sides = [(new[node.inputs[1 - i]], other), (packed, (panel, k, n))]
            (a, left), (b, right) = sides if i else sides[::-1]
            return reshape(contract(a, b, left, right, ends), node.shape)
        return None


# --- one turn ----------------------------------------------------------------------------------


@dataclass(slots=True, eq=False)
class Turn:
    """The plan of one turn, which gives the next carries and then `values`, and the plan that
    puts the first carries where the loop reads them."""

    plan: Plan
    start: Plan
    values: tuple[int, ...]


Assemble = Callable[[Sequence[Node], Sequence[Node]], Plan]


def turn_of(body: Body, values: tuple[int, ...], assemble: Assemble) -> Turn:
    """How a turn of a prepared body is computed, made once."""
    found = body.plans.get(("turn", values))
    if found is None:
        leaves = body.order[: body.leaves]
        roots = [body.order[v] for v in (*body.nexts, *values)]
        carries = leaves[: body.carries]
        found = body.plans["turn", values] = Turn(
            assemble(_apart(roots, leaves), leaves),
            assemble(_apart(carries, carries), carries),
            values,
        )
    turn: Turn = found
    return turn


def _apart(roots: Sequence[Node], inputs: Sequence[Node]) -> list[Node]:
    """The roots as values with memory of their own: copies, where they are inputs or equal."""
    taken = set(inputs)
    out = []
    for root in roots:
        base = root
        while base.op is RESHAPE:
            base = base.inputs[0]
        while base in taken:
            base = root = make(ALIAS, (base,))
        taken.add(base)
        out.append(root)
    return out


class _Address(NamedTuple):
    """A `Place`, to which bytes may be added."""

    slot: int
    offset: int

    def further(self, nbytes: int) -> Place:
        """A place behind it."""
        return (self.slot, self.offset + nbytes)


@dataclass(slots=True, eq=False)
class Results:
    """Where a loop writes: histories of the values of its turn, the carries, and what a turn needs
    for itself. A carry has its history, or two buffers of which the first has the last state."""

    carries: tuple[tuple[Node, ...], ...]
    values: tuple[Node, ...]
    scratch: Node


def results_of(body: Body, length: int, turn: Turn, stored: Sequence[Node]) -> Results:
    """Memory for what a loop is asked for, and for what it needs besides."""
    asked = {node.attrs[1]: node for node in stored}
    carries: list[tuple[Node, ...]] = []
    for k, c in enumerate(body.order[: body.carries]):
        if k in asked:
            carries.append((asked[k],))
        else:
            end = asked.get(-1 - k) or input_node(c.shape, c.dtype)
            carries.append((end, input_node(c.shape, c.dtype)))
    nbytes = max(turn.plan.arena_bytes, turn.start.arena_bytes)
    values = tuple([asked[v] for v in turn.values])
    return Results(tuple(carries), values, input_node((nbytes,), dt.uint8))


def lower(
    node: Node, turn: Turn, strips: Sequence[Strip], results: Results, places: Mapping[Node, Place]
) -> list[Step]:
    """The steps of a recurrence: carries put in place, then the turns."""
    memory = _Memory(node, strips, results, places)
    length: int = node.attrs[2]
    start = memory.start()
    first = [
        moved(step, lambda place: (start[place[0]].further(place[1]), 0))
        for step in turn.start.steps
    ]
    period = 2 if any(len(buffers) == 2 for buffers in results.carries) else 1
    turns = [memory.at(turn.plan, t, period) for t in range(period)]
    steps = [step for step, _ in first]
    if length >= period:
        inner = [pair for pairs in turns for pair in pairs]
        parts = tuple([s for s, _ in inner]), tuple([a for _, a in inner])
        steps.append(Repeat(*parts, length // period))
    if period > 1 and fixed(length % period):
        steps += [step for step, _ in memory.at(turn.plan, length - 1, period)]
    return steps


class _Memory:
    """The places of what a turn reads and writes."""

    def __init__(
        self, node: Node, strips: Sequence[Strip], results: Results, places: Mapping[Node, Place]
    ) -> None:
        self.body, _, self.length, self.reverse = node.attrs
        self.strips = strips
        self.results = results
        self.places = places

    def start(self) -> list[_Address]:
        """The slots of the plan that puts the first carries in place."""
        begins = [self._carry(k, 0) for k in range(self.body.carries)]
        sources = [self._strip(s, 0) for s in self.strips[: self.body.carries]]
        return [*sources, *begins, self._place(self.results.scratch, 0)]

    def at(self, plan: Plan, turn: int, period: int) -> list[tuple[Step, Any]]:
        """The steps of one turn, and how far their buffers move in so many turns."""
        now, then = self._slots(turn), self._slots(turn + period)
        moves = [b.offset - a.offset for a, b in zip(now, then, strict=True)]
        return [
            moved(s, lambda place: (now[place[0]].further(place[1]), moves[place[0]]))
            for s in plan.steps
        ]

    def _slots(self, turn: int) -> list[_Address]:
        count = self.body.carries
        t = self.length - 1 - turn if self.reverse else turn
        given = [self._carry(k, turn) for k in range(count)]
        given += [self._strip(s, t) for s in self.strips[count:]]
        ends = [self._carry(k, turn + 1) for k in range(count)]
        ends += [self._place(n, t * _bytes(n, 1)) for n in self.results.values]
        return [*given, *ends, self._place(self.results.scratch, 0)]

    def _carry(self, k: int, turns: int) -> _Address:
        """A carry after so many turns."""
        buffers = self.results.carries[k]
        if len(buffers) == 2:
            return self._place(buffers[fixed((self.length - turns) % 2)], 0)
        row = self.length - turns if self.reverse else turns
        return self._place(buffers[0], row * _bytes(buffers[0], 1))

    def _strip(self, strip: Strip, t: int) -> _Address:
        return self._place(strip.base, (strip.offset + t * strip.step) * strip.base.dtype.itemsize)

    def _place(self, node: Node, offset: int) -> _Address:
        slot, start = self.places[node]
        return _Address(slot, start + offset)


def _bytes(node: Node, first: int) -> int:
    return sh.count(node.shape[first:]) * node.dtype.itemsize
