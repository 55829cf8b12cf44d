"""Primitives that make values from nothing but an index: constants, counters, random bits."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.loop import Binary, Cast, Const, Expr, Intrinsic
from treadle.ir.node import Node
from treadle.ir.philox import philox
from treadle.ops.table import NO_GRADIENT, Arg, Index, Op, Read, Sample, integer, make

np = LazyModule("numpy")


def _full_lower(node: Node, index: Index, read: Read) -> Expr:
    return Const(node.attrs[1], node.dtype)


FULL: Final = Op(
    name="full", kind="source", attr_names=("shape", "value", "dtype"),
    infer=lambda shape, value, dtype: (shape, dtype), vjp=NO_GRADIENT, lower=_full_lower,
    ref=lambda shape, value, dtype: np.full(shape, value, dtype.numpy),
    samples=(Sample((), ((2, 3), 1.5, dt.float32)), Sample((), ((), True, dt.bool_))),
    doc="one value everywhere",
)  # fmt: skip


def _iota_lower(node: Node, index: Index, read: Read) -> Expr:
    return Cast(index[node.attrs[1]], node.dtype)


def _iota_ref(shape: Shape, axis: int, dtype: DType) -> Any:
    counter = np.arange(shape[axis]).astype(dtype.numpy)
    column = [1] * len(shape)
    column[axis] = shape[axis]
    return np.broadcast_to(counter.reshape(column), shape).copy()


IOTA: Final = Op(
    name="iota", kind="source", attr_names=("shape", "axis", "dtype"),
    infer=lambda shape, axis, dtype: (shape, dtype), vjp=NO_GRADIENT, lower=_iota_lower,
    ref=_iota_ref,
    samples=(Sample((), ((3, 4), 1, dt.int64)), Sample((), ((5,), 0, dt.float32))),
    doc="the index along one axis: 0, 1, 2 ...",
)  # fmt: skip


def flat_index(shape: Shape, index: Index) -> Expr:
    """The row-major position of an index."""
    total: Expr = integer(0)
    for i, step in zip(index, sh.strides(shape), strict=True):
        term = i if step == 1 else Binary("mul", i, integer(step))
        total = (
            term if isinstance(total, Const) and total.value == 0 else Binary("add", total, term)
        )
    return total


def _bits_lower(node: Node, index: Index, read: Read) -> Expr:
    counter = flat_index(node.shape, index)
    return Intrinsic("philox", (read(0, ()), counter), dt.uint32)


def _bits_ref(key: Any, shape: Shape) -> Any:
    return philox(key, np.arange(sh.count(shape), dtype=np.int64)).reshape(shape)


RANDOM_BITS: Final = Op(
    name="random_bits", kind="source", attr_names=("shape",),
    infer=lambda key, shape: (shape, dt.uint32), vjp=NO_GRADIENT, lower=_bits_lower, ref=_bits_ref,
    samples=(Sample((Arg((), dt.int64, 0, 1e6),), ((3, 4),)),),
    doc="32 random bits an element, a pure function of the 64-bit key and the element's position",
)  # fmt: skip


def constant(value: Any, dtype: DType) -> Node:
    """A scalar known when the graph is made."""
    return make(FULL, (), ((), value, dtype))


def full(shape: Shape, value: Any, dtype: DType) -> Node:
    """One value everywhere."""
    return make(FULL, (), (shape, value, dtype))


def iota(shape: Shape, axis: int, dtype: DType = dt.int64) -> Node:
    """The index along one axis."""
    return make(IOTA, (), (shape, axis, dtype))
