"""Which dtype the operands of an operation take, by PyTorch's rules, and Python numbers."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.symbolic import integral, real
from treadle.ops.pointwise import CAST
from treadle.tensor.record import Lazy, record, scalar

_default: Final[list[DType]] = [dt.float32]


def get_default_dtype() -> DType:
    """The dtype of floating-point tensors made from Python numbers."""
    return _default[0]


def set_default_dtype(dtype: DType) -> None:
    """Sets the dtype of floating-point tensors made from Python numbers.

    Raises:
        TypeError: the dtype is not floating point.
    """
    if not dtype.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default, got {dtype}")
    _default[0] = dtype


def number_dtype(value: Any) -> DType:
    """The dtype that a Python number has by itself."""
    if isinstance(value, bool):
        return dt.bool_
    if isinstance(value, int):
        return dt.int64
    if isinstance(value, float):
        return _default[0]
    raise TypeError(f"expected a tensor or a number, got {type(value).__name__}")


def _with_number(dtype: DType, value: Any) -> DType:
    """The dtype of a tensor with a Python number: only a higher kind of number changes it."""
    kind = type(value)
    if dtype.kind == "f" or kind is bool:
        return dtype
    if kind is float:
        return _default[0]
    if kind is int:
        return dt.int64 if dtype.kind == "b" else dtype
    if hasattr(value, "item"):
        return _with_number(dtype, value.item())
    return dt.promote(dtype, number_dtype(value))


_CATEGORY: Final = {"b": 0, "u": 1, "i": 1, "f": 2}


def result_type(a: Any, b: Any) -> DType:
    """The dtype of an operation on two tensors or numbers.

    A 0-d tensor, like a Python number, changes the other's dtype only if its kind is higher.
    """
    if not isinstance(a, Lazy):
        if not isinstance(b, Lazy):
            return dt.promote(number_dtype(a), number_dtype(b))
        return _with_number(b._node.dtype, a)
    if not isinstance(b, Lazy):
        return _with_number(a._node.dtype, b)
    x: DType = a._node.dtype
    y: DType = b._node.dtype
    if x is y:
        return x
    if bool(a._node.shape) != bool(b._node.shape):
        strong, weak = (x, y) if a._node.shape else (y, x)
        if _CATEGORY[weak.kind] <= _CATEGORY[strong.kind]:
            return strong
    return dt.promote(x, y)


def as_dtype(x: Any, dtype: DType) -> Any:
    """A tensor in a dtype; a number becomes a scalar input of the plan."""
    if isinstance(x, Lazy):
        return x if x._node.dtype is dtype else record(CAST, (x,), (dtype,))
    if dtype.kind == "f":
        return scalar(real(x), dtype)
    return scalar(bool(x) if dtype.kind == "b" else integral(x), dtype)


def floating(x: Any) -> Any:
    """A tensor as floating point: integers become the default dtype."""
    return x if x._node.dtype.kind == "f" else as_dtype(x, _default[0])
