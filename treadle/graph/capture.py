"""Capture: the trie of traces, in which a program that repeats itself is recognised as it records.

A trace is the list of values recorded since the last run. Every prefix of a trace is a `State` of
one trie: recording an operation follows the transition (op, attributes, positions of the inputs),
and a transition that was taken before leads to a state whose node, shape and dtype are already
there. So the last state of a trace *is* its structural key: equal states mean equal graphs, and
plans are remembered at the state. Longer stretches (a backward pass, an optimiser step, a
composite function) get shortcuts: one transition for many values.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol
from weakref import ref

from treadle.base.dtype import DType
from treadle.base.errors import TreadleError
from treadle.base.shape import Shape
from treadle.base.site import call_site, describe
from treadle.ir.node import Node
from treadle.ops.table import INPUT, Op, make

CONSTANT: Final = 0
"""A value without gradient."""
LEAF: Final = 1
"""A value that gradients are collected at: they go no further."""
DERIVED: Final = 2
"""A value computed from one that takes a gradient."""


class Handle(Protocol):
    """What capture knows of a tensor: which value of which trace it holds, or its memory."""

    _trace: Trace | None
    _pos: int
    _node: Node
    _needs: int
    _buffer: Any


_births = itertools.count()


class State:
    """A prefix of traces: the value that it ends in, and where it may go on.

    `span` is the stretch that it ends, where that was taken from a segment, and `form` the state
    apart from its sizes, once it was asked for (`graph/form.py`).
    """

    __slots__ = (
        "_next_constant", "_plans", "born", "form", "inputs", "maker", "needs", "next", "node",
        "parent", "pos", "sizes", "span",
    )  # fmt: skip

    parent: State | None
    node: Node | None
    inputs: tuple[int, ...]

    def __init__(
        self, parent: State | None, node: Node | None, inputs: tuple[int, ...], needs: int
    ) -> None:
        self.parent = parent
        self.node = node
        self.inputs = inputs
        self.needs = needs
        self._begin(parent.pos + 1 if parent else -1)

    def _begin(self, pos: int) -> None:
        self.pos = pos
        # When it was first recorded: tells what is new in a trace, and so why its plan is.
        self.born = next(_births)
        # The composite that the value is the result of, if any: it gives a tensor's `grad_fn` its
        # name.
        self.maker: Callable[..., Any] | None = None
        self.span: Any = None
        self.form: Any = None
        self.sizes: tuple[Any, ...] = ()
        # One table for each grad mode: under no_grad the same operation gives a constant.
        self.next: dict[Any, Any] = {}
        self._next_constant: dict[Any, Any] | None = None
        self._plans: dict[Any, Any] | None = None

    @property
    def next_constant(self) -> dict[Any, Any]:
        """Where it may go on under `no_grad`."""
        found = self._next_constant
        if found is None:
            found = self._next_constant = {}
        return found

    @property
    def plans(self) -> dict[Any, Any]:
        """The plans of traces that end here, by what they compute and may write over."""
        found = self._plans
        if found is None:
            found = self._plans = {}
        return found

    def path(self) -> list[State]:
        """The states of all values of the trace, by position."""
        out: list[State] = []
        state: State | None = self
        while state is not None and state.parent is not None:
            out.append(state)
            state = state.parent
        out.reverse()
        return out


class Value:
    """What a tensor must know of the state whose value it holds."""

    __slots__ = ("needs", "node", "pos")

    def __init__(self, pos: int, node: Node, needs: int) -> None:
        self.pos = pos
        self.node = node
        self.needs = needs


class Shortcut:
    """A stretch of a trace taken as one transition; its results are states or `Value`s."""

    __slots__ = ("end", "result", "scalars")

    def __init__(self, end: State, result: Any, scalars: tuple[Any, ...]) -> None:
        self.end = end
        self.result = result
        self.scalars = scalars


_serial = itertools.count()
_STATES_AT_MOST: Final = 200_000


class Trie:
    """The root of all traces. It forgets everything when it has grown too large."""

    def __init__(self) -> None:
        self.root = State(None, None, (), CONSTANT)
        self.size = 0
        # Stretches that composites recorded, by what they depend on, and by what they are.
        self.segments: dict[Any, Any] = {}
        self.shared: dict[Any, Any] = {}

    def forget(self) -> None:
        """Drops every remembered trace; traces in progress go on undisturbed."""
        self.root = State(None, None, (), CONSTANT)
        self.size = 0
        self.segments = {}
        self.shared = {}

    def grown(self) -> None:
        """Notes one more state."""
        self.size += 1


TRIE: Final = Trie()


class Trace:
    """The values recorded since the last run, and what each of them is bound to.

    `leaves` are the bindings of the input values in order: a buffer, or a Python number.
    `handles` are weak references to the tensors that hold its values.
    `origins` tells for an input that is a value of an earlier trace where its history goes on.
    `leaf_handles` are the tensors that collect gradients.
    `sources` tells, while a function is compiled, which tensor or function each leaf came from.
    `saved` are the buffers kept for a backward pass after the trace has run.
    `plan` is what ran it last: the plan, the outputs that it stored and the inputs it wrote over.
    `written` are the tensors that took another value, each with the position or the memory of the
    one before: where the run fails they take that back.
    """

    __slots__ = (
        "done",
        "error",
        "freed",
        "functions",
        "handles",
        "hooks",
        "leaf_handles",
        "leaves",
        "origins",
        "plan",
        "saved",
        "serial",
        "sources",
        "started",
        "state",
        "written",
    )

    takes_all = False
    """Whether tensors that are pending elsewhere may become inputs: of a step, by `place`."""

    formulas = False
    """Whether it is recorded over formulas, by `retrace`."""

    def __init__(self) -> None:
        if TRIE.size > _STATES_AT_MOST:
            TRIE.forget()
        self.state = TRIE.root
        self.leaves: list[Any] = []
        self.handles: list[ref[Any]] = []
        self.origins: dict[int, tuple[Trace, int]] = {}
        self.leaf_handles: dict[int, Any] = {}
        self.hooks: dict[int, list[Callable[[Any], Any]]] = {}
        self.functions: dict[int, Any] = {}
        self.freed: list[frozenset[int]] = []
        self.written: list[tuple[ref[Any], Any]] = []
        self.saved: dict[int, Any] = {}
        self.plan: Any = None
        self.sources: dict[int, Any] | None = None
        self.done = False
        self.error: BaseException | None = None
        self.serial = next(_serial)
        self.started = next(_births)

    # --- appending ---------------------------------------------------------------------------

    def append(
        self,
        op: Op,
        attrs: tuple[Any, ...],
        inputs: tuple[int, ...],
        sources: Callable[[], Sequence[tuple[Node, int]]],
        grad: bool,
        needs: int | None = None,
    ) -> State:
        """Records one operation on values of this trace.

        `sources` gives the node and the gradient need of each input, asked only on a miss;
        `needs` overrides what follows from them. Raises what the op's shape rule raises.
        """
        state = self.state
        table = state.next if grad else state.next_constant
        key = (op, attrs, inputs) if needs is None else (op, attrs, inputs, needs)
        found = table.get(key)
        if found is None:
            found = self.extend(op, attrs, inputs, sources(), grad, needs)
            table[key] = found
        self.state = found
        return found

    def extend(
        self,
        op: Op,
        attrs: tuple[Any, ...],
        inputs: tuple[int, ...],
        sources: Sequence[tuple[Node, int]],
        grad: bool,
        needs: int | None = None,
    ) -> State:
        """A new state for an operation that was never recorded here; the trace stays where it is.

        Raises what the op's shape rule raises, with the user's line.
        """
        try:
            node = make(op, tuple(node for node, _ in sources), attrs)
        except TreadleError as error:
            error.add_note(f"recorded at {describe(call_site())}")
            raise
        if needs is None:
            carries = grad and node.dtype.is_floating_point and any(n for _, n in sources)
            needs = DERIVED if carries else CONSTANT
        TRIE.grown()
        return State(self.state, node, inputs, needs)

    def scalar(self, value: Any, dtype: DType) -> State:
        """An input that is a Python number: it may change from run to run."""
        return self._leaf((INPUT, dtype), (), dtype, CONSTANT, value)

    def buffer(self, value: Any, shape: Shape, dtype: DType, needs: int) -> State:
        """An input that is a tensor in memory."""
        return self._leaf((INPUT, shape, dtype, needs), shape, dtype, needs, value)

    def _leaf(self, key: Any, shape: Shape, dtype: DType, needs: int, value: Any) -> State:
        found = self.state.next.get(key)
        if found is None:
            found = self._new_leaf(key, shape, dtype, needs)
        self.leaves.append(value)
        self.state = found
        return found

    def _new_leaf(self, key: Any, shape: Shape, dtype: DType, needs: int) -> State:
        node = Node(INPUT, (), (shape, dtype), shape, dtype, site=call_site())
        found = State(self.state, node, (), needs)
        TRIE.grown()
        self.state.next[key] = found
        return found

    def enter(self, t: Handle) -> int:
        """The position of a tensor in this trace, which it becomes an input of if need be."""
        if t._trace is self:
            return t._pos
        leaves = self.leaves
        if self.sources is not None:
            self.sources[len(leaves)] = t
        # `buffer` written out: this is done for every parameter in every step.
        node, needs = t._node, t._needs
        state = self.state
        key = (INPUT, node.shape, node.dtype, LEAF if needs else CONSTANT)
        found = state.next.get(key)
        if found is None:
            found = self._new_leaf(key, node.shape, node.dtype, LEAF if needs else CONSTANT)
        leaves.append(t._buffer)
        self.state = found
        pos: int = found.pos
        if needs == LEAF:
            self.leaf_handles[pos] = t
        elif needs == DERIVED and t._trace is not None:
            self.origins[pos] = (t._trace, t._pos)
            self.handles.append(ref(t))
        t._trace = self
        t._pos = pos
        t._node = found.node  # type: ignore[assignment]
        return pos

    def place(self, t: Handle) -> int:
        """The position of any tensor, for a trace that `takes_all`."""
        return self.enter(t)

    # --- what is alive -----------------------------------------------------------------------

    def live(self) -> list[Any]:
        """The tensors that hold values of this trace and have no memory yet."""
        out = []
        for reference in self.handles:
            t = reference()
            if t is not None and t._trace is self and t._buffer is None:
                out.append(t)
        return out

    def is_freed(self, pos: int) -> bool:
        """Whether the history of a value was given up by a backward pass."""
        return any(pos in part for part in self.freed)
