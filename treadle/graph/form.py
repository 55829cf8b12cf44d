"""Forms: states of the trie apart from their sizes, and the sizes of a state.

Traces of one structure, whatever their shapes, end in one form. What depends on structure alone is
remembered there: the backward pass over formulas, and which template plans come from.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

from treadle.graph.capture import State
from treadle.graph.segment import Span, step_key
from treadle.graph.structure import sizes_of


class Form:
    """What states of one structure have in common."""

    __slots__ = ("backward", "next", "plans")

    def __init__(self) -> None:
        self.next: dict[Any, Form] = {}
        # The backward passes from values of the trace, and the plans, by what they compute.
        self.backward: dict[int, Any] = {}
        self.plans: dict[Any, Any] = {}

    def after(self, key: Any) -> Form:
        """The form one operation further."""
        found = self.next.get(key)
        if found is None:
            found = self.next[key] = Form()
        return found

    def behind(self, span: Span) -> Form:
        """The form at the end of a span: that of its operations one by one."""
        key = (span.segment, span.places)
        found = self.next.get(key)
        if found is None:
            found = self
            places = span.positions()
            for step in span.segment.steps:
                at = tuple([places[i] for i in step.inputs])
                found = found.after(step_key(step.node, at, step.needs))
            self.next[key] = found
        return found


def form_of(state: State) -> Form:
    """The form of a state; from then on states have their `sizes` too."""
    todo: list[State] = []
    each: State | None = state
    while each is not None and each.form is None:
        todo.append(each)
        each = each.parent if each.span is None else each.span.start
    form: Form = Form() if each is None else each.form
    if each is None:
        todo.pop().form = form
    for one in reversed(todo):
        if one.span is not None:
            form = form.behind(one.span)
            one.sizes = one.span.sizes
        elif one.node is not None:
            form = form.after(step_key(one.node, one.inputs, one.needs))
            one.sizes = sizes_of(one.node)
        one.form = form
    return form


def sizes_along(state: State) -> tuple[Any, ...]:
    """The sizes of all values of a trace, in order, of a state whose form was asked for."""
    parts = []
    each: State | None = state
    while each is not None:
        parts.append(each.sizes)
        each = each.parent if each.span is None else each.span.start
    parts.reverse()
    return tuple(chain.from_iterable(parts))
