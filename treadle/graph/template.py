"""Templates: a plan whose sizes are formulas, from which plans for other shapes are filled in.

The second time that a structure comes up with other sizes, its plan is built over `Symbolic`
numbers. What comes out is the plan, its sizes as formulas, and the conditions under which every
pass would decide as it did. Where they hold for a third set of sizes, the new plan is the old one
with its numbers computed anew: the same kernels, and so no new machine code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from treadle.base.algebra import Algebra
from treadle.base.settings import settings
from treadle.base.symbolic import plain
from treadle.graph.build import build
from treadle.graph.formulas import Formulas, Sample, Sizes, Unsuitable, varying
from treadle.graph.plan import HostCall, Launch, Output, Plan, Repeat, Step
from treadle.graph.structure import join, ordered, picker, split
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

    def find(self, sizes: Sizes) -> tuple[Template, tuple[Any, ...]] | None:
        """A template that serves these sizes, and the numbers of their plan."""
        for i, template in enumerate(self.templates):
            tree = template.numbers(sizes)
            if tree is not None:
                if i:
                    self.templates.insert(0, self.templates.pop(i))
                return template, tree
        return None

    def plan(
        self, sizes: Sizes, outputs: Sequence[Node], inputs: Sequence[Node], donated: frozenset[int]
    ) -> Plan:
        """The plan for a graph of this structure, with the sizes that `structure` gave."""
        known = self.find(sizes)
        if known is not None:
            return known[0].filled(known[1])
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
        model: the plan for the sizes at hand.

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
        tree = _tree(plan)
        self.constants = graph.constants
        self.conditions = algebra.conditions()
        self._symbols = graph.symbols
        self._fixed = picker(self.constants)
        self._values = self._fixed(sizes)
        self._evaluate = algebra.compile(tree)
        self.model = _filled(plan, _plain(tree))
        # What the engine makes of the plan once for all sizes.
        self.bindings: dict[Any, Any] = {}

    def only_conditions(self, sizes: Sizes) -> bool:
        """Whether the constants are those of other sizes, which then failed a condition."""
        return bool(self._fixed(sizes) == self._values)

    def plan(self, sizes: Sizes) -> Plan | None:
        """The plan for other sizes, or `None` where decisions might be other ones."""
        tree = self.numbers(sizes)
        return None if tree is None else self.filled(tree)

    def numbers(self, sizes: Sizes) -> tuple[Any, ...] | None:
        """The numbers of that plan."""
        if self._fixed(sizes) != self._values:
            return None
        try:
            tree: tuple[Any, ...] | None = self._evaluate([sizes[i] for i in self._symbols])
        except ZeroDivisionError:
            # Far from where the template was made, a size that others are divided by may be 0.
            return None
        return tree

    def filled(self, tree: tuple[Any, ...]) -> Plan:
        """The plan of some numbers."""
        plan = _filled(self.model, tree)
        if settings.check:
            verify_plan(plan)
        return plan


# --- the numbers of a plan -----------------------------------------------------------------------


def _tree(plan: Plan) -> tuple[Any, ...]:
    """Every number of a plan that may depend on sizes: of the arena, the outputs, the steps."""
    outputs = tuple([(out.nbytes, out.shape) for out in plan.outputs])
    return plan.arena_bytes, outputs, tuple([_step_tree(step) for step in plan.steps])


def _step_tree(step: Step) -> tuple[Any, ...]:
    if isinstance(step, Launch):
        places = tuple([number for place in step.buffers for number in place])
        return places, step.sizes, step.tasks, step.flop, step.bytes
    if isinstance(step, HostCall):
        sizes: list[Any] = []
        split(step.node, sizes)
        views = tuple([(place[1], shape) for place, _, shape in (*step.inputs, step.output)])
        return tuple(sizes), views
    return step.times, tuple([_step_tree(inner) for inner in step.steps]), step.advances


def _plain(tree: Any) -> Any:
    """Numbers without their formulas, which would keep the whole algebra alive."""
    return tuple([_plain(part) for part in tree]) if type(tree) is tuple else plain(tree)


def _filled(plan: Plan, tree: tuple[Any, ...]) -> Plan:
    """A plan with other numbers."""
    arena, results, steps = tree
    outputs = tuple(
        [
            Output(old.slot, old.dtype, shape, nbytes, old.source, old.donated)
            for old, (nbytes, shape) in zip(plan.outputs, results, strict=True)
        ]
    )
    filled = [filled_step(step, part) for step, part in zip(plan.steps, steps, strict=True)]
    return Plan(plan.inputs, outputs, arena, filled)


def filled_step(step: Step, tree: tuple[Any, ...]) -> Any:
    """A step of a template's plan with its numbers."""
    if isinstance(step, HostCall):
        return _filled_call(step, tree)
    if isinstance(step, Repeat):
        times, parts, advances = tree
        inner = [filled_step(each, part) for each, part in zip(step.steps, parts, strict=True)]
        return Repeat(tuple(inner), advances, times)
    places, sizes, tasks, flop, nbytes = tree
    buffers = tuple(zip(places[::2], places[1::2], strict=True))
    return Launch(step.kernel, buffers, sizes, tasks, step.label, step.sites, flop, nbytes,
                  step.faults)  # fmt: skip


def _filled_call(step: HostCall, tree: tuple[Any, ...]) -> HostCall:
    sizes, numbers = tree
    attrs = join(step.node, iter(sizes))
    views = [
        ((slot, offset), dtype, shape)
        for ((slot, _), dtype, _), (offset, shape) in zip(
            (*step.inputs, step.output), numbers, strict=True
        )
    ]
    node = step.node
    node = Node(node.op, (), attrs, views[-1][2], node.dtype, site=node.site)
    return HostCall(node, tuple(views[:-1]), views[-1], step.label)
