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
from treadle.graph.segment import keep, segment_key
from treadle.ops.table import Op
from treadle.ops.view import ALIAS
from treadle.runtime.execute import submit, submit_part

PENDING_AT_MOST: Final = 10_000
"""Values that may be pending before they are run unasked."""

LOCK: Final = threading.RLock()
"""Held while anything runs. Recording needs no lock: a trace is written by its own thread only."""


class Recorder:
    """The trace of a thread, and how it records: with history or not, up to how many values.

    `capture` is set while `treadle.compile` records a function.
    """

    __slots__ = ("capture", "check", "grad", "limit", "trace", "walking")

    def __init__(self) -> None:
        self.trace = Trace()
        self.grad = True
        self.limit = PENDING_AT_MOST
        self.check: Callable[[list[Any]], None] | None = None
        self.capture: Capture | None = None
        self.walking = False
        """Whether a backward pass is being recorded: its trace must stay the current one."""


class Capture:
    """What a replay must do besides following the trace: where the inputs come from, which
    functions keep Python state in step, and whether the results are wanted at once."""

    __slots__ = ("callbacks", "submits")

    def __init__(self) -> None:
        self.callbacks: list[Callable[[], None]] = []
        self.submits = False


class walking:
    """A block that records into one trace: a read in it computes what it reads, and no more."""

    def __enter__(self) -> None:
        self._before = _LOCAL.recorder.walking
        _LOCAL.recorder.walking = True

    def __exit__(self, *_: object) -> None:
        _LOCAL.recorder.walking = self._before


class _Local(threading.local):
    def __init__(self) -> None:
        self.recorder = Recorder()


_LOCAL: Final = _Local()


def recorder() -> Recorder:
    """The recorder of this thread."""
    return _LOCAL.recorder


class Lazy:
    """What recording knows of a tensor; `Tensor` derives from it.

    `_trace`, `_pos` and `_node` say which value the tensor holds, `_buffer` its memory once it
    has run, `_needs` its part in autograd. A view keeps its `_base`, the `_steps` that lead to it
    from there and the version of the base that it has `_seen`.
    """

    __slots__ = (
        "__weakref__",
        "_base",
        "_buffer",
        "_extra",
        "_grad",
        "_needs",
        "_node",
        "_pos",
        "_seen",
        "_steps",
        "_trace",
        "_version",
    )

    _trace: Any
    _pos: int
    _node: Any
    _needs: int
    _buffer: Any
    _base: Any
    _steps: tuple[tuple[Op, tuple[Any, ...]], ...]
    _seen: int
    _version: int
    _grad: Any
    _extra: dict[str, Any] | None


_new: Callable[[Any], Any] = object.__new__
_Tensor: type = Lazy


def tensor_class(cls: type) -> type:
    """Names the class that recording makes its results of."""
    global _Tensor
    _Tensor = cls
    return cls


def hold(trace: Trace, state: State) -> Any:
    """A new tensor that holds a value of the trace."""
    t = _new(_Tensor)
    t._trace = trace
    t._pos = state.pos
    t._node = state.node
    t._needs = state.needs
    t._buffer = t._base = t._grad = t._extra = None
    t._version = 0
    trace.handles.append(ref(t))
    return t


def concrete(buffer: Any, node: Any, needs: int = CONSTANT) -> Any:
    """A new tensor of a value in memory."""
    t = _new(_Tensor)
    t._trace = None
    t._pos = -1
    t._node = node
    t._needs = needs
    t._buffer = buffer
    t._base = t._grad = t._extra = None
    t._version = 0
    return t


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
    recorder = _LOCAL.recorder
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
    recorder = _LOCAL.recorder
    trace = recorder.trace
    a = x._pos if x._trace is trace and x._base is None else position(trace, x)
    start = trace.state
    key = (op, a, attrs)
    table = start.next if recorder.grad else start.next_constant
    state = table.get(key)
    if state is None:
        state = table[key] = trace.extend(op, attrs, (a,), ((x._node, x._needs),), recorder.grad)
    trace.state = state
    t = _new(_Tensor)
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
    recorder = _LOCAL.recorder
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
    t = _new(_Tensor)
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
    state = trace.extend(op, (), tuple(t._pos for t in inputs), sources, _LOCAL.recorder.grad)
    table[key] = state
    return state


def record_number(op: Op, x: Any, value: float, left: bool) -> Any:
    """`record2(op, x, scalar(value))` in the dtype of x, as one transition; `left` exchanges
    the operands."""
    recorder = _LOCAL.recorder
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
    trace = _LOCAL.recorder.trace
    if trace.sources is not None:
        trace.sources[len(trace.leaves)] = source
    return hold(trace, trace.scalar(value, dtype))


