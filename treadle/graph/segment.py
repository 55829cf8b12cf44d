"""Segments: stretches of traces, copied where they come up again on inputs of the same types.

A composite function records the same operations for inputs of the same types, whatever was
recorded before them: the blocks of a deep model, the update of parameters in a step of another
batch size. Copying what it recorded the first time is many times as fast as asking every op again.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from treadle.base.site import call_site
from treadle.graph.capture import TRIE, Shortcut, State, Trace
from treadle.ir.node import Node


class Segment:
    """The states from one that it starts after up to an end, made from values at `inputs`."""

    __slots__ = ("found", "inputs", "start", "states")

    def __init__(self, start: State, found: Shortcut, inputs: tuple[int, ...]) -> None:
        self.found = found
        self.inputs = inputs
        self.start = start.pos
        states: list[State] = []
        state: State | None = found.end
        while state is not None and state is not start:
            states.append(state)
            state = state.parent
        states.reverse()
        self.states = states

    def copied(self, trace: Trace, nodes: Sequence[Node], positions: Sequence[int]) -> Shortcut:
        """The same stretch after the last value of a trace, as a shortcut there."""
        shift = trace.state.pos - self.start
        place = dict(zip(self.inputs, positions, strict=True))
        node_at: dict[int, Node] = dict(zip(self.inputs, nodes, strict=True))
        state_at: dict[int, State] = {}
        site = call_site()
        state = trace.state
        for old in self.states:
            given = old.node
            assert given is not None
            inputs = tuple([node_at[i] for i in old.inputs])
            node = Node(given.op, inputs, given.attrs, given.shape, given.dtype, given.device, site)
            at = tuple([place[i] for i in old.inputs])
            state = State(state, node, at, old.needs)
            state.maker = old.maker
            node_at[old.pos] = node
            place[old.pos] = old.pos + shift
            state_at[old.pos] = state
            TRIE.grown()
        result = self.found.result
        if isinstance(result, tuple):
            return Shortcut(state, tuple([state_at[r.pos] for r in result]), self.found.scalars)
        return Shortcut(state, state_at[result.pos], self.found.scalars)

    @property
    def whole(self) -> bool:
        """Whether it is made of its inputs alone, and its results are its own."""
        known = {*self.inputs, *[s.pos for s in self.states]}
        results = self.found.result
        results = results if isinstance(results, tuple) else (results,)
        return all(i in known for s in self.states for i in s.inputs) and all(
            r.pos > self.start for r in results
        )


def segment_key(
    what: Hashable, inputs: Sequence[Any], positions: tuple[int, ...], grad: bool
) -> Hashable:
    """What must be equal for a segment to be the same: the function, and the types of its inputs
    and which of them are one."""
    types = tuple([(t._node.shape, t._node.dtype, t._needs) for t in inputs])
    return what, types, tuple([positions.index(p) for p in positions]), grad


def keep(key: Hashable, start: State, found: Shortcut, positions: tuple[int, ...]) -> None:
    """Remembers what was recorded after a state."""
    segment = Segment(start, found, positions)
    if segment.whole:
        TRIE.segments[key] = segment
