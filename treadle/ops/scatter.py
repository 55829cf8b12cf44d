"""Scatters that combine what meets by a product or an extremum, on the host."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import IndexBoundsError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops.composed import composed_vjp
from treadle.ops.gather import SCATTER_ALONG, TAKE_ALONG
from treadle.ops.pointwise import CHECK
from treadle.ops.table import Arg, Op, Sample, make, no_lowering, require_same_dtype

np = LazyModule("numpy")


def _infer(x: Any, index: Any, source: Any, axis: int, way: str, own: bool) -> tuple[Shape, DType]:
    return x.shape, require_same_dtype("scatter_reduce", x, source)


def _ref(x: Any, index: Any, source: Any, axis: int, way: str, own: bool) -> Any:
    extent = x.shape[axis]
    where = np.where(index < 0, index + extent, index)
    if ((where < 0) | (where >= extent)).any():
        raise IndexBoundsError(f"index out of range for a dimension of size {extent}")
    at = list(np.indices(index.shape))
    at[axis] = where
    part = source[tuple(slice(0, n) for n in index.shape)]
    out = x.copy()
    if not own:
        # Only places that nothing goes to keep what they had.
        out[tuple(at)] = {"prod": 1, "amax": _least(x.dtype), "amin": _most(x.dtype)}[way]
    combine = {"prod": np.multiply, "amax": np.maximum, "amin": np.minimum}[way]
    combine.at(out, tuple(at), part)
    return out


def _least(dtype: Any) -> Any:
    return -np.inf if dtype.kind in "fV" else np.iinfo(dtype).min


def _most(dtype: Any) -> Any:
    return np.inf if dtype.kind in "fV" else np.iinfo(dtype).max


def _gradient(node: Node, g: Node, i: int) -> Node | None:
    """Of an extremum: shared evenly among those that are it; of a product: the
    product of the others."""
    if i == 1:
        return None
    x, index, source = node.inputs
    axis, way, own = node.attrs
    if way == "prod":
        return make(SCATTER_PROD_GRADIENT, (x, index, source, g), (axis, i, own))
    there = make(TAKE_ALONG, (node, index), (axis,))
    hit = pw.cast(pw.eq(source, there), x.dtype)
    mine = pw.cast(pw.eq(x, node), x.dtype)
    if not own:
        mine = _kept(x, index, axis, mine)
    count = pw.add(mine, make(SCATTER_ALONG, (hit, index), (axis, x.shape)))
    share = pw.div(g, count)
    return pw.mul(mine, share) if i == 0 else pw.mul(
        hit, make(TAKE_ALONG, (share, index), (axis,)))  # fmt: skip


def _kept(x: Node, index: Node, axis: int, value: Node) -> Node:
    """The value where nothing is scattered to, 0 elsewhere."""
    ones = pw.cast(pw.eq(index, index), x.dtype)
    reached = make(SCATTER_ALONG, (ones, index), (axis, x.shape))
    return pw.where(pw.eq(reached, pw.like(0, x)), value, pw.like(0, x))


SCATTER_REDUCE: Final = Op(
    name="scatter_reduce", kind="host", attr_names=("axis", "way", "own"), infer=_infer,
    vjp=_gradient, lower=no_lowering, ref=_ref,
    samples=tuple(
        Sample((Arg((3, 4), dt.float64, 0.5), Arg((3, 5), dt.int64, 0, 4),
                Arg((3, 5), dt.float64, 0.5)), (1, way, own))
        for way in ("prod", "amax", "amin") for own in (True, False)
    ),
    doc="x with the source combined into the places that an index names along an axis",
)  # fmt: skip


# --- the gradient of a product -----------------------------------------------------------------


def _others_infer(
    x: Any, index: Any, source: Any, g: Any, axis: int, i: int, own: bool
) -> tuple[Shape, DType]:
    return (source if i == 2 else x).shape, x.dtype


def _others(node: Node) -> Node:
    """The product of the others, times g: of a factor 0 without it, of all else by dividing."""
    x, index, source, g = node.inputs
    axis, i, own = node.attrs
    mine = source if i == 2 else x
    zero, one = pw.like(0, x), pw.like(1, x)
    nothing = pw.eq(mine, zero)
    safe = pw.where(nothing, one, mine)
    ways = (axis, "prod", own)
    if i == 0:
        rest = pw.div(make(SCATTER_REDUCE, (safe, index, source), ways), safe)
        share = pw.mul(g, rest)
        return share if own else _kept(x, index, axis, share)
    # A 0 that is alone at its place leaves the product of the others; two leave nothing.
    zeros = make(SCATTER_ALONG, (pw.cast(nothing, x.dtype), index), (axis, x.shape))
    alone = pw.both(nothing, pw.eq(make(TAKE_ALONG, (zeros, index), (axis,)), one))
    product = make(SCATTER_REDUCE, (x, index, pw.where(alone, one, source)), ways)
    without = make(TAKE_ALONG, (pw.mul(g, product), index), (axis,))
    whole = make(SCATTER_REDUCE, (x, index, source), ways)
    by_all = make(TAKE_ALONG, (pw.mul(g, whole), index), (axis,))
    return pw.where(alone, without, pw.div(by_all, safe))


def _smooth(inputs: tuple[Node, ...], attrs: tuple[Any, ...]) -> Node:
    """The same where no factor is 0, and a failing run where one is."""
    x, index, source, g = inputs
    axis, i, own = attrs
    message = "scatter_reduce: the second derivative of a product with a factor 0 is not known"
    zero = pw.like(0, x)
    x, source = (make(CHECK, (v, pw.bit_not(pw.eq(v, zero))), (message,)) for v in (x, source))
    product = pw.mul(g, make(SCATTER_REDUCE, (x, index, source), (axis, "prod", own)))
    if i == 2:
        return pw.div(make(TAKE_ALONG, (product, index), (axis,)), source)
    share = pw.div(product, x)
    return share if own else _kept(x, index, axis, share)


def _others_ref(x: Any, index: Any, source: Any, g: Any, axis: int, i: int, own: bool) -> Any:
    out = np.zeros_like(source if i == 2 else x)
    extent = x.shape[axis]
    places: dict[Any, list[Any]] = {}
    for at in np.ndindex(index.shape):
        to = (*at[:axis], int(index[at]) % extent, *at[axis + 1 :])
        places.setdefault(to, []).append(at)
    for to in np.ndindex(x.shape):
        ats = places.get(to, [])
        factors = np.array([x[to] if own or not ats else 1, *(source[at] for at in ats)])
        rest = [g[to] * np.prod(np.delete(factors, k)) for k in range(len(factors))]
        if i == 0:
            out[to] = rest[0] if own or not ats else 0
        else:
            for at, value in zip(ats, rest[1:], strict=True):
                out[at] = value
    return out


SCATTER_PROD_GRADIENT: Final[Op] = Op(
    name="scatter_prod_gradient", kind="composed", attr_names=("axis", "i", "own"),
    infer=_others_infer, vjp=composed_vjp(_smooth), lower=no_lowering, ref=_others_ref,
    samples=tuple(
        Sample((Arg((3, 4), dt.float64, 0.5), Arg((3, 5), dt.int64, 0, 4),
                Arg((3, 5), dt.float64, 0.5), Arg((3, 4), dt.float64)), (1, i, own))
        for i in (0, 2) for own in (True, False)
    ),
    doc="the gradient of a scatter by products for x or the source: the product of the others",
    compose=_others,
)  # fmt: skip
