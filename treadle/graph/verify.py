"""Checks that a graph and a plan keep their own rules; run after every pass under TREADLE_CHECK."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.base.errors import VerifyError
from treadle.graph.plan import HostCall, Launch, Plan, unrolled
from treadle.ir.loop import Kernel
from treadle.ir.node import Node, topological


def verify_graph(outputs: Sequence[Node]) -> None:
    """Every node has the shape and dtype that its op gives it; raises `VerifyError`."""
    for node in topological(outputs):
        if node.op.kind == "input":
            continue
        if len(node.attrs) != len(node.op.attr_names):
            raise VerifyError(f"{node!r} has {len(node.attrs)} attributes")
        shape, dtype = node.op.infer(*node.inputs, *node.attrs)
        if tuple(shape) != node.shape or dtype is not node.dtype:
            raise VerifyError(f"{node!r} should be {dtype.name}{list(shape)}")


def verify_plan(plan: Plan) -> None:
    """Every step names slots that there are and sizes that its kernel has; raises `VerifyError`."""
    written = set(range(plan.inputs))
    for i, step in enumerate(unrolled(plan.steps)):
        if isinstance(step, HostCall):
            places = [p for p, _, _ in step.inputs] + [step.output[0]]
            written.add(step.output[0][0])
        else:
            places = list(step.buffers)
            _verify_launch(i, step)
            params = zip(step.params, step.buffers, strict=True)
            written |= {place[0] for param, place in params if param.mode != "in"}
        for slot, offset in places:
            if not 0 <= slot <= plan.arena_slot or offset < 0:
                raise VerifyError(f"step {i} uses slot {slot} at {offset}, which is not there")
            if slot == plan.arena_slot and offset >= max(plan.arena_bytes, 1):
                raise VerifyError(f"step {i} reaches byte {offset} of the arena")
    for i, out in enumerate(plan.outputs):
        if out.source is None and out.donated is None and out.nbytes and out.slot not in written:
            raise VerifyError(f"output {i} is never written")


def _verify_launch(i: int, step: Launch) -> None:
    kernel = step.kernel
    if len(step.sizes) != kernel.sizes:
        raise VerifyError(f"step {i} has {len(step.sizes)} sizes for {kernel.sizes}")
    if len(step.buffers) != len(step.params):
        raise VerifyError(f"step {i} has {len(step.buffers)} buffers for {len(step.params)}")
    if isinstance(kernel, Kernel) and step.tasks < 1:
        raise VerifyError(f"step {i} has no task")
