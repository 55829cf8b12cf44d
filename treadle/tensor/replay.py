"""The short way of a compiled function: its plan run again over a table that is already filled.

A recording that ends in a run (a training step) needs no trace to be replayed. What it reads stays
at its address from call to call, since parameters are overwritten in place, and so does a gradient
that nobody else holds; a replay looks whether that is so, and sets what is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from sys import getrefcount
from typing import Any, Final

from treadle.graph.capture import CONSTANT, DERIVED, State, Trace, Value
from treadle.runtime.buffer import Buffer
from treadle.runtime.execute import counts
from treadle.runtime.frame import Frame
from treadle.tensor.record import concrete

Leaf = tuple[Any, int, Any, Any, State | Value]
"""An input: (tensor, index of the argument, function, value, state)."""


class _Holder:
    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: object = object()


def _count_alone() -> int:
    holder = _Holder()
    return getrefcount(holder.value)


_ALONE: Final = _count_alone()
"""The reference count of what only one attribute holds, asked for as `x.attribute`."""


class Replay:
    """A recording that ends in a run, with its table filled.

    Args:
        frame: the table of its plan.
        leaves: where its inputs come from.
        writes: tensors that take results as their new values, with the number of the output.
        grads: leaves whose gradient is a result, with the number of the output and its state.
        result: for each value returned the number of the output and its state, or `None`.
        taken: (output, input) where the plan writes the one over the other.
        donated: inputs that nobody but their tensors may hold, because the plan writes over them.
        history: the trace that results with a history name as theirs: it was freed.
    """

    __slots__ = (
        "_arguments", "_donated", "_frame", "_grads", "_held", "_history", "_moves", "_none",
        "_numbers", "_result", "_taken", "_writes",
    )  # fmt: skip

    def __init__(
        self, frame: Frame, leaves: Sequence[Leaf], writes: Sequence[tuple[Any, int]],
        grads: Sequence[tuple[Any, int, Value]], result: Sequence[tuple[int, Value] | None],
        taken: Sequence[tuple[int, int]], donated: Sequence[int], history: Trace,
    ) -> None:  # fmt: skip
        self._frame: Final = frame
        tensors = [(i, leaf) for i, leaf in enumerate(leaves) if leaf[0] is not None]
        self._held: Final = [
            (t, t._node, t._needs, i) for i, (t, argument, *_) in tensors if argument < 0
        ]
        self._arguments: Final = [(a, i) for i, (_, a, *_) in tensors if a >= 0]
        self._numbers: Final = [(leaf[2], leaf[3]) for leaf in leaves if leaf[0] is None]
        self._donated: Final = [leaves[i][0] for i in donated]
        self._writes: Final = [t for t, _ in writes]
        stay = {(i, id(leaves[leaf][0])) for i, leaf in taken}
        self._moves: Final = [(t, i) for t, i in writes if (i, id(t)) not in stay]
        self._grads: Final = list(grads)
        self._result: Final = list(result)
        self._history: Final = history
        named = {i for _, i in self._moves} | {i for _, i, _ in grads}
        named |= {each[0] for each in result if each is not None}
        self._taken: Final = [(i, leaves[leaf][0]) for i, leaf in taken if i in named]
        self._none: Final = [None] * frame.outputs

    def run(self, values: list[Any], before: Sequence[Callable[[], None]]) -> list[Any] | None:
        """The results; `None` where something is not as it was when the table was filled.

        Args:
            values: the arguments, whose types were compared.
            before: what to call where the replay is going to run.

        Raises:
            IndexBoundsError: a check failed; no tensor has changed, gradients are `None`.
        """
        if not self._in_place(values):
            return None
        for callback in before:
            callback()
        numbers = [value if source is None else source() for source, value in self._numbers]
        outputs = self._none.copy()
        self._reuse_gradients(outputs)
        for i, t in self._taken:
            outputs[i] = t._buffer
        try:
            self._frame.run(numbers, outputs)
        except BaseException:
            for leaf, _, _ in self._grads:
                leaf._grad = None
            raise
        counts.runs += 1
        for t, i in self._moves:
            t._buffer = outputs[i]
        for t in self._writes:
            t._trace = None
            t._version += 1
        for leaf, i, state in self._grads:
            if leaf._grad is None:
                leaf._grad = concrete(outputs[i], state.node)
        return [None if each is None else self._value(outputs[each[0]], each[1])
                for each in self._result]  # fmt: skip

    def _in_place(self, values: list[Any]) -> bool:
        """Whether all inputs are what they were; lets the table follow those that moved."""
        # First of all, before a local name holds a buffer too: memory that the plan writes over
        # must be the tensor's alone.
        for t in self._donated:
            if getrefcount(t._buffer) > _ALONE:
                return False
        frame = self._frame
        addresses = frame.addresses
        for t, node, needs, i in self._held:
            buffer = t._buffer
            if buffer is None or t._needs != needs:
                return False
            if t._node is not node and not _alike(t._node, node):
                return False
            if buffer.address != addresses[i]:
                if buffer.owner is not None:
                    return False
                frame.place(i, buffer)
        for argument, i in self._arguments:
            t = values[argument]
            buffer = t._buffer
            if buffer is None or t._base is not None:
                return False
            if buffer.address != addresses[i]:
                frame.place(i, buffer)
        return True

    def _reuse_gradients(self, outputs: list[Any]) -> None:
        """Lets the gradients of the last step be written over where nobody else holds them, and
        drops the others."""
        for leaf, i, state in self._grads:
            g = leaf._grad
            if g is None:
                continue
            # One more reference each: the local names.
            if getrefcount(g) == _ALONE + 1 and g._node is state.node and g._needs == CONSTANT:
                buffer = g._buffer
                if buffer is not None and getrefcount(buffer) == _ALONE + 1 and _plain(g, buffer):
                    outputs[i] = buffer
                    continue
            leaf._grad = None

    def _value(self, buffer: Any, state: Value) -> Any:
        t = concrete(buffer, state.node, state.needs)
        if state.needs == DERIVED:
            t._trace, t._pos = self._history, state.pos
        return t


def _alike(a: Any, b: Any) -> bool:
    return a.shape == b.shape and a.dtype is b.dtype


def _plain(t: Any, buffer: Buffer) -> bool:
    return t._trace is None and t._base is None and t._extra is None and buffer.owner is None
