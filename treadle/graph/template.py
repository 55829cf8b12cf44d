"""Templates: a plan whose sizes are formulas, from which plans for other shapes are filled in.

The second time that a structure comes up with other sizes, its plan is built over `Symbolic`
numbers. What comes out is the plan, its sizes as formulas, and the conditions under which every
pass would decide as it did. Where they hold for a third set of sizes, the new plan is the old one
with its numbers computed anew: the same kernels, and so no new machine code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from treadle.base.algebra import Algebra, both
from treadle.base.errors import TreadleError
from treadle.base.settings import settings
from treadle.base.shape import Shape
from treadle.base.symbolic import Symbolic, now
from treadle.graph.build import build
from treadle.graph.plan import HostCall, Launch, Output, Plan, Repeat, Step
from treadle.graph.structure import join, split
from treadle.graph.verify import verify_plan
from treadle.ir.node import Node, topological
from treadle.ops.table import make

TEMPLATES_AT_MOST: Final = 32
"""Of one structure; each is for a range of sizes in which the same decisions are right."""

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """The sizes of a graph of some structure, and the shapes of its nodes, inputs first."""

    sizes: Sizes
    shapes: tuple[Shape, ...]


class Unsuitable(Exception):
    """A graph that no template can be made of; the reason says why."""


class Family:
    """The plans of one structure: how the graphs that differ in their sizes alone are planned."""

    def __init__(self) -> None:
        self.templates: list[Template] = []
        self.closed = False
        self._seen: Sample | None = None

    def plan(
        self, sizes: Sizes, outputs: Sequence[Node], inputs: Sequence[Node], donated: frozenset[int]
    ) -> Plan:
        """The plan for a graph of this structure, with the sizes that `structure` gave."""
        for i, template in enumerate(self.templates):
            plan = template.plan(sizes)
            if plan is not None:
                if i:
                    self.templates.insert(0, self.templates.pop(i))
                return plan
        before = self._seen
        self._seen = Sample(sizes, tuple([node.shape for node in topological(outputs)]))
        if before is None or self.closed:
            return build(outputs, inputs, donated)
        try:
            template = Template(sizes, before, outputs, inputs, donated)
        except Unsuitable:
            self.closed = True
            return build(outputs, inputs, donated)
        self.templates.insert(0, template)
        self.closed = len(self.templates) >= TEMPLATES_AT_MOST
        plan = template.plan(sizes)
        return build(outputs, inputs, donated) if plan is None else plan


class Template:
    """A plan over formulas.

    Args:
        sizes: of the graph at hand.
        before: of another graph of the same structure: sizes in which both agree are constants.
        outputs: the graph at hand, as for `build`; also `inputs` and `donated`.

    Attributes:
        constants: which sizes must be the same.
        conditions: what else must hold, as text.

    Raises:
        Unsuitable: a rule of an op does not keep to sums, products, quotients and comparisons.
    """

    def __init__(
        self,
        sizes: Sizes,
        before: Sample,
        outputs: Sequence[Node],
        inputs: Sequence[Node],
        donated: frozenset[int],
    ) -> None:
        algebra = Algebra()
        graph = _Graph(algebra, sizes, before, outputs, inputs)
        plan = build(graph.outputs, graph.inputs, donated)
        numbers = _numbers(plan)
        self.constants = graph.constants
        self.conditions = algebra.conditions()
        self._symbols = graph.symbols
        self._values = tuple([sizes[i] for i in self.constants])
        self._evaluate = algebra.compile(numbers)
        # Plain numbers: formulas would keep the whole algebra alive.
        self._plan = _filled(plan, iter([now(n) for n in numbers]))

    def plan(self, sizes: Sizes) -> Plan | None:
        """The plan for other sizes, or `None` where decisions might be other ones."""
        if tuple([sizes[i] for i in self.constants]) != self._values:
            return None
        try:
            numbers = self._evaluate([sizes[i] for i in self._symbols])
        except ZeroDivisionError:
            # Far from where the template was made, a size that others are divided by may be 0.
            return None
        if numbers is None:
            return None
        plan = _filled(self._plan, iter(numbers))
        if settings.check:
            verify_plan(plan)
        return plan


class _Graph:
    """A graph again, with symbols for the sizes that vary.

    A size that has the value of a formula, here and in the graph before, is taken for that; that
    it is, is a condition.
    """

    def __init__(
        self, algebra: Algebra, sizes: Sizes, before: Sample, outputs: Sequence[Node],
        inputs: Sequence[Node],
    ) -> None:  # fmt: skip
        self.algebra = algebra
        self.symbols: list[int] = []
        self.constants: list[int] = []
        self._sizes = sizes
        self._before = before
        self._known: dict[tuple[int, int], Symbolic] = {}
        self._new: dict[Node, Node] = {}
        self._at = 0
        for node in inputs:
            shape = tuple([self._next() for _ in node.shape])
            self._new[node] = Node(node.op, (), node.attrs, shape, node.dtype, site=node.site)
        self.inputs = [self._new[node] for node in inputs]
        for node, shape in zip(topological(outputs), before.shapes, strict=True):
            if node not in self._new:
                self._new[node] = self._remade(node, shape)
        self.outputs = [self._new[node] for node in outputs]

    def _remade(self, node: Node, before: Shape) -> Node:
        inputs = tuple([self._new[i] for i in node.inputs])
        old: list[int] = []
        split(node, old)
        attrs = join(node, iter([self._next() for _ in old])) if old else node.attrs
        try:
            made = make(node.op, inputs, attrs)
        except TreadleError as error:
            raise Unsuitable(str(error)) from error
        for n, value, other in zip(made.shape, node.shape, before, strict=True):
            if both(n) != (value, other):
                raise Unsuitable(f"the shape rule of {node!r} hides how it computes")
            self._note(n)
        made.shape = tuple([self._extent(n) for n in made.shape])
        made.site = node.site
        return made

    def _next(self) -> Any:
        """The next size, as the graph is walked."""
        i = self._at
        self._at += 1
        value, other = self._sizes[i], self._before.sizes[i]
        if value == other:
            self.constants.append(i)
            return value
        self.symbols.append(i)
        if isinstance(value, float):
            return self.algebra.real(value)
        found = self._known.get((value, other))
        if found is None:
            found = self.algebra.symbol(value, other)
            self._note(found)
            for known in list(self._known.values()):
                self._note(found * known)
        else:
            self.algebra.given(found)
        return found

    def _extent(self, number: int) -> int:
        return self.algebra.extent(number) if type(number) is Symbolic else number

    def _note(self, number: int) -> None:
        if type(number) is Symbolic:
            self._known.setdefault(both(number), number)


def _numbers(plan: Plan) -> list[int]:
    """Every number of a plan that may depend on sizes, in the order in which they are filled in."""
    out = [plan.arena_bytes]
    for result in plan.outputs:
        out += (result.nbytes, *result.shape)
    for step in plan.steps:
        _add_numbers(step, out)
    return out


def _add_numbers(step: Step, out: list[int]) -> None:
    if isinstance(step, Launch):
        out += (step.tasks, step.flop, step.bytes, *step.sizes)
        out += [offset for _, offset in step.buffers]
    elif isinstance(step, HostCall):
        split(step.node, out)
        for (_, offset), _, shape in (*step.inputs, step.output):
            out += (offset, *shape)
    else:
        out.append(step.times)
        for inner in step.steps:
            _add_numbers(inner, out)
        _add_leaves(step.advances, out)


def _add_leaves(tree: Any, out: list[int]) -> None:
    if isinstance(tree, tuple):
        for part in tree:
            _add_leaves(part, out)
    else:
        out.append(tree)


def _filled(plan: Plan, numbers: Iterator[int]) -> Plan:
    """A plan with other numbers."""
    arena = next(numbers)
    outputs = []
    for old in plan.outputs:
        nbytes = next(numbers)
        shape = tuple(islice(numbers, len(old.shape)))
        outputs.append(Output(old.slot, old.dtype, shape, nbytes, old.source, old.donated))
    return Plan(
        plan.inputs, tuple(outputs), arena, [_filled_step(step, numbers) for step in plan.steps]
    )


def _filled_step(step: Step, numbers: Iterator[int]) -> Any:
    if isinstance(step, HostCall):
        return _filled_call(step, numbers)
    if isinstance(step, Repeat):
        times = next(numbers)
        inner = tuple([_filled_step(each, numbers) for each in step.steps])
        return Repeat(inner, _filled_leaves(step.advances, numbers), times)
    tasks, flop, nbytes = islice(numbers, 3)
    sizes = tuple(islice(numbers, len(step.sizes)))
    buffers = tuple([(slot, next(numbers)) for slot, _ in step.buffers])
    return Launch(step.kernel, buffers, sizes, tasks, step.label, step.sites, flop, nbytes,
                  step.faults)  # fmt: skip


def _filled_leaves(tree: Any, numbers: Iterator[int]) -> Any:
    if isinstance(tree, tuple):
        return tuple([_filled_leaves(part, numbers) for part in tree])
    return next(numbers)


def _filled_call(step: HostCall, numbers: Iterator[int]) -> HostCall:
    attrs = join(step.node, numbers)
    views = []
    for (slot, _), dtype, old in (*step.inputs, step.output):
        offset = next(numbers)
        views.append(((slot, offset), dtype, tuple(islice(numbers, len(old)))))
    node = step.node
    node = Node(node.op, (), attrs, views[-1][2], node.dtype, site=node.site)
    return HostCall(node, tuple(views[:-1]), views[-1], step.label)
