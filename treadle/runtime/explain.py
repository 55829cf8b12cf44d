"""Why a plan was not known: what is new in a trace, beside what had been recorded before."""

from __future__ import annotations

from typing import Any

from treadle.base.site import describe
from treadle.graph.capture import Shortcut, State, Trace


def reason(trace: Trace, state: State, key: Any) -> str:
    """Why there is no plan yet for a state and a set of results, in one or a few lines."""
    for each in state.path():
        if each.born > trace.started:
            return _first_new(each)
    if not state.plans:
        return "a trace that had been recorded before ends here for the first time"
    outputs, donated = key
    for known in state.plans:
        if known[0] != outputs and known[0] != "saved":
            return (
                f"other results are held: values {_difference(known[0], outputs)} of the trace; "
                f"hint: a variable that keeps a tensor alive keeps its value computed"
            )
    return f"other inputs may be overwritten: {donated}"


def _difference(old: tuple[int, ...], new: tuple[int, ...]) -> str:
    more, less = sorted(set(new) - set(old)), sorted(set(old) - set(new))
    parts = [f"{more} are new"] if more else []
    parts += [f"{less} are gone"] if less else []
    return " and ".join(parts)


def _first_new(state: State) -> str:
    node, parent = state.node, state.parent
    assert node is not None and parent is not None
    where = f" at {describe(node.site)}" if node.site else ""
    before = [s for s in _targets(parent) if s is not state and s.born < state.born]
    if not before:
        return f"value {state.pos} is new: {node!r}{where}"
    here = [s for s in before if s.node is not None and s.node.site == node.site]
    old = (here or before)[-1].node
    return f"value {state.pos} differs: {node!r}{where}\n  before: {old!r}"


def _targets(state: State) -> list[State]:
    found = []
    for table in (state.next, state.next_constant):
        for target in table.values():
            each = target.end if isinstance(target, Shortcut) else target
            while each.parent is not state and each.parent is not None:
                each = each.parent
            found.append(each)
    return sorted(set(found), key=lambda s: s.born)
