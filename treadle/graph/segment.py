"""Segments: stretches of traces, taken over where they come up again instead of recorded anew.

A composite function records the same operations for inputs of the same types, whatever was
recorded before them: the blocks of a deep model, the update of parameters in a step of another
batch size. Where its inputs have other sizes, it is recorded once over formulas; from then on one
function of the sizes checks all that the composite decides, and gives the shapes of its results.
The values between are made when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from treadle.base.site import call_site
from treadle.base.symbolic import plain
from treadle.graph.capture import TRIE, Shortcut, State, Trace, Value
from treadle.graph.formulas import Sizes, Unsuitable, varying
from treadle.graph.structure import join, picker, sizes_of, small, split
from treadle.ir.node import Node
from treadle.ops.table import INPUT

TEMPLATES_AT_MOST: Final = 32
_SAMPLES_AT_MOST: Final = 256

Numbers = tuple[tuple[Any, ...], tuple[Any, ...], tuple[Any, ...]]
"""The shapes of the results, the Python numbers that are inputs, and the sizes of all values."""


class Step:
    """One value of a segment: inputs below `arity` are the segment's, the others its values."""

    __slots__ = ("attrs", "inputs", "key", "maker", "needs", "node")

    def __init__(self, state: State, inputs: tuple[int, ...], sizes: tuple[Any, ...]) -> None:
        node = state.node
        assert node is not None
        self.inputs = inputs
        self.needs = state.needs
        self.maker = state.maker
        # Plain numbers in place of formulas, which would keep their algebra alive.
        attrs = join(node, iter([plain(n) for n in sizes])) if sizes else node.attrs
        shape = tuple([plain(n) for n in node.shape])
        self.node = Node(node.op, (), attrs, shape, node.dtype, node.device)
        self.key = step_key(self.node, inputs, state.needs)


def step_key(node: Node, inputs: tuple[int, ...], needs: int) -> Hashable:
    """One operation apart from its sizes."""
    if node.op is INPUT:
        return INPUT, small(node.shape), node.dtype, needs
    sizes: list[Any] = []
    attrs = split(node, sizes) if node.attrs else ()
    return node.op, inputs, attrs, small(sizes), node.dtype, needs


class Segment:
    """Operations in a row, apart from their sizes and from where they stand.

    Args:
        states: what was recorded.
        places: the positions of the inputs.
        results: the positions of the results.
    """

    __slots__ = ("arity", "key", "many", "numbers", "results", "steps")

    def __init__(
        self, states: Sequence[State], places: Sequence[int], results: Sequence[int], many: bool
    ) -> None:
        local = {pos: i for i, pos in enumerate(places)}
        self.arity = len(places)
        self.many = many
        self.steps: list[Step] = []
        for j, state in enumerate(states):
            assert state.node is not None
            try:
                inputs = tuple([local[i] for i in state.inputs])
            except KeyError:
                raise Unsuitable("it depends on more than its inputs") from None
            local[state.pos] = self.arity + j
            self.steps.append(Step(state, inputs, sizes_of(state.node)))
        # Those of its values that are Python numbers.
        self.numbers = [i for i, step in enumerate(self.steps) if step.node.op is INPUT]
        own = {state.pos for state in states}
        if not own.issuperset(results):
            raise Unsuitable("a result is an input")
        self.results = [local[pos] - self.arity for pos in results]
        self.key = (
            self.arity, many, tuple(self.results), tuple([(s.key, s.maker) for s in self.steps])
        )  # fmt: skip


def numbers_of(
    states: Sequence[State], results: Sequence[int], scalars: tuple[Any, ...]
) -> Numbers:
    """What belongs to a segment for the sizes at hand."""
    by_position = {state.pos: state.node for state in states}
    nodes = [by_position[pos] for pos in results]
    sizes = [n for s in states if s.node is not None for n in sizes_of(s.node)]
    return tuple([n.shape for n in nodes if n is not None]), scalars, tuple(sizes)


class Template:
    """A segment as formulas.

    Args:
        evaluate: from the sizes that vary to the numbers, `None` where a decision may change.
        sizes: for which it was made; those not in `symbols` are constants.
    """

    __slots__ = ("_constants", "_evaluate", "_values", "segment", "symbols")

    def __init__(
        self, segment: Segment, evaluate: Callable[[Sequence[Any]], Numbers | None], sizes: Sizes,
        symbols: Sequence[int],
    ) -> None:  # fmt: skip
        self.segment = segment
        self.symbols = list(symbols)
        self._evaluate = evaluate
        vary = set(symbols)
        self._constants = picker([i for i in range(len(sizes)) if i not in vary])
        self._values = self._constants(sizes)

    def fits(self, sizes: Sizes) -> bool:
        """Whether the constants are those of other sizes."""
        return bool(self._constants(sizes) == self._values)

    def numbers(self, sizes: Sizes) -> Numbers | None:
        """The numbers for other sizes, if all decisions are the same for them."""
        if self._constants(sizes) != self._values:
            return None
        try:
            return self._evaluate([sizes[i] for i in self.symbols])
        except ArithmeticError:
            return None


