"""From a graph to its plan: every pass in its order."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.base.errors import VerifyError
from treadle.base.settings import settings
from treadle.graph.attention import lower_attention
from treadle.graph.border import lower_border
from treadle.graph.columns import lower_columns
from treadle.graph.contraction import lower_contraction
from treadle.graph.convolution import expand_convolutions
from treadle.graph.expand import expand
from treadle.graph.fuse import Fusion
from treadle.graph.join_parts import lower_join
from treadle.graph.joins import join_slices
from treadle.graph.loops import lower_loops
from treadle.graph.memory import lay_out, nbytes
from treadle.graph.plan import HostCall, Launch, Output, Place, Plan
from treadle.graph.recurrence import Results, Turn, lift, lower, results_of, turn_of
from treadle.graph.scans import lower_scan
from treadle.graph.scatter import lower_scatter
from treadle.graph.schedule import Step, donate, sort, steps_of
from treadle.graph.simplify import simplify
from treadle.graph.verify import verify_graph, verify_plan
from treadle.ir.node import Node
from treadle.ops.gather import JOIN
from treadle.ops.view import RESHAPE


def build(
    outputs: Sequence[Node], inputs: Sequence[Node], donated: frozenset[int] = frozenset()
) -> Plan:
    """The plan that computes `outputs` from `inputs`.

    Args:
        outputs: the results, in order; one may be an input, or stand there twice.
        inputs: every input node that the outputs depend on, in the order of the slots.
        donated: positions of inputs whose memory nobody reads afterwards.

    Returns:
        The plan; `Output.donated` and `Output.source` say whose memory an output shares.

    Raises:
        VerifyError: an output depends on an input that is not listed.
    """
    return _assemble(run_passes(outputs), outputs, inputs, donated)


def run_passes(outputs: Sequence[Node]) -> list[Node]:
    """The graph passes: each is Graph to Graph."""
    roots = list(outputs)
    for each in (simplify, _lift, join_slices, expand_convolutions, expand, simplify):
        roots = each(roots)
        if settings.check:
            verify_graph(roots)
    return roots


def _lift(outputs: Sequence[Node]) -> list[Node]:
    return lift(outputs, run_passes)


def _turn(outputs: Sequence[Node], inputs: Sequence[Node]) -> Plan:
    return _assemble(outputs, outputs, inputs, frozenset())


def _assemble(
    roots: Sequence[Node],
    outputs: Sequence[Node],
    inputs: Sequence[Node],
    donated: frozenset[int],
) -> Plan:
    """The plan of a graph that went through the passes."""
    bases = [_unshaped(r) for r in roots]
    described = _describe_outputs(outputs, bases, inputs)
    own = {b: i for i, b in enumerate(bases) if described[i].source is None}
    fusion = Fusion(list(own), inputs)
    for node in fusion.found.order:
        if node.op.kind == "input" and node not in fusion.layouts:
            raise VerifyError(f"the graph reads an input that the plan is not given: {node!r}")
    steps = steps_of(fusion)
    kept = {out.source[1] for out in described if out.source and out.source[0] == "input"}
    free = {inputs[i]: i for i in sorted(donated - kept)}
    taken = donate(steps, own, free)
    steps = sort(steps)
    loops = {step.group: _prepare_loop(step) for step in steps if step.group.histories}
    fixed: dict[Node, Place] = {n: (i, 0) for i, n in enumerate(inputs)}
    for node, i in own.items():
        fixed[node] = (len(inputs) + i, 0)
        if node in taken:
            described[i] = _taking_over(described[i], free[taken[node]])
            fixed[node] = (free[taken[node]], 0)
    places, size = lay_out(steps, fixed, fusion.padding, len(inputs) + len(outputs))
    plan = Plan(len(inputs), tuple(described), size)
    for step in steps:
        if step.group in loops:
            turn, results = loops[step.group]
            node = step.group.histories[0]
            plan.steps += lower(node, turn, fusion.found.strips[node], results, places)
        else:
            plan.steps += _lower(step, fusion, places)
    if settings.check:
        verify_plan(plan)
    return plan


def _unshaped(node: Node) -> Node:
    """A node without the reshapes that end it: they do not move anything."""
    while node.op is RESHAPE:
        node = node.inputs[0]
    return node


def _describe_outputs(
    outputs: Sequence[Node], bases: Sequence[Node], inputs: Sequence[Node]
) -> list[Output]:
    given = {n: i for i, n in enumerate(inputs)}
    first: dict[Node, int] = {}
    out: list[Output] = []
    for i, (node, base) in enumerate(zip(outputs, bases, strict=True)):
        source: tuple[str, int] | None = None
        if base in given:
            source = ("input", given[base])
        elif first.setdefault(base, i) != i:
            source = ("output", first[base])
        out.append(Output(len(inputs) + i, node.dtype, node.shape, nbytes(node), source))
    return out


def _taking_over(out: Output, donated: int) -> Output:
    return Output(out.slot, out.dtype, out.shape, out.nbytes, None, donated)


def _lower(step: Step, fusion: Fusion, places: dict[Node, Place]) -> list[Launch | HostCall]:
    group = step.group
    if all(nbytes(n) == 0 for n in step.stored):
        return []
    if group.kind == "contract":
        return [lower_contraction(group, step.stored, fusion.layouts, places)]
    if group.kind == "attention":
        return [lower_attention(group, step.stored, fusion.layouts, places)]
    if group.kind == "columns":
        return [lower_columns(group, step.stored, fusion.layouts, places)]
    if group.kind == "loops":
        return [lower_loops(group, step.stored, fusion.layouts, places)]
    if group.kind == "join":
        return list(lower_join(group, step.stored, fusion.layouts, places))
    if group.kind == "scan":
        return [lower_scan(group, step.stored, fusion.layouts, places)]
    if group.kind == "scatter":
        return list(lower_scatter(group, fusion.layouts, places))
    node = group.node
    assert node is not None
    if group.kind == "border":
        # The parts of a join fill it: there is no border.
        return [] if node.op is JOIN else [lower_border(node, places)]
    reads = tuple([(places[x], x.dtype, x.shape) for x in node.inputs])
    return [HostCall(node, reads, (places[node], node.dtype, node.shape), node.op.name)]


def _prepare_loop(step: Step) -> tuple[Turn, Results]:
    """Plans one turn of a recurrence; the step stores what the turn needs besides its results."""
    body, _, length, _ = step.group.histories[0].attrs
    values = tuple(sorted(v for n in step.stored if (v := n.attrs[1]) >= body.carries))
    turn = turn_of(body, values, _turn)
    results = results_of(body, length, turn, step.stored)
    buffers = [b for buffers in results.carries for b in buffers]
    step.stored += [*[b for b in buffers if b not in step.stored], results.scratch]
    return turn, results
