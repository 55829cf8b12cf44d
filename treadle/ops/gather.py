"""Reading and writing at computed positions."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.loop import Binary, Const, Expr, Intrinsic, Select
from treadle.ir.node import Node
from treadle.ops.table import (
    Arg,
    Index,
    Op,
    Read,
    Sample,
    integer,
    make,
    no_lowering,
    per_input,
    require_same_dtype,
)
from treadle.ops.view import clamp, slice_

np = LazyModule("numpy")


def _require_index(name: str, index: Any) -> None:
    if index.dtype is not dt.int64:
        raise DTypeError(f"{name}: the index must be int64, got {index.dtype.name}")


def bounded(i: Expr, extent: int) -> Expr:
    """An index made non-negative and clamped; the run fails where it is out of bounds."""
    wrapped = Select(Binary("lt", i, integer(0)), Binary("add", i, integer(extent)), i)
    ok = Binary("and", Binary("ge", wrapped, integer(0)), Binary("lt", wrapped, integer(extent)))
    message = f"index out of range for a dimension of size {extent}"
    return Intrinsic("check", (clamp(wrapped, extent), ok, Const(message)), dt.int64)


def _take_infer(x: Any, index: Any, axis: int) -> tuple[Shape, DType]:
    _require_index("index", index)
    if x.shape[axis] == 0 and sh.count(index.shape):
        raise ShapeError(f"cannot index dimension {axis} of {tuple(x.shape)}: it is empty")
    return (*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]), x.dtype


def _take_lower(node: Node, index: Index, read: Read) -> Expr:
    (axis,) = node.attrs
    x, where = node.inputs
    rank = len(where.shape)
    at = bounded(read(1, index[axis : axis + rank]), x.shape[axis])
    return read(0, (*index[:axis], at, *index[axis + rank :]))


def _take_gradient(node: Node, g: Node) -> Node:
    x, index = node.inputs
    return make(SCATTER_ADD, (g, index), (node.attrs[0], x.shape[node.attrs[0]]))


TAKE: Final = Op(
    name="take", kind="gather", attr_names=("axis",), infer=_take_infer,
    vjp=per_input(_take_gradient, lambda n, g: None), lower=_take_lower,
    ref=lambda x, index, axis: np.take(x, index, axis),
    samples=(
        Sample((Arg((5, 3)), Arg((4,), dt.int64, 0, 5)), (0,)),
        Sample((Arg((2, 5, 3)), Arg((2, 2), dt.int64, -5, 5)), (1,)),
    ),
    doc="the slices of x along an axis at an index of any shape",
)  # fmt: skip


def _scatter_infer(g: Any, index: Any, axis: int, extent: int) -> tuple[Shape, DType]:
    _require_index("index", index)
    rank = len(index.shape)
    return (*g.shape[:axis], extent, *g.shape[axis + rank :]), g.dtype


def _scatter_ref(g: Any, index: Any, axis: int, extent: int) -> Any:
    rank = index.ndim
    out = np.zeros((extent, *g.shape[:axis], *g.shape[axis + rank :]), g.dtype)
    front = np.moveaxis(g, tuple(range(axis, axis + rank)), tuple(range(rank)))
    np.add.at(out, index, front)
    return np.moveaxis(out, 0, axis)


def _scatter_gradient(node: Node, g: Node) -> Node:
    return make(TAKE, (g, node.inputs[1]), (node.attrs[0],))


SCATTER_ADD: Final = Op(
    name="scatter_add", kind="scatter", attr_names=("axis", "extent"), infer=_scatter_infer,
    vjp=per_input(_scatter_gradient, lambda n, g: None), lower=no_lowering, ref=_scatter_ref,
    samples=(
        Sample((Arg((4, 3)), Arg((4,), dt.int64, 0, 5)), (0, 5)),
        Sample((Arg((2, 2, 2, 3)), Arg((2, 2), dt.int64, 0, 5)), (1, 5)),
    ),
    doc="zeros, to which the slices of g are added at an index along an axis: the adjoint of take",
)  # fmt: skip


def _along_infer(x: Any, index: Any, axis: int) -> tuple[Shape, DType]:
    _require_index("gather", index)
    if len(x.shape) != len(index.shape):
        raise ShapeError(
            f"gather: index {tuple(index.shape)} and input {tuple(x.shape)} differ in rank"
        )
    for i, (m, n) in enumerate(zip(index.shape, x.shape, strict=True)):
        if i != axis and m > n:
            raise ShapeError(
                f"gather: index {tuple(index.shape)} is larger than the input "
                f"{tuple(x.shape)} in dimension {i}"
            )
    return index.shape, x.dtype


def _along_lower(node: Node, index: Index, read: Read) -> Expr:
    (axis,) = node.attrs
    at = bounded(read(1, index), node.inputs[0].shape[axis])
    return read(0, (*index[:axis], at, *index[axis + 1 :]))


def _along_gradient(node: Node, g: Node) -> Node:
    x, index = node.inputs
    return make(SCATTER_ALONG, (g, index), (node.attrs[0], x.shape))


TAKE_ALONG: Final = Op(
    name="take_along", kind="gather", attr_names=("axis",), infer=_along_infer,
    vjp=per_input(_along_gradient, lambda n, g: None), lower=_along_lower,
    ref=lambda x, index, axis: np.take_along_axis(
        x[tuple(slice(0, m) if i != axis else slice(None) for i, m in enumerate(index.shape))],
        index, axis),
    samples=(
        Sample((Arg((3, 5)), Arg((3, 2), dt.int64, 0, 5)), (1,)),
        Sample((Arg((4, 5)), Arg((2, 3), dt.int64, 0, 4)), (0,)),
    ),
    doc="out[.., i, ..] = x[.., index[.., i, ..], ..] (gather)",
)  # fmt: skip


def _scatter_along_infer(g: Any, index: Any, axis: int, shape: Shape) -> tuple[Shape, DType]:
    _require_index("scatter", index)
    return shape, g.dtype


def _scatter_along_ref(g: Any, index: Any, axis: int, shape: Shape) -> Any:
    out = np.zeros(shape, g.dtype)
    at = list(np.indices(index.shape))
    at[axis] = index
    np.add.at(out, tuple(at), g[tuple(slice(0, m) for m in index.shape)])
    return out


def _scatter_along_gradient(node: Node, g: Node) -> Node:
    return make(TAKE_ALONG, (g, node.inputs[1]), (node.attrs[0],))


SCATTER_ALONG: Final = Op(
    name="scatter_along", kind="scatter", attr_names=("axis", "shape"),
    infer=_scatter_along_infer, vjp=per_input(_scatter_along_gradient, lambda n, g: None),
    lower=no_lowering, ref=_scatter_along_ref,
    samples=(
        Sample((Arg((3, 2)), Arg((3, 2), dt.int64, 0, 5)), (1, (3, 5))),
        Sample((Arg((2, 3)), Arg((2, 3), dt.int64, 0, 4)), (0, (4, 5))),
    ),
    doc="zeros, to which g is added at index along one axis: the adjoint of take_along",
)  # fmt: skip


def _join_infer(*inputs: Any) -> tuple[Shape, DType]:
    *parts, axis = inputs
    shape = list(parts[0].shape)
    shape[axis] = sum(x.shape[axis] for x in parts)
    return tuple(shape), require_same_dtype("cat", *parts)


def _join_lower(node: Node, index: Index, read: Read) -> Expr:
    (axis,) = node.attrs
    i = index[axis]
    start = node.shape[axis]
    tiles = len({x.shape[axis] for x in node.inputs}) == 1
    value: Expr | None = None
    for k in reversed(range(len(node.inputs))):
        extent = node.inputs[k].shape[axis]
        start -= extent
        if extent == 0:
            continue
        shifted = i if start == 0 else Binary("sub", i, integer(start))
        # Both are the place where it is inside; a remainder leaves a loop over tiles straight.
        place = Binary("mod", i, integer(extent)) if tiles else clamp(shifted, extent)
        part = read(k, (*index[:axis], place, *index[axis + 1 :]))
        inside = Binary("lt", i, integer(start + extent))
        value = part if value is None else Select(inside, part, value)
    return Const(0, node.dtype) if value is None else value


def _join_gradient(node: Node, g: Node, i: int) -> Node:
    (axis,) = node.attrs
    start = sum(x.shape[axis] for x in node.inputs[:i])
    shape = node.inputs[i].shape
    starts = tuple(start if a == axis else 0 for a in range(len(shape)))
    stops = tuple(a + n for a, n in zip(starts, shape, strict=True))
    return slice_(g, starts, stops, (1,) * len(shape))


def _join_ref(*inputs: Any) -> Any:
    *parts, axis = inputs
    return np.concatenate(parts, axis)


JOIN: Final = Op(
    name="join", kind="gather", attr_names=("axis",), infer=_join_infer, vjp=_join_gradient,
    lower=_join_lower, ref=_join_ref,
    samples=(
        Sample((Arg((2, 3)), Arg((4, 3)), Arg((1, 3))), (0,)),
        Sample((Arg((2, 3), dt.int64), Arg((2, 1), dt.int64)), (1,)),
        Sample((Arg((2, 3)), Arg((0, 3))), (0,)),
    ),
    doc="the inputs one after another along an axis",
)  # fmt: skip