Retrace = Callable[[Sizes, frozenset[int]], Template]
"""Records a stretch over formulas: from the sizes before and which of all are to be symbols."""


class Segments:
    """All that is known of one composite on inputs of some types, for whatever sizes.

    Attributes:
        refused: why it cannot be recorded over formulas, if so.
    """

    __slots__ = ("_known", "_templates", "_trace", "refused")

    def __init__(self) -> None:
        self._known: dict[Sizes, tuple[Segment, Numbers]] = {}
        self._templates: list[Template] = []
        self._trace = -1
        self.refused = ""

    def find(self, sizes: Sizes) -> tuple[Segment, Numbers] | None:
        """What the composite records for some sizes."""
        known = self._known.get(sizes)
        if known is not None:
            return known
        templates = self._templates
        for i, template in enumerate(templates):
            numbers = template.numbers(sizes)
            if numbers is not None:
                if i:
                    # A new list: other threads may be looking through this one.
                    self._templates = [template, *templates[:i], *templates[i + 1 :]]
                return template.segment, numbers
        return None

    def learn(
        self, trace: Trace, sizes: Sizes, segment: Segment, numbers: Numbers, retrace: Retrace
    ) -> None:
        """Remembers what was recorded. A template is made in the second trace that needs it:
        layers of a model that differ in size are no sign of sizes that change."""
        segment = TRIE.shared.setdefault(segment.key, segment)
        first = self._trace < 0
        if first:
            self._trace = trace.serial
        elif trace.serial != self._trace and not self.refused:
            self._generalise(sizes, segment, numbers, retrace)
        if len(self._known) >= _SAMPLES_AT_MOST:
            self._known.clear()
        self._known[sizes] = segment, numbers

    def _generalise(
        self, sizes: Sizes, segment: Segment, numbers: Numbers, retrace: Retrace
    ) -> None:
        samples = [s for s in list(self._known) if len(s) == len(sizes)]
        if len(self._templates) >= TEMPLATES_AT_MOST or not samples:
            return
        before = min(samples, key=lambda s: len(varying(sizes, s)))
        same = next((t for t in self._templates if t.fits(sizes)), None)
        vary = varying(sizes, before) if same is None else frozenset(same.symbols)
        try:
            template = retrace(before, vary)
            if template.segment.key != segment.key or template.numbers(sizes) != numbers:
                raise Unsuitable("over formulas it records something else")
        except Unsuitable as error:
            self.refused = str(error)
            return
        template.segment = segment
        self._templates = [template, *self._templates]


class Span:
    """A segment taken as one transition, whose values are made when they are asked for.

    Args:
        start: the state that it goes on from.
        places: the positions of its inputs, `None` where they are all values before.
        nodes: of the inputs, where they are not all values.
    """

    __slots__ = (
        "_nodes", "_results", "_site", "_waiting", "end", "places", "segment", "sizes", "start",
    )  # fmt: skip

    def __init__(
        self, segment: Segment, numbers: Numbers, start: State, places: tuple[int, ...] | None,
        nodes: Sequence[Node] = (),
    ) -> None:  # fmt: skip
        self.segment = segment
        self.start = start
        self.places = places
        self.sizes = numbers[2]
        self._nodes = nodes
        self._site = call_site()
        self._results = {
            i: Pending.of(self, segment.steps[i].node, shape)
            for i, shape in zip(segment.results, numbers[0], strict=True)
        }
        self.end = Skipped.of(self, start.pos + len(segment.steps))
        self._waiting = True
        TRIE.grown()

    def shortcut(self, scalars: tuple[Any, ...]) -> Shortcut:
        """The transition."""
        segment, base = self.segment, self.start.pos + 1
        values = tuple(
            [Value(base + i, self._results[i], segment.steps[i].needs) for i in segment.results]
        )
        return Shortcut(self.end, values if segment.many else values[0], scalars)

    def expand(self) -> None:
        """Makes all states and nodes of the stretch."""
        if not self._waiting:
            return
        self._waiting = False
        known = list(self._nodes)
        if self.places is None:
            known = [node for s in self.start.path() if (node := s.node) is not None]
        places = self.positions()
        state, sizes = self.start, iter(self.sizes)
        last = len(self.segment.steps) - 1
        for i, step in enumerate(self.segment.steps):
            model, inputs = step.node, tuple([known[j] for j in step.inputs])
            attrs, shape = model.attrs, model.shape
            if model.op is not INPUT:
                attrs = join(model, sizes) if attrs else ()
                shape, _ = model.op.infer(*inputs, *attrs)
            else:
                shape = tuple([next(sizes) for _ in shape])
            node = self._results.get(i)
            if node is None:
                node = Node(model.op, inputs, attrs, shape, model.dtype, model.device, self._site)
            else:
                Pending.settle(node, inputs, attrs, self._site)
            known.append(node)
            where = tuple([places[j] for j in step.inputs])
            if i == last:
                Skipped.settle(self.end, state, node, where, step.needs)
                state = self.end
            else:
                before, state = state, State.__new__(State)
                _fill(state, before, node, where, step.needs, self.end.born)
            state.maker = step.maker
        self._nodes = ()

    def positions(self) -> list[int]:
        """Where the inputs and then the values of the segment are in the trace."""
        own = range(self.start.pos + 1, self.end.pos + 1)
        return [*(range(self.start.pos + 1) if self.places is None else self.places), *own]


