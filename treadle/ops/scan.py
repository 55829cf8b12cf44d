"""Scans: running sums, products and extrema along an axis.

Each element combines with all before it along the axis, or with all after it (`reverse`); no
dimension is lost. `combine` is the `Accumulate` operator.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops.composed import composed_vjp
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
    require_same_dtype,
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
    return make(CUMPROD_GRADIENT, (node.inputs[0], g), node.attrs)


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


# --- the gradient of a running product ---------------------------------------------------------
#
#     sum_k>=i g_k prod_j<=k, j!=i x_j  =  (prod_j<i x_j) s_i,   s_i = g_i + x_i+1 s_i+1
#
# The right side holds for all x and has derivatives of every order, but its recurrence is work of
# the host. The passes compute the left one, by running sums and products.


def _two_infer(a: Any, b: Any, axis: int, reverse: bool) -> tuple[Shape, DType]:
    require_same_dtype("linear_scan", a, b)
    return b.shape, require_float("linear_scan", b)


def _shifted(x: Node, axis: int, reverse: bool, value: float) -> Node:
    """Each element in the place of the next one along an axis, and a value in the first."""
    if 0 in x.shape:
        return x
    rank, n = len(x.shape), x.shape[axis]
    first = full(tuple([1 if d == axis else m for d, m in enumerate(x.shape)]), value, x.dtype)
    starts = tuple([int(reverse) if d == axis else 0 for d in range(rank)])
    stops = tuple([n - 1 + int(reverse) if d == axis else m for d, m in enumerate(x.shape)])
    rest = slice_(x, starts, stops, (1,) * rank)
    return make(JOIN, (rest, first) if reverse else (first, rest), (axis,))


def _linear_gradient(node: Node, g: Node, i: int) -> Node:
    a = node.inputs[0]
    axis, reverse = node.attrs
    own = make(LINEAR_SCAN, (_shifted(a, axis, not reverse, 0), g), (axis, not reverse))
    return own if i == 1 else pw.mul(own, _shifted(node, axis, reverse, 0))


def _linear_ref(a: Any, b: Any, axis: int, reverse: bool) -> Any:
    wide = np.float64 if b.dtype.itemsize == 8 else np.float32
    turn = slice(None, None, -1 if reverse else 1)
    p, q = (np.moveaxis(x, axis, 0).astype(wide)[turn] for x in (a, b))
    return np.moveaxis(_linear(p, q)[turn], 0, axis).astype(b.dtype)


_LONG: Final = 256
"""Elements along the axis from which a linear recurrence is done in pieces side by side."""


def _linear(a: Any, b: Any) -> Any:
    """`s[i] = b[i] + a[i] * s[i-1]` along the first axis."""
    n = len(b)
    if n >= _LONG and 2 * n > b[0].size:
        length = math.isqrt(n)
        short = [(0, -n % length)] + [(0, 0)] * (b.ndim - 1)
        p, q = (
            np.pad(x, short).reshape(-1, length, *b.shape[1:]).swapaxes(0, 1) for x in (a, b)
        )  # fmt: skip
        through, own = np.cumprod(p, 0), _linear(p, q)
        ends = _linear(through[-1], own[-1])
        own[:, 1:] += through[:, 1:] * ends[:-1]
        return own.swapaxes(0, 1).reshape(-1, *b.shape[1:])[:n]
    out = b.copy()
    for i in range(1, n):
        out[i] += a[i] * out[i - 1]
    return out


_TWO: Final = tuple(
    Sample((Arg(shape, d), Arg(shape, d)), attrs)
    for d in (dt.float32, dt.float64)
    for shape, attrs in (((3, 5), (1, False)), ((2, 3, 4), (1, True)), ((6,), (0, False)))
)

LINEAR_SCAN: Final[Op] = Op(
    name="linear_scan", kind="host", attr_names=("axis", "reverse"), infer=_two_infer,
    vjp=_linear_gradient, lower=no_lowering, ref=_linear_ref, samples=_TWO,
    doc="s_i = b_i + a_i s_i-1 along an axis, of inputs a and b, or s_i = b_i + a_i s_i+1",
)  # fmt: skip


def _by_sums(node: Node) -> Node:
    """The gradient of a running product without dividing by the first 0 along the axis.

    Behind the first 0 every product vanishes. With a 1 in its place the products are those that
    its own gradient is made of, up to the second 0.
    """
    axis, reverse = node.attrs
    x, g = node.inputs
    zero, one = pw.like(0, x), pw.like(1, x)
    nothing = pw.eq(x, zero)
    seen = cumsum(pw.cast(nothing, dt.int64), axis, reverse)
    first = pw.both(nothing, pw.eq(seen, pw.like(1, seen)))
    through = make(CUMPROD, (pw.where(first, one, x),), node.attrs)
    products = make(CUMPROD, (x,), node.attrs)
    plain = pw.div(cumsum(pw.mul(g, products), axis, not reverse), pw.where(nothing, one, x))
    own = cumsum(pw.mul(g, through), axis, not reverse)
    return pw.where(first, own, pw.where(nothing, zero, plain))


def _by_recurrence(inputs: tuple[Node, ...], attrs: tuple[Any, ...]) -> Node:
    x, g = inputs
    axis, reverse = attrs
    later = make(LINEAR_SCAN, (_shifted(x, axis, not reverse, 0), g), (axis, not reverse))
    return pw.mul(_shifted(make(CUMPROD, (x,), attrs), axis, reverse, 1), later)


def _through_ref(x: Any, g: Any, axis: int, reverse: bool) -> Any:
    turn = slice(None, None, -1 if reverse else 1)
    a, b = (np.moveaxis(v, axis, 0)[turn] for v in (x, g))
    before = np.cumprod(np.concatenate([np.ones_like(a[:1]), a[:-1]]), 0, a.dtype)
    behind = np.concatenate([a[1:], np.zeros_like(a[:1])])
    out = before * _linear(behind[::-1], b[::-1])[::-1]
    return np.moveaxis(out[turn], 0, axis)


CUMPROD_GRADIENT: Final[Op] = Op(
    name="cumprod_gradient", kind="composed", attr_names=("axis", "reverse"), infer=_two_infer,
    vjp=composed_vjp(_by_recurrence), lower=no_lowering, ref=_through_ref, samples=_TWO,
    doc="the gradient of cumprod, from its input and the gradient of its result",
    compose=_by_sums,
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
