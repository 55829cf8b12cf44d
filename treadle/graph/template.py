"""Templates: a plan whose sizes are formulas, from which plans for other shapes are filled in.

The second time that a structure comes up with other sizes, its plan is built over `Symbolic`
numbers. What comes out is the plan, its sizes as formulas, and the conditions under which every
pass would decide as it did. Where they hold for a third set of sizes, the new plan is the old one
with its numbers computed anew: the same kernels, and so no new machine code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

from treadle.base.algebra import Algebra
from treadle.base.settings import settings
from treadle.base.symbolic import now
from treadle.graph.build import build
from treadle.graph.formulas import Formulas, Sample, Sizes, Unsuitable, varying
from treadle.graph.plan import HostCall, Launch, Output, Plan, Repeat, Step
from treadle.graph.structure import join, ordered, split
from treadle.graph.verify import verify_plan
from treadle.ir.node import Node

TEMPLATES_AT_MOST: Final = 32
"""Of one structure; each is for a range of sizes in which the same decisions are right."""

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
        self._seen = Sample(sizes, tuple([node.shape for node in ordered(outputs, inputs)]))
        if before is None or self.closed:
            return build(outputs, inputs, donated)
        vary = next((t.vary for t in self.templates if t.only_conditions(sizes)), None)
        try:
            template = Template(sizes, before, outputs, inputs, donated, vary)
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
        vary: the sizes that are no constants, if others than those.

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
        vary: frozenset[int] | None = None,
    ) -> None:
        algebra = Algebra()
        self.vary = varying(sizes, before.sizes) if vary is None else vary
        graph = Formulas(algebra, ordered(outputs, inputs), sizes, before, self.vary)
        new = graph.new
        plan = build([new[node] for node in outputs], [new[node] for node in inputs], donated)
        numbers = _numbers(plan)
        self.constants = graph.constants
        self.conditions = algebra.conditions()
        self._symbols = graph.symbols
        self._values = tuple([sizes[i] for i in self.constants])
        self._evaluate = algebra.compile(numbers)
        # Plain numbers: formulas would keep the whole algebra alive.
        self._plan = _filled(plan, iter([now(n) for n in numbers]))

    def only_conditions(self, sizes: Sizes) -> bool:
        """Whether the constants are those of other sizes, which then failed a condition."""
        return tuple([sizes[i] for i in self.constants]) == self._values

    def plan(self, sizes: Sizes) -> Plan | None:
        """The plan for other sizes, or `None` where decisions might be other ones."""
        if not self.only_conditions(sizes):
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
