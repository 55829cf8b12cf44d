"""Recurrences: one step, a graph of its own, repeated along the first axis of what it reads.

A `recurrence` node is the history of one value of the step, all turns stacked. Nodes that tell of
the same step on the same inputs are computed by one loop, so a value costs nothing until somebody
asks for its history. The gradient is a recurrence that runs the other way.
"""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops.body import Body, body_of
from treadle.ops.contract import contract
from treadle.ops.recurrence_gradient import gradients
from treadle.ops.reference import evaluate
from treadle.ops.table import Arg, Op, Sample, input_node, make, no_lowering

np = LazyModule("numpy")


def _infer(*arguments: Any) -> tuple[Shape, DType]:
    *_, body, value, length, _ = arguments
    if value < 0:
        end = body.order[-1 - value]
        return end.shape, end.dtype
    node = body.order[value]
    return (length + (value < body.carries), *node.shape), node.dtype


def _vjp(node: Node, g: Node, i: int) -> Node | None:
    return gradients((node,), (g,), {i}).get(i)


def _ref(*arguments: Any) -> Any:
    *arrays, body, value, length, reverse = arguments
    carries, rest = arrays[: body.carries], arrays[body.carries :]
    slices, constants = rest[: body.slices], rest[body.slices :]
    node = body.order[max(value, -1 - value)]
    nexts = [body.order[i] for i in body.nexts]
    is_carry = 0 <= value < body.carries
    out = np.empty((length + is_carry, *node.shape), node.dtype.numpy)
    for t in range(length)[:: -1 if reverse else 1]:
        given = [*carries, *[x[t] for x in slices], *constants]
        feeds = dict(zip(body.order[: body.leaves], given, strict=True))
        *carries, found = evaluate([*nexts, node], feeds)
        out[t + (is_carry and reverse)] = found
    if value < 0:
        return carries[-1 - value]
    if is_carry:
        out[0 if reverse else length] = carries[value]
    return out


def _sample_body() -> tuple[Body, dict[str, int]]:
    """`h = tanh(w h) + x * c`, `c = c * h`: two carries that depend on each other."""
    h, c, x = (input_node((3,), dt.float64) for _ in range(3))
    w = input_node((3, 3), dt.float64)
    mapped = make(pw.TANH, (contract(w, h, (0, 1), (1,), (0,)),))
    new = pw.add(mapped, pw.mul(x, c))
    body, place = body_of((h, c), (x,), (w,), (new, pw.mul(c, new)))
    return body, {"h": place[h], "c": place[c], "mapped": place[mapped]}


def _samples() -> tuple[Sample, ...]:
    body, places = _sample_body()
    shapes = ((3,), (3,), (4, 3), (3, 3))
    args = tuple(Arg(shape, dt.float64, -0.9, 0.9) for shape in shapes)
    return tuple(
        Sample(args, (body, place, 4, reverse))
        for place in (*places.values(), -1, -2)
        for reverse in (False, True)
    )


RECURRENCE: Final = Op(
    name="recurrence", kind="recurrence", attr_names=("body", "value", "length", "reverse"),
    infer=_infer, vjp=_vjp, lower=no_lowering, ref=_ref, samples=_samples(),
    doc="the history of one value of a step that is repeated along the first axis of its slices, "
    "from the last one if `reverse`; that of a carry is what it was before each turn and, at the "
    "end that is reached last, what it has become, and so longer by one; value -1 - k is what "
    "carry k is in the end",
)  # fmt: skip


def key_of(node: Node) -> Any:
    """What recurrence nodes that one loop computes have in common."""
    body, _, length, reverse = node.attrs
    return node.inputs, body, length, reverse
