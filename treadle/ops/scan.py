"""Scans: running sums and products along an axis."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops.table import Arg, Op, Sample, make, no_lowering, per_input, require_float

np = LazyModule("numpy")


def _infer(x: Any, axis: int, reverse: bool) -> tuple[Shape, DType]:
    return x.shape, x.dtype


def _along(x: Any, axis: int, reverse: bool, accumulate: Any) -> Any:
    if reverse:
        return np.flip(accumulate(np.flip(x, axis), axis), axis)
    return accumulate(x, axis)


def _sum_ref(x: Any, axis: int, reverse: bool) -> Any:
    return _along(x, axis, reverse, lambda a, i: np.cumsum(a, i, a.dtype))


def _prod_ref(x: Any, axis: int, reverse: bool) -> Any:
    return _along(x, axis, reverse, lambda a, i: np.cumprod(a, i, a.dtype))


def _sum_gradient(node: Node, g: Node) -> Node:
    axis, reverse = node.attrs
    return cumsum(g, axis, not reverse)


def _prod_gradient(node: Node, g: Node) -> Node:
    """`sum_k>=i g_k prod_j<=k, j!=i x_j`, without dividing by the first 0 along the axis.

    Behind the first 0 every product vanishes. With a 1 in its place the products are those that
    its own gradient is made of, up to the second 0.
    """
    axis, reverse = node.attrs
    x = node.inputs[0]
    zero, one = pw.like(0, x), pw.like(1, x)
    nothing = pw.eq(x, zero)
    seen = cumsum(pw.cast(nothing, dt.int64), axis, reverse)
    first = pw.both(nothing, pw.eq(seen, pw.like(1, seen)))
    through = make(CUMPROD, (pw.where(first, one, x),), node.attrs)
    plain = pw.div(cumsum(pw.mul(g, node), axis, not reverse), pw.where(nothing, one, x))
    own = cumsum(pw.mul(g, through), axis, not reverse)
    return pw.where(first, own, pw.where(nothing, zero, plain))


_SAMPLES: Final = tuple(
    Sample((Arg(shape, d, 0.3),), attrs)
    for d in (dt.float32, dt.float64, dt.int64)
    for shape, attrs in (((3, 5), (1, False)), ((2, 3, 4), (1, True)), ((6,), (0, False)))
)

CUMSUM: Final[Op] = Op(
    name="cumsum", kind="host", attr_names=("axis", "reverse"), infer=_infer,
    vjp=per_input(_sum_gradient), lower=no_lowering, ref=_sum_ref, samples=_SAMPLES,
    doc="the sum of the elements up to each along an axis, or from each on", combine="add",
)  # fmt: skip
CUMPROD: Final[Op] = Op(
    name="cumprod", kind="host", attr_names=("axis", "reverse"), infer=_infer,
    vjp=per_input(_prod_gradient), lower=no_lowering, ref=_prod_ref, samples=_SAMPLES,
    doc="the product of the elements up to each along an axis, or from each on", combine="mul",
)  # fmt: skip


def _logsum_infer(x: Any, axis: int, reverse: bool) -> tuple[Shape, DType]:
    require_float("logcumsumexp", x)
    return x.shape, x.dtype


def _logsum_ref(x: Any, axis: int, reverse: bool) -> Any:
    return _along(x, axis, reverse, np.logaddexp.accumulate).astype(x.dtype)


def _logsum_gradient(node: Node, g: Node) -> Node:
    """`exp(x_i) sum_k>=i g_k exp(-y_k)`, in logarithms for each sign of g: neither factor need
    be in range."""
    axis, reverse = node.attrs
    x = node.inputs[0]
    zero, none = pw.like(0, x), pw.like(float("-inf"), x)

    def part(weight: Node) -> Node:
        some = pw.gt(weight, zero)
        log = pw.log(pw.where(some, weight, pw.like(1, x)))
        # Chosen after the subtraction: node may be -inf as well, where nothing came before it.
        terms = pw.where(some, pw.sub(log, pw.where(some, node, pw.like(0, x))), none)
        later = make(LOGCUMSUMEXP, (terms,), (axis, not reverse))
        return pw.exp(pw.add(later, x))

    return pw.sub(part(g), part(pw.neg(g)))


LOGCUMSUMEXP: Final[Op] = Op(
    name="logcumsumexp", kind="host", attr_names=("axis", "reverse"), infer=_logsum_infer,
    vjp=per_input(_logsum_gradient), lower=no_lowering, ref=_logsum_ref,
    samples=tuple(s for s in _SAMPLES if s.args[0].dtype.is_floating_point),
    doc="log of the sum of exp of the elements up to each along an axis, or from each on",
    combine="logaddexp",
)  # fmt: skip


def cumsum(x: Node, axis: int, reverse: bool = False) -> Node:
    """The running sum along an axis."""
    return make(CUMSUM, (x,), (axis, reverse))
