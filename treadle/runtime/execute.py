"""Running a trace: from its last state and the tensors still alive to memory."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from treadle.graph.capture import DERIVED, State, Trace
from treadle.graph.form import form_of, sizes_along
from treadle.graph.history import needed
from treadle.ir.node import Node
from treadle.ops.table import INPUT
from treadle.runtime.buffer import Buffer
from treadle.runtime.engine import Bound, Planned
from treadle.runtime.explain import reason
from treadle.runtime.profile import active


@dataclass(slots=True)
class Counts:
    """How often plans were run and made since the process started."""

    runs: int = 0
    plans: int = 0


counts: Final = Counts()
missed: Final[deque[str]] = deque(maxlen=50)
"""Why the last plans had to be made, the newest last."""


def _reference_counts(leaves: list[Any]) -> list[int]:
    return [sys.getrefcount(leaf) for leaf in leaves]


_UNSHARED: Final = _reference_counts([object()])[0]
"""What the count is for a binding that only the list of leaves refers to."""


def donatable(leaves: list[Any]) -> tuple[int, ...]:
    """The inputs whose memory nobody will read again: a plan may write results there.

    Adopted memory is somebody else's: who gave it may read it at any time.
    """
    counts = _reference_counts(leaves)
    if _UNSHARED not in counts:
        return ()
    return tuple(
        [
            i
            for i, (n, leaf) in enumerate(zip(counts, leaves, strict=True))
            if n == _UNSHARED and type(leaf) is Buffer and leaf.owner is None
        ]
    )


def submit(trace: Trace) -> list[Any]:
    """Runs what is pending in a trace, and gives their memory to the tensors alive.

    Returns:
        The tensors that were computed.

    Raises:
        IndexBoundsError: an index or label was out of range; no tensor has changed its memory.
    """
    live = trace.live()
    trace.done = True
    owed = _owed(trace, live)
    wanted = tuple(sorted({t._pos for t in live}))
    saved: tuple[int, ...] = ()
    outputs = wanted
    if owed:
        saved, outputs = _outputs(trace.state, wanted, owed)
    if outputs:
        try:
            by_position = _run(trace, trace.leaves, outputs, donatable(trace.leaves))
        except BaseException as error:
            trace.error = error
            _take_back(trace)
            raise
        for t in live:
            t._buffer = by_position[t._pos]
        if saved:
            _keep(trace, saved, by_position)
    _forget(trace, live, bool(owed))
    return live


def _take_back(trace: Trace) -> None:
    """Gives the tensors that a failed run would have changed the memory that they had before it."""
    bound = _bindings(trace)
    for reference, before in reversed(trace.written):
        t = reference()
        if t is None or t._trace is not trace:
            continue
        buffer = bound.get(before) if isinstance(before, int) else before
        if isinstance(buffer, Buffer):
            t._buffer = buffer
    for reference, _ in trace.written:
        t = reference()
        if t is not None and t._trace is trace and t._buffer is not None:
            t._trace = None


def submit_part(trace: Trace, t: Any) -> None:
    """Computes one value of a trace that another thread is recording, which stays pending."""
    t._buffer = _run(trace, list(trace.leaves), (t._pos,), ())[t._pos]


def _run(
    trace: Trace, leaves: list[Any], outputs: tuple[int, ...], donated: tuple[int, ...]
) -> dict[int, Buffer]:
    """The buffers of some positions, by the plan that the state remembers for them."""
    state = trace.state
    key = (outputs, donated)
    plan = state.plans.get(key)
    profile = active()
    if profile is not None:
        profile.recorded_until(time.perf_counter_ns())
    if plan is None:
        plan = state.plans[key] = _prepare(trace, leaves, outputs, donated)
        counts.plans += 1
    counts.runs += 1
    buffers = plan.run(leaves)
    trace.plan = (plan, *key)
    if profile is not None:
        profile.resume()
    return dict(zip(outputs, buffers, strict=True))


def _owed(trace: Trace, live: Sequence[Any]) -> tuple[int, ...]:
    """The values alive that a backward pass may still start from."""
    roots = [t._pos for t in live if t._needs == DERIVED]
    if not roots:
        return ()
    return tuple(sorted({pos for pos in roots if not trace.is_freed(pos)}))


def _outputs(
    state: State, wanted: tuple[int, ...], owed: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The positions kept for a backward pass, and all that the plan must store."""
    key = ("saved", owed)
    saved = state.plans.get(key)
    if saved is None:
        saved = state.plans[key] = needed(state.path(), owed)
    states = state.path()
    stored = {pos for pos in saved if (n := states[pos].node) is not None and n.op is not INPUT}
    return saved, tuple(sorted({*wanted, *stored}))


def _prepare(
    trace: Trace, leaves: list[Any], outputs: tuple[int, ...], donated: tuple[int, ...]
) -> Bound:
    """The plan for a state that has none: filled in for its sizes, if its form is known."""
    start = time.perf_counter_ns()
    state = trace.state
    numbers = tuple([i for i, leaf in enumerate(leaves) if type(leaf) is not Buffer])
    key = (outputs, donated, numbers)
    form = form_of(state)
    sizes = sizes_along(state)
    planned: Planned | None = form.plans.get(key)
    plan = None if planned is None else planned.find(sizes)
    if plan is not None:
        missed.append(f"a trace of {state.pos + 1} values is new in its sizes only")
    else:
        missed.append(reason(trace, state, (outputs, donated)))
        nodes: list[Node] = [s.node for s in state.path() if s.node is not None]
        inputs = [node for node in nodes if node.op is INPUT]
        wanted = [nodes[pos] for pos in outputs]
        if planned is None:
            planned = Planned(wanted, inputs, frozenset(donated), numbers, nodes)
            form.plans[key] = planned
        plan = planned.find(sizes) or planned.make(sizes, wanted, inputs)
    profile = active()
    if profile is not None:
        profile.add(f"plan of {state.pos + 1} values", "plan", start, time.perf_counter_ns())
    return plan


def _bindings(trace: Trace) -> dict[int, Any]:
    """What each input of a trace is bound to, by position."""
    states = trace.state.path()
    inputs = [s.pos for s in states if s.node is not None and s.node.op is INPUT]
    return dict(zip(inputs, trace.leaves, strict=True))


def _keep(trace: Trace, saved: tuple[int, ...], by_position: dict[int, Buffer]) -> None:
    bound = _bindings(trace)
    trace.saved = {pos: by_position[pos] if pos in by_position else bound[pos] for pos in saved}


def _forget(trace: Trace, live: Sequence[Any], history: bool) -> None:
    """Drops what a trace that has run no longer needs: it must not keep memory alive."""
    if trace.origins:
        _send_home(trace)
    trace.leaves = []
    trace.handles = []
    trace.written = []
    if not history:
        trace.origins = {}
        trace.leaf_handles = {}
        trace.functions = {}
        trace.hooks = {}
    for t in live:
        if t._needs != DERIVED:
            t._trace = None


def _send_home(trace: Trace) -> None:
    """Tensors that came in from earlier traces belong to these again: their history is there."""
    for reference in trace.handles:
        t = reference()
        if t is not None and t._trace is trace and t._pos in trace.origins:
            t._trace, t._pos = trace.origins[t._pos]
