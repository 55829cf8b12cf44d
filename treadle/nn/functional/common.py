"""What the functional composites share: tuples, reductions of a loss, precision."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import DTypeError, ShapeError
from treadle.tensor import primitive as pr

REDUCTIONS = ("none", "mean", "sum")


def repeated(value: Any, rank: int, name: str = "argument") -> tuple[Any, ...]:
    """A number for each of `rank` axes: one for all of them, or a sequence."""
    if type(value) is int:
        return (value,) * rank
    if type(value) is tuple and len(value) == rank:
        return value
    if isinstance(value, Iterable):
        out = tuple(value)
        if len(out) == 1:
            return out * rank
        if len(out) != rank:
            raise ShapeError(f"{name} should be one number or {rank} of them, got {out}")
        return out
    return (value,) * rank


def shape_of(x: Any) -> tuple[int, ...]:
    """The extents as a plain tuple."""
    shape: tuple[int, ...] = x._node.shape
    return shape


def require_float(name: str, x: Any) -> None:
    """Raises `DTypeError` unless a tensor is floating point."""
    if x._node.dtype.kind != "f":
        raise DTypeError(
            f"{name}: expected floating point, got {x._node.dtype.name}; hint: x.float()"
        )


def wide(x: Any) -> Any:
    """Half-precision values as float32: what sums over many of them are computed in."""
    return pr.cast(x, dt.float32) if x._node.dtype.itemsize < 4 else x


def reduced(loss: Any, reduction: str) -> Any:
    """The mean or sum of a loss, or the loss of each element."""
    if reduction == "none":
        return loss
    shape = shape_of(loss)
    axes = tuple(range(len(shape)))
    out = pr.total(loss, axes) if reduction == "sum" else pr.average(loss, axes)
    return pr.shaped(out, ())


def require_reduction(reduction: str) -> None:
    """Raises `ValueError` unless a reduction is known."""
    if reduction not in REDUCTIONS:
        raise ValueError(f"{reduction} is not a valid value for reduction")


def require_same_shape(name: str, x: Any, target: Any) -> None:
    """Raises `ShapeError` unless two tensors have one shape."""
    if shape_of(x) != shape_of(target):
        raise ShapeError(
            f"{name}: the input has shape {shape_of(x)}, the target {shape_of(target)}; hint: "
            f"reshape one of them to the shape of the other"
        )


def length(x: Any, p: float, dim: Any, keepdim: bool) -> Any:
    """The p-norm along `dim`, whose gradient at 0 is 0."""
    if p != 2:
        return x.norm(p, dim, keepdim)
    squares = (x * x).sum(dim, keepdim)
    zero, one = pr.constant(0, x._node.dtype), pr.constant(1, x._node.dtype)
    nothing = squares == zero
    return pr.select(nothing, zero, pr.select(nothing, one, squares).sqrt())
