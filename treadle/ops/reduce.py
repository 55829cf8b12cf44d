"""Reductions: one value from all elements along some axes, which stay as extents of 1."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import ShapeError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape, same
from treadle.ir.node import Node
from treadle.ops import source, view
from treadle.ops.table import (
    NO_GRADIENT,
    TABLE,
    Arg,
    Op,
    Sample,
    make,
    no_lowering,
    not_differentiable,
    per_input,
)

np = LazyModule("numpy")


def _infer(name: str, combine: str) -> Callable[..., tuple[Shape, DType]]:
    def infer(x: Any, axes: tuple[int, ...]) -> tuple[Shape, DType]:
        if combine in ("max", "min") and any(x.shape[a] == 0 for a in axes):
            raise ShapeError(f"{name} over an empty dimension of {tuple(x.shape)} has no value")
        return tuple(1 if i in axes else n for i, n in enumerate(x.shape)), x.dtype

    return infer


def _reduce(
    name: str,
    combine: str,
    doc: str,
    ref: Callable[..., Any],
    gradient: Callable[[Node, Node], Node | None] | None,
    dtypes: tuple[DType, ...] = (dt.float32, dt.float64, dt.int64),
) -> Op:
    shapes = (((3, 5), (1,)), ((3, 5), (0,)), ((2, 3, 4), (0, 2)), ((7,), (0,)))
    return Op(
        name=name,
        kind="reduce",
        attr_names=("axes",),
        infer=_infer(name, combine),
        vjp=per_input(gradient) if gradient else NO_GRADIENT,
        lower=no_lowering,
        ref=ref,
        samples=tuple(
            Sample((Arg(shape, d, 0.5 if combine == "mul" else -2.0),), (axes,))
            for d in dtypes
            for shape, axes in shapes
        ),
        doc=doc,
        combine=combine,
    )


def _sum_gradient(node: Node, g: Node) -> Node:
    return view.expand(g, node.inputs[0].shape)


def _prod_gradient(node: Node, g: Node) -> Node:
    """The product of the others: of those before each by those behind it, which no 0 disturbs."""
    x = node.inputs[0]
    axes = node.attrs[0]
    if 0 in x.shape:
        return source.full(x.shape, 0, x.dtype)
    kept = tuple([d for d in range(len(x.shape)) if d not in axes])
    moved = view.permute(x, (*kept, *axes))
    rows = view.reshape(moved, (*[x.shape[d] for d in kept], math.prod(x.shape[d] for d in axes)))
    others = _op("mul", _product_before(rows, False), _product_before(rows, True))
    back = view.permute(view.reshape(others, moved.shape), view.inverse((*kept, *axes)))
    return _op("mul", g, back)


def _product_before(x: Node, reverse: bool) -> Node:
    """The product of the elements before each along the last axis, or of those behind it."""
    *lead, n = x.shape
    first = source.full((*lead, 1), 1, x.dtype)
    start = 1 if reverse else 0
    rest = view.slice_(
        x, (*[0] * len(lead), start), (*lead, n - 1 + start), (1,) * len(x.shape)
    )  # fmt: skip
    shifted = make(TABLE["join"], (rest, first) if reverse else (first, rest), (len(lead),))
    return make(TABLE["cumprod"], (shifted,), (len(lead), reverse))


def _ties_gradient(node: Node, g: Node) -> Node:
    """Shared evenly among equal extrema, as PyTorch's amax does."""
    x = node.inputs[0]
    hit = make(TABLE["cast"], (_op("eq", x, node),), (x.dtype,))
    count = make(SUM, (hit,), (node.attrs[0],))
    return _op("mul", hit, _op("div", g, count))


def _first_gradient(node: Node, g: Node) -> Node:
    """All of it to the first extremum in row-major order, as PyTorch's max(dim) does."""
    x = node.inputs[0]
    extent = math.prod(x.shape[a] for a in node.attrs[0])
    position = _position(x.shape, node.attrs[0], dt.int32 if extent < 2**31 else dt.int64)
    hit = _op("eq", x, node)
    last = source.constant(extent, position.dtype)
    first = make(MIN_REDUCE, (make(TABLE["where"], (hit, position, last)),), (node.attrs[0],))
    chosen = _op("eq", position, first)
    return make(TABLE["where"], (chosen, g, source.constant(0, x.dtype)))


def _position(shape: Shape, axes: tuple[int, ...], dtype: DType) -> Node:
    """The row-major position within the reduced axes."""
    total: Node | None = None
    step = 1
    for axis in reversed(axes):
        part = source.iota(shape, axis, dtype)
        if step > 1:
            part = _op("mul", part, source.constant(step, dtype))
        total = part if total is None else _op("add", part, total)
        step *= shape[axis]
    return source.iota(shape, 0, dtype) if total is None else total