def on_replay(callback: Callable[[], None]) -> None:
    """While a function is compiled: calls back before each replay, to keep Python state in step.

    Whatever changes numbers that become inputs (a count of steps) registers itself with this.
    """
    capture = _LOCAL.recorder.capture
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
    recorder = _LOCAL.recorder
    trace = recorder.trace
    positions = tuple(
        [t._pos if t._trace is trace and t._base is None else position(trace, t) for t in inputs]
    )
    key = (body, attrs, positions)
    start = trace.state
    table = start.next if recorder.grad else start.next_constant
    found = table.get(key)
    if found is None:
        found = _copied(recorder, table, key, (body, attrs), inputs, positions)
    if found is None:
        return _first_block(recorder, table, key, body, inputs, attrs)
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


def _copied(
    recorder: Recorder,
    table: dict[Any, Any],
    key: Any,
    what: Any,
    inputs: Sequence[Any],
    positions: tuple[int, ...],
) -> Shortcut | None:
    """The shortcut for a composite that was recorded elsewhere, on inputs of the same types."""
    trace = recorder.trace
    if trace.sources is not None:
        # While a function is compiled it matters where each number comes from.
        return None
    segment = TRIE.segments.get(segment_key(what, inputs, positions, recorder.grad))
    if segment is None:
        return None
    found: Shortcut = segment.copied(trace, [t._node for t in inputs], positions)
    table[key] = found
    return found


def _first_block(
    recorder: Recorder,
    table: dict[Any, Any],
    key: Any,
    body: Callable[..., Any],
    inputs: Sequence[Any],
    attrs: tuple[Any, ...],
) -> Any:
    trace = recorder.trace
    start = trace.state
    known = len(trace.leaves)
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
        if isinstance(tensors, tuple):
            result: Any = tuple(states[position(trace, t)] for t in tensors)
        else:
            result = states[position(trace, tensors)]
        found = table[key] = Shortcut(trace.state, result, scalars)
        _, _, positions = key
        keep(segment_key((body, attrs), inputs, positions, recorder.grad), start, found, positions)
        # A loss or layer that a body makes of another one is named after that.
        maker = attrs[0] if attrs and callable(attrs[0]) else body
        for state in result if isinstance(result, tuple) else (result,):
            if state.pos > start.pos:
                state.maker = maker
    return tensors


# --- running -----------------------------------------------------------------------------------


def flush() -> None:
    """Runs what is pending in this thread."""
    recorder = _LOCAL.recorder
    if recorder.walking:
        return
    with LOCK:
        trace = recorder.trace
        if trace.handles:
            recorder.trace = Trace()
            live = submit(trace)
            if recorder.check is not None:
                recorder.check(live)


def step_done() -> None:
    """The end of a training step: runs what is pending, or lets a compiled function do so."""
    capture = _LOCAL.recorder.capture
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
    if trace is _LOCAL.recorder.trace and not _LOCAL.recorder.walking:
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
    trace = _LOCAL.recorder.trace
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
    recorder = _LOCAL.recorder
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
        found = _copied(recorder, table, key, what, tensors, positions)
        if found is None:
            _first_update(recorder, table, key, what, tensors, numbers, targets, sources)
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
    recorder: Recorder, table: dict[Any, Any], key: Any, what: Any, tensors: Sequence[Any],
    numbers: tuple[float, ...], targets: Sequence[Any],
    sources: Sequence[Callable[[], float]] | None,
) -> None:  # fmt: skip
    trace = recorder.trace
    start = trace.state
    body, attrs, positions, _, dtype, _ = key
    # The types before the targets take new values.
    types = segment_key(what, tensors, positions, recorder.grad)
    scalars = [
        scalar(value, dtype, None if sources is None else sources[i])
        for i, value in enumerate(numbers)
    ]
    known = len(trace.leaves)
    for t, value in zip(targets, body(*tensors, *scalars, *attrs), strict=True):
        rebind(t, value)
    if recorder.trace is trace:
        states = trace.state.path()
        result = tuple([states[t._pos] for t in targets])
        found = table[key] = Shortcut(trace.state, result, tuple(trace.leaves[known:]))
        keep(types, start, found, positions)


DETACHED: Final[tuple[Op, tuple[Any, ...]]] = (ALIAS, ())
"""The step from a tensor to what `detach()` gives: the same elements without history."""


def refresh(t: Any) -> None:
    """Reads a view again from its base, which was written since."""
    base = t._base
    value = base
    for step in t._steps:
        op, attrs = step
        value = (
            record(ALIAS, (value,), (), CONSTANT)
            if step is DETACHED
            else record(op, (value,), attrs)
        )
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
    if base is None:
        out._base = source
        out._steps = ((op, attrs),)
        out._seen = source._version
    else:
        out._base = base
        out._steps = (*source._steps, (op, attrs))
        out._seen = base._version
    return out
