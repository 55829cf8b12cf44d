"""Recording: from operations on tensors to transitions of the trace of this thread.

This is the hot path of a user's loop: a transition that was taken before costs about a
microsecond.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import ref

from treadle.base.dtype import DType
from treadle.base.errors import TreadleError
from treadle.base.site import call_site, describe
from treadle.graph.capture import CONSTANT, LEAF, TRIE, Shortcut, State, Trace
from treadle.graph.formulas import Unsuitable
from treadle.graph.segment import Segment, Segments, Span, numbers_of, segment_key
from treadle.ops.table import Op
from treadle.ops.view import ALIAS
from treadle.runtime.execute import submit, submit_part
from treadle.tensor.recorder import (
    LOCAL,
    Capture,
    Lazy,
    Recorder,
    concrete,
    hold,
    made,
    new,
    recorder,
    tensor_class,
    walking,
)
from treadle.tensor.retrace import retraced

__all__ = [
    "Capture", "Lazy", "Recorder", "concrete", "hold", "recorder", "tensor_class", "walking",
]  # fmt: skip

LOCK: Final = threading.RLock()
"""Held while anything runs. Recording needs no lock: a trace is written by its own thread only."""


def position(trace: Trace, t: Any) -> int:
    """The position of a tensor in the trace; it becomes an input where it is not one yet."""
    if trace.takes_all:
        return trace.place(t)
    if t._base is not None and t._seen != t._base._version:
        refresh(t)
    if t._trace is trace:
        pos: int = t._pos
        return pos
    if t._buffer is None:
        run(t)
    return trace.enter(t)


def record(
    op: Op, inputs: Sequence[Any], attrs: tuple[Any, ...] = (), needs: int | None = None
) -> Any:
    """Records one operation and gives the tensor of its result; nothing is computed."""
    recorder = LOCAL.recorder
    trace = recorder.trace
    positions = tuple(
        [t._pos if t._trace is trace and t._base is None else position(trace, t) for t in inputs]
    )
    state = trace.append(
        op, attrs, positions, lambda: [(t._node, t._needs) for t in inputs], recorder.grad, needs
    )
    out = hold(trace, state)
    if state.pos > recorder.limit:
        flush()
    return out


# The two most frequent forms of `record`, written out: they are half of the cost of a step. The
# thread may only be interrupted at calls and backward jumps, so that `_trace` and `_pos` of a
# tensor that another thread enters into its own trace are read together.


def record1(op: Op, x: Any, attrs: tuple[Any, ...] = ()) -> Any:
    """`record(op, (x,), attrs)`."""
    recorder = LOCAL.recorder
    trace = recorder.trace
    a = x._pos if x._trace is trace and x._base is None else position(trace, x)
    start = trace.state
    key = (op, a, attrs)
    table = start.next if recorder.grad else start.next_constant
    state = table.get(key)
    if state is None:
        state = table[key] = trace.extend(op, attrs, (a,), ((x._node, x._needs),), recorder.grad)
    trace.state = state
    t = new(made[0])
    t._trace = trace
    t._pos = pos = state.pos
    t._node = state.node
    t._needs = state.needs
    t._buffer = t._base = t._grad = t._extra = None
    t._version = 0
    trace.handles.append(ref(t))
    if pos > recorder.limit:
        flush()
    return t


def record2(op: Op, x: Any, y: Any) -> Any:
    """`record(op, (x, y))`."""
    recorder = LOCAL.recorder
    trace = recorder.trace
    a = x._pos if x._trace is trace and x._base is None else position(trace, x)
    b = y._pos if y._trace is trace and y._base is None else position(trace, y)
    start = trace.state
    key = (op, a, b)
    table = start.next if recorder.grad else start.next_constant
    state = table.get(key)
    if state is None:
        sources = ((x._node, x._needs), (y._node, y._needs))
        state = table[key] = trace.extend(op, (), (a, b), sources, recorder.grad)
    trace.state = state
    t = new(made[0])
    t._trace = trace
    t._pos = pos = state.pos
    t._node = state.node
    t._needs = state.needs
    t._buffer = t._base = t._grad = t._extra = None
    t._version = 0
    trace.handles.append(ref(t))
    if pos > recorder.limit:
        flush()
    return t


def _extended(
    trace: Trace, table: dict[Any, Any], key: Any, op: Op, inputs: Sequence[Any]
) -> State:
    """The state for an operation not yet known under a key."""
    sources = [(t._node, t._needs) for t in inputs]
    state = trace.extend(op, (), tuple(t._pos for t in inputs), sources, LOCAL.recorder.grad)
    table[key] = state
    return state


def record_number(op: Op, x: Any, value: float, left: bool) -> Any:
    """`record2(op, x, scalar(value))` in the dtype of x, as one transition; `left` exchanges
    the operands."""
    recorder = LOCAL.recorder
    trace = recorder.trace
    a = x._pos if x._trace is trace and x._base is None else position(trace, x)
    start = trace.state
    key = (op, a, "left" if left else "right")
    table = start.next if recorder.grad else start.next_constant
    state = table.get(key)
    if state is None:
        number = scalar(value, x._node.dtype)
        state = _extended(trace, table, key, op, (number, x) if left else (x, number))
    else:
        trace.leaves.append(value)
    trace.state = state
    out = hold(trace, state)
    if state.pos > recorder.limit:
        flush()
    return out


def scalar(value: Any, dtype: DType, source: Callable[[], Any] | None = None) -> Any:
    """A Python number as a 0-d tensor that is an input of the plan, not a constant.

    `source` gives the number anew when a compiled function is replayed; without it the number
    stays what it was when the function was recorded.
    """
    trace = LOCAL.recorder.trace
    if trace.sources is not None:
        trace.sources[len(trace.leaves)] = source
    return hold(trace, trace.scalar(value, dtype))


def on_replay(callback: Callable[[], None]) -> None:
    """While a function is compiled: calls back before each replay, to keep Python state in step.

    Whatever changes numbers that become inputs (a count of steps) registers itself with this.
    """
    capture = LOCAL.recorder.capture
    if capture is not None:
        capture.callbacks.append(callback)


_modes = [0]


def mode_changed() -> None:
    """Tells compiled functions that Python state which they may depend on has changed: the mode
    of a module, its hooks."""
    _modes[0] += 1


def mode() -> int:
    """A number that changes with each `mode_changed`."""
    return _modes[0]


def block(body: Callable[..., Any], inputs: Sequence[Any], attrs: tuple[Any, ...] = ()) -> Any:
    """`body(*inputs, *attrs)` recorded as one transition once it has been recorded before.

    The body must depend on nothing but its arguments, and make its results (a tensor, or a tuple
    of tensors) by recorded operations only. It may use Python numbers, which are remembered.
    """
    recorder = LOCAL.recorder
    trace = recorder.trace
    positions = tuple(
        [t._pos if t._trace is trace and t._base is None else position(trace, t) for t in inputs]
    )
    key = (body, attrs, positions)
    start = trace.state
    table = start.next if recorder.grad else start.next_constant
    found = table.get(key)
    if found is None:
        what = (body, attrs)
        family, sizes = _family(what, inputs, positions, recorder.grad)
        found = _taken(trace, table, key, family, sizes, inputs, positions)
        if found is None:
            return _first_block(recorder, table, key, family, sizes, inputs)
    trace.state = found.end
    if found.scalars:
        trace.leaves.extend(found.scalars)
    result = found.result
    if type(result) is tuple:
        out: Any = tuple([hold(trace, state) for state in result])
    else:
        out = hold(trace, result)
    if found.end.pos > recorder.limit:
        flush()
    return out


def _family(
    what: Any, inputs: Sequence[Any], positions: tuple[int, ...], grad: bool
) -> tuple[Segments, tuple[int, ...]]:
    """What is known of a composite on inputs of these types, and their sizes."""
    key, sizes = segment_key(what, inputs, positions, grad)
    found = TRIE.segments.get(key)
    if found is None:
        found = TRIE.segments[key] = Segments()
    return found, sizes


def _taken(
    trace: Trace,
    table: dict[Any, Any],
    key: Any,
    family: Segments,
    sizes: tuple[int, ...],
    inputs: Sequence[Any],
    positions: tuple[int, ...],
) -> Shortcut | None:
    """The shortcut for a composite that was recorded elsewhere, on inputs of the same types."""
    if trace.formulas:
        return None
    known = family.find(sizes)
    if known is None:
        return None
    segment, numbers = known
    span = Span(segment, numbers, trace.state, positions, [t._node for t in inputs])
    found = table[key] = span.shortcut(numbers[1])
    return found


def _first_block(
    recorder: Recorder,
    table: dict[Any, Any],
    key: Any,
    family: Segments,
    sizes: tuple[int, ...],
    inputs: Sequence[Any],
) -> Any:
    body, attrs, positions = key
    trace = recorder.trace
    start = trace.state
    known = len(trace.leaves)
    types = [(t._node, t._needs) for t in inputs]
    try:
        tensors = body(*inputs, *attrs)
    except TreadleError as error:
        if not hasattr(error, "__notes__"):
            error.add_note(f"recorded at {describe(call_site())}")
        raise
    results = tensors if isinstance(tensors, tuple) else (tensors,)
    if recorder.trace is not trace or any(r is t for r in results for t in inputs):
        # A read in the body, or too much pending, ran the first part of it; or it made nothing
        # of an input, which then is the result: another handle would take its gradient.
        return tensors
    scalars = tuple(trace.leaves[known:])
    if not any(hasattr(s, "address") for s in scalars):
        states = trace.state.path()
        places = [position(trace, t) for t in results]
        ends = tuple([states[p] for p in places])
        many = isinstance(tensors, tuple)
        # A loss or layer that a body makes of another one is named after that.
        maker = attrs[0] if attrs and callable(attrs[0]) else body
        for state in ends:
            if state.pos > start.pos:
                state.maker = maker
        table[key] = Shortcut(trace.state, ends if many else ends[0], scalars)
        if not trace.formulas and trace.sources is None:
            _keep(
                trace, family, sizes, states[start.pos + 1 :], scalars, positions, places, many,
                lambda before, vary: retraced(
                    recorder, lambda *given: body(*given, *attrs), types, positions, sizes, before,
                    vary, maker,
                ),
            )  # fmt: skip
    return tensors


def _keep(
    trace: Trace, family: Segments, sizes: tuple[int, ...], states: list[State],
    scalars: tuple[Any, ...], positions: tuple[int, ...], places: list[int], many: bool,
    retrace: Any,
) -> None:  # fmt: skip
    """Remembers what was recorded, for the same composite elsewhere."""
    try:
        segment = Segment(states, positions, places, many)
    except Unsuitable:
        return
    family.learn(trace, sizes, segment, numbers_of(states, places, scalars), retrace)


# --- running -----------------------------------------------------------------------------------


def flush() -> None:
    """Runs what is pending in this thread."""
    recorder = LOCAL.recorder
    if recorder.walking:
        return
    with LOCK:
        trace = recorder.trace
        if trace.formulas:
            raise Unsuitable("a value is read")
        if trace.handles:
            recorder.trace = Trace()
            live = submit(trace)
            if recorder.check is not None:
                recorder.check(live)


def step_done() -> None:
    """The end of a training step: runs what is pending, or lets a compiled function do so."""
    capture = LOCAL.recorder.capture
    if capture is None:
        flush()
    else:
        capture.submits = True


def run(t: Any) -> None:
    """Makes sure that a tensor has memory: runs the trace that it is pending in."""
    if t._base is not None and t._seen != t._base._version:
        refresh(t)
    if t._buffer is not None:
        return
    trace = t._trace
    if trace is LOCAL.recorder.trace and not LOCAL.recorder.walking:
        flush()
        return
    with LOCK:
        if t._buffer is None and trace.error is None and not trace.done:
            # Another thread, or a backward pass, is recording there: compute this value alone.
            submit_part(trace, t)
    if t._buffer is None:
        raise RuntimeError(
            f"this tensor was never computed, because the run that it belonged to failed: "
            f"{trace.error}"
        ) from trace.error


# --- writing -----------------------------------------------------------------------------------


def rebind(t: Any, value: Any) -> None:
    """Makes a tensor hold another value of the same type: what an in-place operation does."""
    trace = LOCAL.recorder.trace
    pos = position(trace, value)
    node = value._node
    trace.written.append((ref(t), t._pos if t._trace is trace else t._buffer))
    if t._needs == LEAF:
        # It stays a leaf: gradients of what is computed from it later are collected at it.
        start = trace.state
        key = (ALIAS, pos, LEAF)
        state = start.next.get(key)
        if state is None:
            sources = ((value._node, value._needs),)
            state = start.next[key] = trace.extend(ALIAS, (), (pos,), sources, False, LEAF)
        trace.state = state
        trace.leaf_handles[state.pos] = t
        pos, node = state.pos, state.node
    else:
        t._needs = value._needs
    t._trace = trace
    t._pos = pos
    t._node = node
    t._buffer = None
    t._version += 1
    trace.handles.append(ref(t))


def update(
    body: Callable[..., Any],
    tensors: Sequence[Any],
    numbers: tuple[float, ...],
    dtype: DType,
    attrs: tuple[Any, ...],
    targets: Sequence[Any],
    sources: Sequence[Callable[[], float]] | None = None,
) -> None:
    """`rebind` of each target to its result of `block(body, (*tensors, *numbers), attrs)`, all as
    one transition.

    The targets are among the tensors, and leaves or constants. The numbers reach the body as
    scalars of `dtype` that are inputs of the plan: others compile nothing. `sources` give them
    anew where a compiled function is replayed.
    """
    recorder = LOCAL.recorder
    trace = recorder.trace
    positions = tuple(
        [t._pos if t._trace is trace and t._base is None else position(trace, t) for t in tensors]
    )
    key = (body, attrs, positions, len(numbers), dtype, "update")
    start = trace.state
    table = start.next if recorder.grad else start.next_constant
    found = table.get(key)
    if found is None:
        what = (body, attrs, len(numbers), dtype, "update")
        family, sizes = _family(what, tensors, positions, recorder.grad)
        found = _taken(trace, table, key, family, sizes, tensors, positions)
        if found is None:
            _first_update(recorder, table, key, family, sizes, tensors, numbers, targets, sources)
            return
    trace.state = found.end
    if trace.sources is not None and sources is not None:
        trace.sources.update(enumerate(sources, len(trace.leaves)))
    trace.leaves.extend(numbers)
    trace.leaves.extend(found.scalars)
    handles, written = trace.handles, trace.written
    for t, state in zip(targets, found.result, strict=True):
        if t._needs == LEAF:
            trace.leaf_handles[state.pos] = t
        else:
            t._needs = state.needs
        handle = ref(t)
        handles.append(handle)
        written.append((handle, t._pos))
        t._trace = trace
        t._pos = state.pos
        t._node = state.node
        t._buffer = None
        t._version += 1


def _first_update(
    recorder: Recorder, table: dict[Any, Any], key: Any, family: Segments, sizes: tuple[int, ...],
    tensors: Sequence[Any], numbers: tuple[float, ...], targets: Sequence[Any],
    sources: Sequence[Callable[[], float]] | None,
) -> None:  # fmt: skip
    trace = recorder.trace
    start = trace.state
    body, attrs, positions, _, dtype, _ = key
    scalars = [
        scalar(value, dtype, None if sources is None else sources[i])
        for i, value in enumerate(numbers)
    ]
    known = len(trace.leaves)
    for t, value in zip(targets, body(*tensors, *scalars, *attrs), strict=True):
        rebind(t, value)
    if recorder.trace is trace:
        states = trace.state.path()
        places = [t._pos for t in targets]
        more = tuple(trace.leaves[known:])
        table[key] = Shortcut(trace.state, tuple([states[p] for p in places]), more)
        if trace.sources is None and not trace.formulas:
            new = states[start.pos + 1 :]
            _keep(trace, family, sizes, new, more, positions, places, True, _sizes_stay)


def _sizes_stay(before: Any, vary: Any) -> Any:
    raise Unsuitable("parameters keep their sizes")


DETACHED: Final[tuple[Op, tuple[Any, ...]]] = (ALIAS, ())
"""The step from a tensor to what `detach()` gives: the same elements without history."""


def refresh(t: Any) -> None:
    """Reads a view again from its base, which was written since."""
    base = t._base
    value = base
    recorder = LOCAL.recorder
    before = recorder.grad
    # Its history follows from how the view was made, not from where it is read again.
    recorder.grad = True
    try:
        for step in t._steps:
            op, attrs = step
            value = (
                record(ALIAS, (value,), (), CONSTANT)
                if step is DETACHED
                else record(op, (value,), attrs)
            )
    finally:
        recorder.grad = before
    t._trace, t._pos, t._node = value._trace, value._pos, value._node
    t._needs, t._buffer = value._needs, value._buffer
    t._seen = base._version
    if t._trace is not None:
        t._trace.handles.append(ref(t))


def view(op: Op, source: Any, attrs: tuple[Any, ...]) -> Any:
    """Records a view operation: the result shares the memory of the source, as far as anyone
    can tell."""
    out = record1(op, source, attrs)
    base = source._base
    made = ((op, attrs),) if LOCAL.recorder.grad else ((op, attrs), DETACHED)
    if base is None:
        out._base = source
        out._steps = made
        out._seen = source._version
    else:
        out._base = base
        out._steps = source._steps + made
        out._seen = base._version
    return out
