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
from treadle.graph.capture import CONSTANT, DERIVED, LEAF, Shortcut, State, Trace
from treadle.ops.table import Op
from treadle.ops.view import ALIAS
from treadle.runtime.execute import submit

PENDING_AT_MOST: Final = 10_000
"""Values that may be pending before they are run unasked."""

LOCK: Final = threading.RLock()
"""Held while a trace changes: a tensor may be read by another thread than the one recording."""


class Recorder(threading.local):
    """The trace of a thread, and how it records."""

    def __init__(self) -> None:
        self.trace = Trace()
        self.grad = True
        self.eager = False


RECORDER: Final = Recorder()


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


_make: Callable[[Any], Any] = object.__new__
_tensor_class: list[type] = [Lazy]


def tensor_class(cls: type) -> type:
    """Names the class that recording makes its results of."""
    _tensor_class[0] = cls
    return cls


def hold(trace: Trace, state: State) -> Any:
    """A new tensor that holds a value of the trace."""
    t = _make(_tensor_class[0])
    t._trace = trace
    t._pos = pos = state.pos
    t._node = state.node
    t._needs = state.needs
    t._buffer = t._base = t._grad = t._extra = None
    t._version = 0
    trace.handles.append((ref(t), pos))
    return t


def concrete(buffer: Any, node: Any, needs: int = CONSTANT) -> Any:
    """A new tensor of a value in memory."""
    t = _make(_tensor_class[0])
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
    with LOCK:
        recorder = RECORDER
        trace = recorder.trace
        positions = tuple(
            [
                t._pos if t._trace is trace and t._base is None else position(trace, t)
                for t in inputs
            ]
        )
        state = trace.append(
            op,
            attrs,
            positions,
            lambda: [(t._node, t._needs) for t in inputs],
            recorder.grad,
            needs,
        )
        out = hold(trace, state)
    if state.pos > PENDING_AT_MOST or recorder.eager:
        flush()
    return out


def scalar(value: Any, dtype: DType) -> Any:
    """A Python number as a 0-d tensor that is an input of the plan, not a constant."""
    with LOCK:
        trace = RECORDER.trace
        return hold(trace, trace.scalar(value, dtype))


def block(body: Callable[..., Any], inputs: Sequence[Any], attrs: tuple[Any, ...] = ()) -> Any:
    """`body(*inputs, *attrs)` recorded as one transition once it has been recorded before.

    The body must depend on nothing but its arguments, and make its results (a tensor, or a tuple
    of tensors) by recorded operations only. It may use Python numbers, which are remembered.
    """
    with LOCK:
        recorder = RECORDER
        trace = recorder.trace
        positions = tuple([position(trace, t) for t in inputs])
        key = (body, attrs, positions)
        start = trace.state
        table = start.next if recorder.grad else start.next_constant
        found = table.get(key)
        if found is not None:
            trace.state = found.end
            trace.leaves.extend(found.scalars)
            result = found.result
            if type(result) is tuple:
                return tuple([hold(trace, state) for state in result])
            return hold(trace, result)
        known = len(trace.leaves)
        tensors = body(*inputs, *attrs)
        if RECORDER.trace is trace:
            scalars = tuple(trace.leaves[known:])
            if not any(hasattr(s, "address") for s in scalars):
                many = isinstance(tensors, tuple)
                states = trace.state.path()
                result = tuple(states[t._pos] for t in tensors) if many else states[tensors._pos]
                table[key] = Shortcut(trace.state, result, scalars)
        return tensors


# --- running -----------------------------------------------------------------------------------


def flush() -> None:
    """Runs what is pending in this thread."""
    with LOCK:
        trace = RECORDER.trace
        if trace.handles:
            RECORDER.trace = Trace()
            submit(trace)


def run(t: Any) -> None:
    """Makes sure that a tensor has memory: runs the trace that it is pending in."""
    with LOCK:
        if t._base is not None and t._seen != t._base._version:
            refresh(t)
        if t._buffer is not None:
            return
        trace = t._trace
        if trace is RECORDER.trace:
            flush()
        elif trace.error is not None:
            raise RuntimeError(
                f"this tensor was never computed, because the run that it belonged to failed: "
                f"{trace.error}"
            ) from trace.error
        else:
            # Another thread recorded it: its trace is run here, and it starts a new one.
            submit(trace)


# --- writing -----------------------------------------------------------------------------------


def rebind(t: Any, value: Any) -> None:
    """Makes a tensor hold another value of the same type: what an in-place operation does."""
    with LOCK:
        trace = RECORDER.trace
        pos = position(trace, value)
        node = value._node
        if t._needs == LEAF:
            # It stays a leaf: gradients of what is computed from it later are collected at it.
            source = value
            state = trace.append(
                ALIAS, (), (pos,), lambda: [(source._node, source._needs)], False, LEAF
            )
            trace.leaf_handles[state.pos] = t
            pos, node = state.pos, state.node
        else:
            t._needs = value._needs
        t._trace = trace
        t._pos = pos
        t._node = node
        t._buffer = None
        t._version += 1
        trace.handles.append((ref(t), pos))


def refresh(t: Any) -> None:
    """Reads a view again from its base, which was written since."""
    base = t._base
    value = base
    for op, attrs in t._steps:
        value = record(op, (value,), attrs)
    t._trace, t._pos, t._node = value._trace, value._pos, value._node
    t._needs, t._buffer = value._needs, value._buffer
    t._seen = base._version
    if t._trace is not None:
        t._trace.handles.append((ref(t), t._pos))


def view(op: Op, source: Any, attrs: tuple[Any, ...]) -> Any:
    """Records a view operation: the result shares the memory of the source, as far as anyone
    can tell."""
    out = record(op, (source,), attrs)
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


def is_derived(t: Any) -> bool:
    """Whether a tensor was computed from one that takes a gradient."""
    return bool(t._needs == DERIVED)
