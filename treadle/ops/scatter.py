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
from treadle.ops.gather import SCATTER_ALONG, TAKE_ALONG
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
    """Of an extremum: shared evenly among those that are it; of a product: the others."""
    if i == 1:
        return None
    x, index, source = node.inputs
    axis, way, own = node.attrs
    there = make(TAKE_ALONG, (node, index), (axis,))
    if way == "prod":
        if i == 2:
            return pw.div(make(TAKE_ALONG, (pw.mul(g, node), index), (axis,)), source)
        share = pw.div(pw.mul(g, node), x)
        return share if own else _kept(x, index, axis, share)
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