def _op(name: str, a: Node, b: Node) -> Node:
    # Looked up by name: the element-wise room stands on this one for its own gradients.
    return make(TABLE[name], (a, b))


def _zero(x: Node) -> Node:
    return source.constant(0, x.dtype)


def _one(x: Node) -> Node:
    return source.constant(1, x.dtype)


SUM: Final = _reduce(
    "sum", "add", "sum of the elements", lambda x, axes: np.sum(x, axes, x.dtype, keepdims=True),
    _sum_gradient,
)  # fmt: skip
PROD: Final = _reduce(
    "prod", "mul", "product of the elements",
    lambda x, axes: np.prod(x, axes, x.dtype, keepdims=True), _prod_gradient,
)  # fmt: skip
AMAX: Final = _reduce(
    "amax", "max", "largest element, NaN if any is; ties share the gradient",
    lambda x, axes: np.max(x, axes, keepdims=True), _ties_gradient,
)  # fmt: skip
AMIN: Final = _reduce(
    "amin", "min", "smallest element, NaN if any is; ties share the gradient",
    lambda x, axes: np.min(x, axes, keepdims=True), _ties_gradient,
)  # fmt: skip
MAX_REDUCE: Final = _reduce(
    "max_first", "max", "largest element; the first of equals takes the gradient",
    lambda x, axes: np.max(x, axes, keepdims=True), _first_gradient,
)  # fmt: skip
MIN_REDUCE: Final = _reduce(
    "min_first", "min", "smallest element; the first of equals takes the gradient",
    lambda x, axes: np.min(x, axes, keepdims=True), _first_gradient,
)  # fmt: skip
ANY: Final = _reduce(
    "any", "or", "whether any element is true", lambda x, axes: np.any(x, axes, keepdims=True),
    None, (dt.bool_,),
)  # fmt: skip
ALL: Final = _reduce(
    "all", "and", "whether every element is true", lambda x, axes: np.all(x, axes, keepdims=True),
    None, (dt.bool_,),
)  # fmt: skip


def initial(combine: str, dtype: DType) -> Any:
    """The neutral element of a reduction in a dtype."""
    if combine == "add":
        return 0
    if combine == "mul":
        return 1
    if combine == "logaddexp":
        return float("-inf")
    if combine in ("and", "or"):
        return combine == "and"
    if dtype.is_floating_point:
        return float("-inf") if combine == "max" else float("inf")
    if dtype is dt.bool_:
        return combine == "min"
    low = 0 if dtype.kind == "u" else -(2 ** (dtype.bits - 1))
    high = 2 ** (dtype.bits - (dtype.kind != "u")) - 1
    return low if combine == "max" else high


def total(x: Node, axes: tuple[int, ...]) -> Node:
    """The sum along axes, which stay as extents of 1."""
    return make(SUM, (x,), (axes,)) if axes else x


def sum_to(x: Node, shape: Shape) -> Node:
    """Sums a gradient over the axes along which its operand of `shape` was broadcast."""
    if same(x.shape, shape):
        return x
    extra = len(x.shape) - len(shape)
    axes = tuple(range(extra)) + tuple(
        i + extra for i, n in enumerate(shape) if n == 1 and x.shape[i + extra] != 1
    )
    return view.reshape(total(x, axes), shape)


def _partial_infer(
    x: Any, axes: tuple[int, ...], combine: str, axis: int, chunk: int
) -> tuple[Shape, DType]:
    pieces = -(-x.shape[axis] // chunk)
    return tuple(
        pieces if i == axis else 1 if i in axes else n for i, n in enumerate(x.shape)
    ), x.dtype


def _partial_ref(x: Any, axes: tuple[int, ...], combine: str, axis: int, chunk: int) -> Any:
    ufunc = {
        "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
        "or": np.logical_or, "and": np.logical_and, "logaddexp": np.logaddexp,
    }[combine]  # fmt: skip
    n = x.shape[axis]
    pieces = [
        ufunc.reduce(
            np.take(x, range(at, min(at + chunk, x.shape[axis])), axis), axes, keepdims=True
        )
        for at in range(0, n, chunk)
    ]
    return np.concatenate(pieces, axis).astype(x.dtype, copy=False)


PARTIAL: Final = Op(
    name="partial", kind="reduce", attr_names=("axes", "combine", "axis", "chunk"),
    infer=_partial_infer, vjp=not_differentiable, lower=no_lowering, ref=_partial_ref,
    samples=(
        Sample((Arg((7, 5)),), ((0,), "add", 0, 3)),
        Sample((Arg((2, 9)),), ((0, 1), "max", 1, 4)),
    ),
    doc="a reduction by pieces of `chunk` along one of its axes: what the planner splits long "
    "reductions into, so that pieces run in parallel and the partition never changes",
)  # fmt: skip


def combine_of(node: Node) -> str:
    """The `Accumulate` operator of a reduction or a scan."""
    return str(node.op.combine or node.attrs[1])
