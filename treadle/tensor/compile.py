"""`treadle.compile`: a function recorded once and replayed under guards.

A recording is a stretch of the trie of traces together with where its inputs come from (arguments,
tensors that the function uses, random keys, numbers that an optimiser keeps) and what it left
behind (results, tensors written in place, gradients). A replay binds the inputs anew and follows
the stretch in one step; nothing of the function's Python runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final
from weakref import ref

from treadle.graph.capture import CONSTANT, DERIVED, LEAF, State, Trace, Value
from treadle.graph.segment import inputs_along
from treadle.runtime.frame import Frame
from treadle.runtime.profile import active
from treadle.tensor.inplace import hold_again
from treadle.tensor.record import (
    LOCK,
    Capture,
    Lazy,
    flush,
    hold,
    mode,
    recorder,
    run,
)
from treadle.tensor.replay import Replay
from treadle.tensor.tree import flatten, rebuild

_RECORDINGS_AT_MOST: Final = 64
_REASONS_AT_MOST: Final = 20


class Recording:
    """One recorded call.

    `leaves` are the inputs in order: (tensor, index of the argument, function, value, state) of
    which one tells where it comes from. `writes`, `grads` and `result` are what is left behind.
    """

    __slots__ = (
        "callbacks", "direct", "end", "freed", "grads", "leaves", "result", "submits", "tree",
        "writes",
    )  # fmt: skip

    def __init__(self, trace: Trace, capture: Capture) -> None:
        self.end = trace.state
        self.freed = list(trace.freed)
        self.callbacks = capture.callbacks
        self.submits = capture.submits
        self.leaves: list[tuple[Any, int, Any, Any, State | Value]] = []
        self.writes: list[tuple[Any, Value]] = []
        self.grads: list[tuple[Any, Value]] = []
        self.result: list[Value | None] = []
        self.tree: Any = None
        self.direct: Replay | None = None

    def learn(self, history: Trace, values: list[Any]) -> None:
        """After a replay that ran: prepares the next one, if it can take the same plan."""
        tensors = [t if a < 0 else values[a] for t, a, *_ in self.leaves]
        if history.plan is None or history.saved:
            return
        if any(t is not None and t._base is not None for t in tensors):
            return
        plan, outputs, donated = history.plan
        index = {pos: i for i, pos in enumerate(outputs)}
        writes = [(t, index[s.pos]) for t, s in self.writes]
        owners = {id(t) for t, _ in writes}
        if not Frame.fits(plan) or any(id(self.leaves[i][0]) not in owners for i in donated):
            return
        self.direct = Replay(
            Frame(plan, [None if t is None else t._buffer for t in tensors]), self.leaves, writes,
            [(leaf, index[s.pos], s) for leaf, s in self.grads],
            [None if s is None else (index[s.pos], s) for s in self.result],
            plan.taken, donated, history,
        )  # fmt: skip


class Compiled:
    """A function that is replayed where it was recorded with arguments of the same types.

    Attributes:
        reasons: why each recording was made, the last ones first.
    """

    def __init__(self, function: Callable[..., Any], strict: bool = False) -> None:
        self.function = function
        self.strict = strict
        self.reasons: list[str] = []
        self._known: dict[Any, Recording] = {}
        functools.update_wrapper(self, function, updated=())

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        values, tree = flatten((args, kwargs)) if kwargs else _arguments(args)
        here = recorder()
        key = (tree, mode(), here.grad, *map(_guard, values))
        known = self._known.get(key)
        if known is None:
            return self._record(key, False, values, args, kwargs)
        if here.trace.handles or here.trace.leaves:
            flush()
        direct = known.direct
        if direct is not None and here.check is None and active() is None:
            with LOCK:
                found = direct.run(values, known.callbacks)
            if found is not None:
                return rebuild(known.tree, found)
        if self._replayable(known, values):
            return self._replay(known, values)
        return self._record(key, True, values, args, kwargs)

    # --- replay ------------------------------------------------------------------------------

    def _replayable(self, known: Recording, values: list[Any]) -> bool:
        for tensor, argument, _, _, state in known.leaves:
            t = values[argument] if argument >= 0 else tensor
            if t is None:
                continue
            if t._buffer is None or (t._base is not None and t._seen != t._base._version):
                run(t)
                if recorder().trace.leaves:
                    flush()
            node = state.node
            assert node is not None
            held = t._node
            if held is not node and (held.shape != node.shape or held.dtype is not node.dtype):
                return False
            if min(t._needs, LEAF) != state.needs:
                return False
        return True

    def _replay(self, known: Recording, values: list[Any]) -> Any:
        for callback in known.callbacks:
            callback()
        trace = recorder().trace
        leaves = trace.leaves
        for tensor, argument, source, value, state in known.leaves:
            t = values[argument] if argument >= 0 else tensor
            if t is None:
                leaves.append(value if source is None else source())
                continue
            leaves.append(t._buffer)
            if t._needs == DERIVED:
                trace.origins[state.pos] = (t._trace, t._pos)
            elif t._needs == LEAF:
                trace.leaf_handles[state.pos] = t
            t._trace, t._pos, t._node = trace, state.pos, state.node
        trace.state = known.end
        trace.freed = list(known.freed)
        for t, state in known.writes:
            if t._needs == LEAF:
                trace.leaf_handles[state.pos] = t
            else:
                t._needs = state.needs
            trace.written.append((ref(t), t._pos))
            t._pos, t._node, t._trace, t._buffer = state.pos, state.node, trace, None
            t._version += 1
            hold_again(t)
        for leaf, state in known.grads:
            leaf._grad = hold(trace, state)
        result = [None if state is None else hold(trace, state) for state in known.result]
        if known.submits:
            flush()
            known.learn(trace, values)
        return rebuild(known.tree, result)

    # --- recording ---------------------------------------------------------------------------

    def _record(
        self, key: Any, stale: bool, values: list[Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        reason = "a tensor that it uses has another shape" if stale else self._why(key)
        self.reasons.insert(0, reason)
        del self.reasons[_REASONS_AT_MOST:]
        here = recorder()
        if here.capture is not None:
            # Called by a function that is being compiled itself: a part of that recording.
            return self.function(*args, **kwargs)
        flush()
        trace = here.trace = Trace()
        trace.sources = {}
        capture = here.capture = Capture()
        before = {id(t): t._version for t in values if isinstance(t, Lazy)}
        try:
            result = self.function(*args, **kwargs)
        finally:
            here.capture = None
        if here.trace is trace and not trace.hooks and not trace.functions:
            known = self._recording(trace, capture, values, result, before)
            if known is not None:
                if len(self._known) >= _RECORDINGS_AT_MOST:
                    self._known.clear()
                self._known[key] = known
        else:
            self._refuse("it reads a value, or runs a hook or a Function, while it is recorded")
        trace.sources = None
        if capture.submits:
            flush()
        return result

    def _recording(
        self, trace: Trace, capture: Capture, values: list[Any], result: Any, before: Any
    ) -> Recording | None:
        known = Recording(trace, capture)
        place = {id(t): i for i, t in enumerate(values) if isinstance(t, Lazy)}
        inputs = inputs_along(trace.state)
        used: dict[int, Any] = {}
        for i, (state, value) in enumerate(zip(inputs, trace.leaves, strict=True)):
            source = (trace.sources or {}).get(i)
            if isinstance(source, Lazy):
                used[id(source)] = source
                known.leaves.append((source, place.get(id(source), -1), None, None, state))
            else:
                known.leaves.append((None, -1, source, value, state))
        outputs, known.tree = flatten(result)
        returned = {id(t) for t in outputs if isinstance(t, Lazy)}
        for t in {id(t): t for t in trace.live()}.values():
            if id(t) in used:
                if id(t) in place:
                    self._refuse("it writes to an argument in place")
                    return None
                known.writes.append((t, _value(t)))
            elif id(t) not in returned and not self._is_gradient(t, used, known):
                self._refuse("it makes a tensor that outlives the call and is not returned")
                return None
        known.result = [_value(t) if isinstance(t, Lazy) and t._trace is trace else None
                        for t in outputs]  # fmt: skip
        if any(isinstance(t, Lazy) and t._trace is not trace for t in outputs):
            self._refuse("it returns a tensor that it did not compute")
            return None
        return known

    def _is_gradient(self, t: Any, used: dict[int, Any], known: Recording) -> bool:
        for leaf in used.values():
            if leaf._grad is t:
                known.grads.append((leaf, _value(t)))
                return True
        return False

    def _refuse(self, why: str) -> None:
        self.reasons[0] = f"{self.reasons[0]}; not kept, because {why}"
        if self.strict and len(self.reasons) > 2:
            raise RuntimeError(f"treadle.compile(strict=True): {self.function!r}: {why}")

    def _why(self, key: Any) -> str:
        if not self._known:
            return "first call"
        last = next(reversed(self._known))
        for i, (new, old) in enumerate(zip(key, last, strict=False)):
            if new != old:
                what = ("the structure of the arguments", "the mode of a module",
                        "the grad mode")  # fmt: skip
                name = what[i] if i < len(what) else f"argument {i - len(what)}"
                return f"{name} changed: {old!r} -> {new!r}"
        return "the number of arguments changed"


def _value(t: Any) -> Value:
    return Value(t._pos, t._node, t._needs)


def _arguments(args: tuple[Any, ...]) -> tuple[list[Any], Any]:
    """`flatten`, of which tensors in a row need nothing."""
    for value in args:
        if not isinstance(value, Lazy):
            return flatten(args)
    return list(args), None


def _guard(value: Any) -> Any:
    """What must be equal for a recording to be used again."""
    if isinstance(value, Lazy):
        return (value._node.shape, value._node.dtype, value._needs != CONSTANT)
    try:
        hash(value)
    except TypeError:
        return id(value)
    return (type(value), value)


def compile(function: Callable[..., Any] | None = None, *, strict: bool = False) -> Any:
    """A function (or module) that is recorded once and replayed without running its Python.

    Replayed where the arguments have the same structure, shapes, dtypes and (for what is no
    tensor) values, and no module changed its mode; otherwise it is recorded again, and
    `reasons` says why. Tensors that the function uses, random keys and the numbers of an
    optimiser are read anew at each replay; other Python state is not, and prints happen while
    recording only.

    Args:
        function: what to compile; without it, a decorator is returned.
        strict: raise where the function cannot be kept as one recording.

    Returns:
        A callable with the same arguments and results.

    Raises:
        RuntimeError: under `strict`, why a recording could not be kept.

    Example:
        >>> import treadle
        >>> double = treadle.compile(lambda x: x * 2)
        >>> double(treadle.ones(2)).tolist(), double(treadle.zeros(2)).tolist()
        ([2.0, 2.0], [0.0, 0.0])
    """
    if function is None:
        return functools.partial(compile, strict=strict)
    return Compiled(function, strict)
