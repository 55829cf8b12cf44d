"""Backward passes of traces of one structure: recorded over formulas, taken as one transition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.base.algebra import Algebra
from treadle.base.shape import Shape
from treadle.graph.capture import Shortcut, State, Trace
from treadle.graph.form import form_of, sizes_along
from treadle.graph.formulas import Formulas, Sample, Sizes, Unsuitable
from treadle.graph.segment import Segment, Segments, Span, Template, numbers_of
from treadle.tensor.recorder import recorder
from treadle.tensor.retrace import FormulaTrace, recording, template_of

Ends = Sequence[tuple[int, int]]
"""The positions of leaves, and of their gradients."""


class Passes:
    """What is known of the backward passes from one scalar of a form."""

    __slots__ = ("ends", "segments", "shapes")

    def __init__(self) -> None:
        self.segments = Segments()
        # For each segment the positions of the leaves, and those that the pass visits.
        self.ends: dict[Segment, tuple[tuple[int, ...], frozenset[int]]] = {}
        self.shapes: dict[Sizes, tuple[Shape, ...]] = {}


def taken(trace: Trace, root: int) -> Shortcut | None:
    """The backward pass from a value of a trace, if it is known for its structure and sizes."""
    if trace.formulas:
        return None
    passes = form_of(trace.state).backward.get(root)
    if passes is None:
        return None
    known = passes.segments.find(sizes_along(trace.state))
    if known is None:
        return None
    segment, numbers = known
    ends = passes.ends.get(segment)
    if ends is None:
        return None
    leaves, visited = ends
    found = Span(segment, numbers, trace.state, None).shortcut(numbers[1])
    found.result = list(zip(leaves, found.result, strict=True)), visited
    return found


def learn(
    trace: Trace, start: State, root: int, ends: Ends, visited: frozenset[int],
    scalars: tuple[Any, ...], again: Callable[[Any], list[tuple[Any, Any]]],
) -> None:  # fmt: skip
    """Remembers a backward pass that was recorded after a state.

    Args:
        root: the position of the scalar.
        ends: what the pass found.
        visited: the positions that it went through.
        scalars: the numbers that it made inputs.
        again: records the backward pass of a tensor: gives pairs of a leaf and its gradient.
    """
    if trace.formulas or any(hasattr(s, "address") for s in scalars):
        return
    path = trace.state.path()
    before, states = path[: start.pos + 1], path[start.pos + 1 :]
    gradients = [pos for _, pos in ends]
    try:
        segment = Segment(states, range(start.pos + 1), gradients, True)
    except Unsuitable:
        return
    form, sizes = form_of(start), sizes_along(start)
    passes = form.backward.setdefault(root, Passes())

    def retrace(other: Sizes, vary: frozenset[int]) -> Template:
        shapes = passes.shapes.get(other)
        if shapes is None:
            raise Unsuitable("the pass before is still being recorded")
        sample = Sample(other, shapes)
        return _retraced(before, root, sizes, sample, vary, again, ends)

    passes.segments.learn(trace, sizes, segment, numbers_of(states, gradients, scalars), retrace)
    known = passes.segments.find(sizes)
    if known is not None:
        passes.ends[known[0]] = tuple([pos for pos, _ in ends]), visited
        passes.shapes[sizes] = tuple([s.node.shape for s in before if s.node is not None])


def _retraced(
    states: Sequence[State], root: int, sizes: Sizes, before: Sample, vary: frozenset[int],
    again: Callable[[Any], list[tuple[Any, Any]]], ends: Ends,
) -> Template:  # fmt: skip
    algebra = Algebra(strict=True)
    nodes = [state.node for state in states if state.node is not None]
    formulas = Formulas(algebra, nodes, sizes, before, vary)
    trace = FormulaTrace()
    tensors = [
        trace.given(formulas.new[node], state.inputs, state.needs)
        for node, state in zip(nodes, states, strict=True)
    ]
    with recording(recorder(), trace):
        pairs = again(tensors[root])
    if [(leaf._pos, g._pos) for leaf, g in pairs] != list(ends):
        raise Unsuitable("over formulas it finds other gradients")
    made = trace.state.path()[len(states) :]
    gradients = [pos for _, pos in ends]
    return template_of(
        algebra, trace, made, range(len(states)), gradients, True, sizes, formulas.symbols
    )