def _fill(
    state: State, parent: State, node: Node, inputs: tuple[int, ...], needs: int, born: int
) -> None:
    State.__init__(state, parent, node, inputs, needs)
    state.born = born


class Pending(Node):
    """The result of a span that is not expanded yet: its inputs are, once they are asked for."""

    __slots__ = ()

    @staticmethod
    def of(span: Span, model: Node, shape: tuple[int, ...]) -> Pending:
        """A result of a span."""
        made = Pending.__new__(Pending)
        made.op, made.shape, made.dtype, made.device = (
            model.op, shape, model.dtype, model.device)  # fmt: skip
        _INPUTS.__set__(made, span)
        return made

    @staticmethod
    def settle(node: Node, inputs: tuple[Node, ...], attrs: tuple[Any, ...], site: Any) -> None:
        """Makes it a node like all others."""
        node.__class__ = Node
        node.inputs, node.attrs, node.site = inputs, attrs, site

    def _expanded(name: str) -> Any:  # type: ignore[misc]
        def get(self: Pending) -> Any:
            _INPUTS.__get__(self).expand()
            return getattr(self, name)

        return property(get)

    inputs = _expanded("inputs")
    attrs = _expanded("attrs")
    site = _expanded("site")


class Skipped(State):
    """The end of a span that is not expanded yet."""

    __slots__ = ()

    @staticmethod
    def of(span: Span, pos: int) -> Skipped:
        """The state that a span ends in."""
        made = Skipped.__new__(Skipped)
        made._begin(pos)
        made.span = span
        return made

    @staticmethod
    def settle(
        state: State, parent: State, node: Node, inputs: tuple[int, ...], needs: int
    ) -> None:
        """Makes it a state like all others."""
        state.__class__ = State
        state.parent, state.node, state.inputs, state.needs = parent, node, inputs, needs

    def _expanded(name: str) -> Any:  # type: ignore[misc]
        def get(self: Skipped) -> Any:
            self.span.expand()
            return getattr(self, name)

        return property(get)

    parent = _expanded("parent")
    node = _expanded("node")
    inputs = _expanded("inputs")
    needs = _expanded("needs")


_INPUTS: Final[Any] = Node.__dict__["inputs"]


def inputs_along(state: State) -> list[State | Value]:
    """The inputs of a trace in order; spans stay as they are."""
    out: list[State | Value] = []
    each: State | None = state
    while each is not None and each.pos >= 0:
        span = each.span
        if span is None:
            if each.node is not None and each.node.op is INPUT:
                out.append(each)
            each = each.parent
            continue
        base, steps = span.start.pos + 1, span.segment.steps
        for i in reversed(span.segment.numbers):
            out.append(Value(base + i, steps[i].node, steps[i].needs))
        each = span.start
    out.reverse()
    return out


def segment_key(
    what: Hashable, inputs: Sequence[Any], positions: tuple[int, ...], grad: bool
) -> tuple[Hashable, Sizes]:
    """What must be equal for a segment to be the same: the function, the types of its inputs and
    which of them are one; and their sizes."""
    sizes: list[int] = []
    types = []
    for t in inputs:
        node = t._node
        shape = node.shape
        sizes += shape
        types.append((len(shape), node.dtype, t._needs))
    same = tuple([positions.index(p) for p in positions])
    return (what, tuple(types), small(sizes), same, grad), tuple(sizes)
