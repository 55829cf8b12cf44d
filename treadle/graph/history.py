"""What a backward pass will need of a graph that runs before it.

A read before `backward()` must not run the forward pass twice: the values that the gradient rules
use are kept when a graph that still owes gradients is run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from treadle.graph.capture import LEAF, State
from treadle.ir.node import Node
from treadle.ops.recurrence import RECURRENCE, key_of
from treadle.ops.recurrence_gradient import gradients
from treadle.ops.table import input_node


def reachable(states: Sequence[State], roots: Sequence[int]) -> list[int]:
    """The positions that gradients of the roots flow through, last first."""
    marked = set(roots)
    for pos in range(max(roots, default=-1), -1, -1):
        state = states[pos]
        if pos in marked and state.needs != LEAF:
            marked.update(i for i in state.inputs if states[i].needs)
    return sorted(marked, reverse=True)


def needed(states: Sequence[State], roots: Sequence[int]) -> tuple[int, ...]:
    """The positions whose values the gradients of the roots depend on."""
    position = {state.node: pos for pos, state in enumerate(states)}
    found: set[int] = set()
    loops = loops_in(states)
    for pos in reachable(states, roots):
        state = states[pos]
        node = state.node
        if state.needs == LEAF or node is None:
            continue
        if node.op is RECURRENCE:
            for gradient in _loop_gradients(states, state, loops):
                found.update(_forward_values(gradient, position))
            continue
        g = input_node(node.shape, node.dtype)
        for i, source in enumerate(state.inputs):
            if states[source].needs:
                gradient = node.op.vjp(node, g, i)
                if gradient is not None:
                    found.update(_forward_values(gradient, position))
    return tuple(sorted(found))


def loops_in(states: Sequence[State]) -> dict[Any, list[int]]:
    """The positions of the histories that one loop gives, by what they have in common."""
    found: dict[Any, list[int]] = {}
    for pos, state in enumerate(states):
        if state.node is not None and state.node.op is RECURRENCE:
            found.setdefault(key_of(state.node), []).append(pos)
    return found


def _loop_gradients(
    states: Sequence[State], state: State, loops: dict[Any, list[int]]
) -> Iterable[Node]:
    node = state.node
    assert node is not None
    known = [n for pos in loops[key_of(node)] if (n := states[pos].node) is not None]
    wanted = {i for i, source in enumerate(state.inputs) if states[source].needs}
    return gradients([node], [input_node(node.shape, node.dtype)], wanted, known).values()


def _forward_values(gradient: Node, position: dict[Node | None, int]) -> set[int]:
    found: set[int] = set()
    seen: set[Node] = set()
    stack = [gradient]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        pos = position.get(node)
        if pos is None:
            stack.extend(node.inputs)
        else:
            found.add(pos)
    return found
