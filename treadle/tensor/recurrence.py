"""`scan`: a step repeated along the first dimension of sequences, recorded as one loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from treadle.base.dtype import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.shape import Shape
from treadle.graph.capture import CONSTANT, DERIVED, LEAF, State, Trace
from treadle.ir.node import Node
from treadle.ops.body import Body, body_of
from treadle.ops.recurrence import RECURRENCE
from treadle.ops.recurrence_gradient import used_by_gradients
from treadle.ops.table import INPUT
from treadle.ops.view import ALIAS
from treadle.tensor import primitive as pr
from treadle.tensor.record import Lazy, hold, position, record, record1, recorder, refresh, scalar
from treadle.tensor.tree import flatten, rebuild


def scan(
    fn: Callable[[Any, Any], tuple[Any, Any]], init: Any, xs: Any = None,
    length: int | None = None, reverse: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """Repeats `carry, y = fn(carry, x)` along the first dimension of `xs`, as one loop.

    The step is recorded once, whatever the length: graphs stay small, another length compiles
    nothing, and gradients of any order run through the loop. Random numbers drawn in a step are
    the same in every turn.

    Args:
        fn: takes the carry and one slice of `xs`, gives the new carry, of the same structure,
            shapes and dtypes, and an output. It may use tensors from outside, but not read the
            values of any, nor write to those from outside.
        init: the first carry: a tensor, or tuples, lists and dicts of tensors.
        xs: tensors `(length, *)` in any such structure; `None` if `length` is given.
        length: the number of turns, needed where `xs` has no tensor.
        reverse: begin with the last slice; outputs stay in the order of the slices.

    Returns:
        The last carry, and the outputs `(length, *)` stacked along a new first dimension.

    Raises:
        ShapeError: the sequences differ in length, or a carry changes its shape.
        DTypeError: a carry changes its dtype.

    Example:
        >>> import treadle
        >>> def step(total, x):
        ...     total = total + x
        ...     return total, total * 2
        >>> last, doubled = treadle.scan(step, treadle.zeros(()), treadle.arange(4.0))
        >>> last.item(), doubled.tolist()
        (6.0, [0.0, 2.0, 6.0, 12.0])
    """
    carries, carry_tree = flatten(init)
    slices, slice_tree = flatten(() if xs is None else xs)
    _require_tensors("init", carries)
    _require_tensors("xs", slices)
    turns = _turns(slices, length)
    step = _Step(carries, slices)
    with step:
        x = None if xs is None else rebuild(slice_tree, step.slices)
        new, y = fn(rebuild(carry_tree, step.carries), x)
        nexts, new_tree = flatten(new)
        outputs, y_tree = flatten(y)
        if new_tree != carry_tree:
            raise TypeError("scan: the step gives a carry of another structure than it takes")
        _require_tensors("the carry of the step", nexts)
        tensors = [y for y in outputs if y is not None]
        _require_tensors("the output of the step", tensors)
        _require_same(carries, nexts)
        body, values, constants = step.finish(nexts, tensors)
    loop = _Recorded(body, (*carries, *slices, *constants), turns, reverse)
    given = iter([loop.history(v) for v in values])
    loop.keep(values)
    stacked = [None if y is None else next(given) for y in outputs]
    last = [loop.last(k, c) for k, c in enumerate(carries)]
    return rebuild(carry_tree, last), rebuild(y_tree, stacked)


def _require_tensors(what: str, values: list[Any]) -> None:
    for value in values:
        if not isinstance(value, Lazy):
            raise TypeError(f"scan: {what} has to be made of tensors, not {type(value).__name__}")


def _turns(slices: list[Any], length: int | None) -> int:
    found = {x._node.shape[0] if x._node.shape else -1 for x in slices}
    if -1 in found:
        raise ShapeError("scan: xs has a tensor without dimensions; hint: use it in the step as is")
    if length is not None:
        found.add(length)
    if len(found) != 1:
        lengths = ", ".join(map(str, sorted(found))) or "none"
        raise ShapeError(f"scan: xs and length have to agree on one length, found {lengths}")
    return found.pop()


def _require_same(before: list[Any], after: list[Any]) -> None:
    for old, new in zip(before, after, strict=True):
        if old._node.shape != new._node.shape:
            raise ShapeError(
                f"scan: a carry of shape {tuple(old._node.shape)} becomes one of shape "
                f"{tuple(new._node.shape)}"
            )
        if old._node.dtype is not new._node.dtype:
            raise DTypeError(
                f"scan: a carry of dtype {old._node.dtype.name} becomes "
                f"{new._node.dtype.name}; hint: convert one of them with .to(...)"
            )


# --- recording a step --------------------------------------------------------------------------


_KEPT: Final = ("_version", "_trace", "_pos", "_node", "_buffer", "_needs")
"""What recording a step may change of a tensor from outside."""


class _StepTrace(Trace):
    """What a step records. Tensors from outside become constants of it, pending ones too, and are
    given back as they were."""

    takes_all = True

    def __init__(self, outer: Trace) -> None:
        super().__init__()
        # A trie of its own: nodes of two steps are never the same.
        self.state = State(None, None, (), CONSTANT)
        self.outer = outer
        # Where numbers come from, which a compiled function draws anew at each call.
        self.sources = {}
        self.error = RuntimeError(
            "scan: the values of a step are not known while it is recorded; hint: decide with "
            "treadle.where instead of if, and give out what is to be read later"
        )
        self.taken: dict[int, tuple[Any, tuple[Any, ...]]] = {}

    def place(self, t: Any) -> int:
        """The position of a tensor."""
        if t._base is not None and t._seen != t._base._version:
            here = recorder()
            here.trace = self.outer
            refresh(t)
            here.trace = self
        if t._trace is not self:
            self.taken[len(self.leaves)] = t, tuple([getattr(t, name) for name in _KEPT])
            t._trace, t._pos, t._node = self, *self.given(t, LEAF if t._needs else CONSTANT)
        pos: int = t._pos
        return pos

    def live(self) -> list[Any]:
        """Raises: somebody reads a value of the step, of which there are many and none yet."""
        assert self.error is not None
        raise self.error

    def given(self, t: Any, needs: int) -> tuple[int, Node]:
        """A value of the type of a tensor that every turn is given."""
        state = self.buffer(None, t._node.shape, t._node.dtype, needs)
        assert state.node is not None
        return state.pos, state.node

    def give_back(self) -> None:
        """Makes tensors from outside what they were."""
        for t, values in self.taken.values():
            if t._trace is self:
                for name, value in zip(_KEPT, values, strict=True):
                    setattr(t, name, value)


_VALUES_AT_MOST: Final = 1 << 40
"""A step never runs because too much of it is pending."""


class _Step:
    """A context in which the step is recorded, and what becomes of it."""

    def __init__(self, carries: list[Any], slices: list[Any]) -> None:
        self._recorder = recorder()
        self._outer = self._recorder.trace
        self._grad, self._limit = self._recorder.grad, self._recorder.limit
        self._trace = _StepTrace(self._outer)
        self.carries = [self._given(t._node.shape, t._node.dtype) for t in carries]
        self.slices = [self._given(t._node.shape[1:], t._node.dtype) for t in slices]

    def _given(self, shape: Shape, dtype: DType) -> Any:
        needs = DERIVED if dtype.is_floating_point else CONSTANT
        return hold(self._trace, self._trace.buffer(None, shape, dtype, needs))

    def __enter__(self) -> None:
        self._recorder.trace = self._trace
        self._recorder.grad = True
        self._recorder.limit = _VALUES_AT_MOST

    def __exit__(self, *_: object) -> None:
        self._recorder.trace = self._outer
        self._recorder.grad = self._grad
        self._recorder.limit = self._limit
        self._trace.give_back()

    def finish(self, nexts: list[Any], outputs: list[Any]) -> tuple[Body, list[int], list[Any]]:
        """The body, the places of the outputs, and the tensors that are its constants."""
        trace = self._trace
        ends = [position(trace, t) for t in (*nexts, *outputs)]
        for t, (version, *_) in trace.taken.values():
            if t._version != version:
                raise RuntimeError(
                    "scan: the step writes to a tensor from outside; hint: make it a carry"
                )
        states = trace.state.path()
        nodes = [s.node for s in states if s.node is not None]
        stops = [nodes[s.pos] for s in states if _stops(s, states)]
        leaves = [n for n in nodes if n.op is INPUT]
        first = len(self.carries) + len(self.slices)
        self._recorder.trace = self._outer
        constants = [
            trace.taken[i][0]
            if i in trace.taken
            else scalar(trace.leaves[i], leaves[i].dtype, (trace.sources or {}).get(i))
            for i in range(first, len(leaves))
        ]
        body, place = body_of(
            leaves[: len(self.carries)], leaves[len(self.carries) : first], leaves[first:],
            [nodes[e] for e in ends[: len(nexts)]], [nodes[e] for e in ends[len(nexts) :]], stops,
        )  # fmt: skip
        return body, [place[nodes[e]] for e in ends[len(nexts) :]], constants


def _stops(state: State, states: list[State]) -> bool:
    """Whether a value was recorded without history though what it is made of has one."""
    node = state.node
    if node is None or state.needs or not node.dtype.is_floating_point:
        return False
    return any(states[i].needs for i in state.inputs)


# --- the loop ----------------------------------------------------------------------------------


class _Recorded:
    """A body on tensors: gives the histories of its values."""

    def __init__(self, body: Body, inputs: tuple[Any, ...], length: int, reverse: bool) -> None:
        self._body, self._inputs = body, inputs
        self._length, self._reverse = length, reverse
        self._carries: dict[int, Any] = {}

    def _record(self, value: int) -> Any:
        return record(RECURRENCE, self._inputs, (self._body, value, self._length, self._reverse))

    def keep(self, values: list[int]) -> None:
        """Records what gradients will use, so that it is kept where the loop runs before them."""
        wanted = frozenset([i for i, t in enumerate(self._inputs) if t._needs])
        if wanted and recorder().grad and self._length:
            body = self._body
            told = dict.fromkeys(v for v in values if v >= body.leaves and v not in body.nexts)
            ends = [-1 - k for k in range(body.carries)]
            for value in used_by_gradients(RECURRENCE, body, (*ends, *told), wanted):
                if value >= 0 and value not in told and value not in self._carries:
                    self._record(value)

    def last(self, k: int, first: Any) -> Any:
        """What a carry is in the end."""
        if not self._length:
            return record1(ALIAS, first)
        return self._record(-1 - k)

    def history(self, value: int) -> Any:
        """A value of all turns."""
        body, node = self._body, self._body.order[value]
        if not self._length:
            return pr.filled((0, *node.shape), 0, node.dtype)
        if value < body.carries:
            return self._between(value, self._reverse)
        if value < body.carries + body.slices:
            return record1(ALIAS, self._inputs[value])
        if value < body.leaves:
            column = pr.shaped(self._inputs[value], (1, *node.shape))
            return pr.expanded(column, (self._length, *node.shape))
        if value in body.nexts:
            return self._between(body.nexts.index(value), not self._reverse)
        return self._record(value)

    def _between(self, k: int, start: bool) -> Any:
        if k not in self._carries:
            self._carries[k] = self._record(k)
        return _rows(self._carries[k], int(start), int(start) + self._length)


def _rows(x: Any, start: int, stop: int) -> Any:
    rest = x._node.shape[1:]
    return pr.cut(x, (start, *(0,) * len(rest)), (stop, *rest))
