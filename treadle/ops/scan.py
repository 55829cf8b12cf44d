"""Scans: running sums, products and extrema along an axis.

Each element combines with all before it along the axis, or with all after it (`reverse`); no
dimension is lost. `combine` is the `Accumulate` operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops.gather import JOIN, SCATTER_ALONG
from treadle.ops.source import full, iota
from treadle.ops.table import (
    Arg,
    Op,
    Sample,
    make,
    no_lowering,
    not_differentiable,
    per_input,
    require_float,
)
from treadle.ops.view import slice_

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
    name="cumsum", kind="scan", attr_names=("axis", "reverse"), infer=_infer,
    vjp=per_input(_sum_gradient), lower=no_lowering, ref=_sum_ref, samples=_SAMPLES,
    doc="the sum of the elements up to each along an axis, or from each on", combine="add",
)  # fmt: skip
CUMPROD: Final[Op] = Op(
    name="cumprod", kind="scan", attr_names=("axis", "reverse"), infer=_infer,
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
    name="logcumsumexp", kind="scan", attr_names=("axis", "reverse"), infer=_logsum_infer,
    vjp=per_input(_logsum_gradient), lower=no_lowering, ref=_logsum_ref,
    samples=tuple(s for s in _SAMPLES if s.args[0].dtype.is_floating_point),
    doc="log of the sum of exp of the elements up to each along an axis, or from each on",
    combine="logaddexp",
)  # fmt: skip


# --- extrema ----------------------------------------------------------------------------------


def place_of(x: Node, best: Node, axis: int, reverse: bool = False) -> Node:
    """The position of each running extremum: of the last element that is one, or the last NaN.

    An element is a new extremum where it equals the running one, so its position is the last of
    such positions: a running maximum again.
    """
    hit = pw.eq(x, best)
    if x.dtype.is_floating_point:
        hit = pw.either(hit, pw.bit_not(pw.eq(x, x)))
    position = iota(x.shape, axis)
    none = pw.like(x.shape[axis] if reverse else -1, position)
    return make(CUMMIN if reverse else CUMMAX, (pw.where(hit, position, none),), (axis, reverse))


def _extremum_gradient(node: Node, g: Node) -> Node:
    x = node.inputs[0]
    axis, reverse = node.attrs
    return make(SCATTER_ALONG, (g, place_of(x, node, axis, reverse)), (axis, x.shape))


def _extremum(name: str, combine: str, doc: str, accumulate: Callable[[Any, int], Any]) -> Op:
    return Op(
        name=name, kind="scan", attr_names=("axis", "reverse"), infer=_infer,
        vjp=per_input(_extremum_gradient), lower=no_lowering,
        ref=lambda x, axis, reverse: _along(x, axis, reverse, accumulate), samples=_SAMPLES,
        doc=doc, combine=combine,
    )  # fmt: skip


CUMMAX: Final[Op] = _extremum(
    "cummax", "max", "the largest of the elements up to each along an axis, NaN from the first on",
    lambda a, i: np.maximum.accumulate(a, i),
)  # fmt: skip
CUMMIN: Final[Op] = _extremum(
    "cummin", "min", "the smallest of the elements up to each along an axis, NaN from the first on",
    lambda a, i: np.minimum.accumulate(a, i),
)  # fmt: skip


# --- long scans in pieces ---------------------------------------------------------------------

_UFUNCS: Final = {
    "add": "add", "mul": "multiply", "max": "maximum", "min": "minimum", "logaddexp": "logaddexp",
}  # fmt: skip


def _pieces_infer(
    x: Any, starts: Any, axis: int, combine: str, reverse: bool, chunk: int
) -> tuple[Shape, DType]:
    return x.shape, x.dtype


def _pieces_ref(x: Any, starts: Any, axis: int, combine: str, reverse: bool, chunk: int) -> Any:
    ufunc = getattr(np, _UFUNCS[combine])
    values, starts = np.moveaxis(x, axis, 0), np.moveaxis(starts, axis, 0)
    if reverse:
        values = values[::-1]
    out = np.concatenate([
        ufunc(starts[i], ufunc.accumulate(values[i * chunk : (i + 1) * chunk], 0, x.dtype))
        for i in range(len(starts))
    ])  # fmt: skip
    return np.moveaxis(out[::-1] if reverse else out, 0, axis)


SCAN_PIECES: Final[Op] = Op(
    name="scan_pieces", kind="scan", attr_names=("axis", "combine", "reverse", "chunk"),
    infer=_pieces_infer, vjp=not_differentiable, lower=no_lowering, ref=_pieces_ref,
    samples=(
        Sample((Arg((7, 5)), Arg((3, 5))), (0, "add", False, 3)),
        Sample((Arg((2, 9)), Arg((2, 3))), (1, "max", True, 4)),
    ),
    doc="scans by pieces of `chunk` along an axis, each with a start of its own: what the planner "
    "splits long scans into, so that pieces run in parallel and the partition never changes",
)  # fmt: skip


def starts_of(totals: Node, axis: int, combine: str, neutral: Any) -> Node:
    """What comes before each piece, of the totals of the pieces in order."""
    op = _BY_COMBINE[combine]
    upto = make(op, (totals,), (axis, False))
    first = [n if d != axis else 1 for d, n in enumerate(totals.shape)]
    stops = [n if d != axis else n - 1 for d, n in enumerate(totals.shape)]
    rank = len(first)
    rest = slice_(upto, (0,) * rank, tuple(stops), (1,) * rank)
    return make(JOIN, (full(tuple(first), neutral, totals.dtype), rest), (axis,))


_BY_COMBINE: Final = {op.combine: op for op in (CUMSUM, CUMPROD, LOGCUMSUMEXP, CUMMAX, CUMMIN)}


def cumsum(x: Node, axis: int, reverse: bool = False) -> Node:
    """The running sum along an axis."""
    return make(CUMSUM, (x,), (axis, reverse))
