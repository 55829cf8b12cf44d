"""Recurrences in a plan: one turn is planned by itself, once for all lengths, and repeated.

`lift` prepares a body: values that nobody asks for go, what is the same in every turn is computed
outside of the loop, and the weights of its contractions are laid out in panels, so that no turn
has to pack them. `lower` puts the launches of a turn where the outer plan has its memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from treadle.base import shape as sh
from treadle.graph.anchors import Strip
from treadle.graph.plan import Move, Place, Plan, Repeat, Step, moved
from treadle.ir.node import Node, topological
from treadle.ops.body import Body, Loop, body_of, substitute
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
        place = lifted.places[value]
        loop = loops[key]
        new[node] = loop.carry(place) if value < body.carries else loop.history(place)
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
    waiting = set(asked)
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


@dataclass(slots=True, eq=False)
class Results:
    """Where a loop writes: histories of the carries, of the values of its turn, and what a turn
    needs for itself."""

    carries: tuple[Node, ...]
    values: tuple[Node, ...]
    scratch: Node


def lower(
    body: Body, length: int, reverse: bool, turn: Turn, strips: Sequence[Strip], results: Results,
    places: Mapping[Node, Place],
) -> list[Step]:  # fmt: skip
    """The steps of a recurrence: carries put in place, then the turns."""
    begin, sign = (length - 1, -1) if reverse else (0, 1)

    def at(node: Node, turns: int, size: int) -> tuple[Place, int]:
        slot, offset = places[node]
        return (slot, offset + turns * size), sign * size

    given: list[tuple[Place, int]] = []
    ends: list[tuple[Place, int]] = []
    for i, strip in enumerate(strips):
        slot, offset = places[strip.base]
        size = strip.base.dtype.itemsize
        if i < body.carries:
            history = results.carries[i]
            size *= sh.count(history.shape[1:])
            given.append(at(history, begin + reverse, size))
            ends.append(at(history, begin + (not reverse), size))
        else:
            step = strip.step * size
            given.append(((slot, offset + strip.offset * size + begin * step), sign * step))
    for node in results.values:
        ends.append(at(node, begin, sh.count(node.shape[1:]) * node.dtype.itemsize))
    slots = [*given, *ends, (places[results.scratch], 0)]
    steps = [moved(step, _into(slots)) for step in turn.plan.steps]
    begins = [(place, 0) for place, _ in given[: body.carries]]
    sources = [
        ((places[s.base][0], places[s.base][1] + s.offset * s.base.dtype.itemsize), 0)
        for s in strips[: body.carries]
    ]
    slots = [*sources, *begins, (places[results.scratch], 0)]
    first = [moved(step, _into(slots))[0] for step in turn.start.steps]
    turns = Repeat(tuple([s for s, _ in steps]), tuple([a for _, a in steps]), length)
    return [*first, turns]


def _into(slots: Sequence[tuple[Place, int]]) -> Move:
    """From places of one turn's plan to places of the whole, and their bytes from turn to turn."""

    def move(place: Place) -> tuple[Place, int]:
        (slot, start), advance = slots[place[0]]
        return (slot, start + place[1]), advance

    return move
