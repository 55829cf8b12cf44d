"""What records: the trace of each thread, and how tensors hold its values."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final
from weakref import ref

from treadle.graph.capture import CONSTANT, State, Trace, Value
from treadle.ops.table import Op

PENDING_AT_MOST: Final = 10_000
"""Values that may be pending before they are run unasked."""


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
        self._before = LOCAL.recorder.walking
        LOCAL.recorder.walking = True

    def __exit__(self, *_: object) -> None:
        LOCAL.recorder.walking = self._before


class _Local(threading.local):
    def __init__(self) -> None:
        self.recorder = Recorder()


LOCAL: Final = _Local()


def recorder() -> Recorder:
    """The recorder of this thread."""
    return LOCAL.recorder


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


new: Callable[[Any], Any] = object.__new__
made: Final[list[type]] = [Lazy]
"""The class of results."""


def tensor_class(cls: type) -> type:
    """Names the class that recording makes its results of."""
    made[0] = cls
    return cls


def hold(trace: Trace, state: State | Value) -> Any:
    """A new tensor that holds a value of the trace."""
    t = new(made[0])
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
    t = new(made[0])
    t._trace = None
    t._pos = -1
    t._node = node
    t._needs = needs
    t._buffer = buffer
    t._base = t._grad = t._extra = None
    t._version = 0
    return t
