"""The softmax family: exponentials over their sum, without overflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.errors import DTypeError
from treadle.tensor import primitive as pr
from treadle.tensor.record import block

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor


def softmax_of(x: Any, axis: int) -> Any:
    """Within a block: the exponentials along an axis over their sum, without overflow."""
    e = (x - pr.peak(x, (axis,))).exp()
    # One division a row: dividing each element would take longer than its exponential's sum.
    return e * pr.total(e, (axis,)).reciprocal()


def log_softmax_of(x: Any, axis: int) -> Any:
    """Within a block: the logarithm of `softmax_of`."""
    shifted = x - pr.peak(x, (axis,))
    return shifted - pr.total(shifted.exp(), (axis,)).log()


def _wide(x: Any) -> Any:
    return pr.cast(x, dt.float32) if x._node.dtype.itemsize < 4 else x


def _softmax(x: Any, axis: int) -> Any:
    return pr.cast(softmax_of(_wide(x), axis), x._node.dtype)


def _log_softmax(x: Any, axis: int) -> Any:
    return pr.cast(log_softmax_of(_wide(x), axis), x._node.dtype)


def _of_scalar(x: Any, body: Callable[..., Any]) -> Any:
    return pr.shaped(body(pr.shaped(x, (1,)), 0), ())


def _along(input: Any, dim: int, dtype: DType | None, body: Callable[..., Any], name: str) -> Any:
    x = input if dtype is None else pr.cast(input, dtype)
    if x._node.dtype.kind != "f":
        raise DTypeError(
            f"{name}: expected floating point, got {x._node.dtype.name}; hint: x.float()"
        )
    shape = x._node.shape
    axis = sh.axis(dim, len(shape))
    if not sh.count(shape):
        return x.clone()
    return block(body, (x,), (axis,)) if shape else block(_of_scalar, (x,), (body,))


def softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """`exp(x) / sum(exp(x))` along `dim`, without overflow.

    Args:
        input: floating point, or anything with a floating-point `dtype` given.
        dim: the axis whose elements sum to 1.
        dtype: what the input is converted to first.
    """
    return _along(input, dim, dtype, _softmax, "softmax")


def log_softmax(input: Tensor, dim: int, dtype: DType | None = None) -> Tensor:
    """`x - log(sum(exp(x)))` along `dim`: the logarithm of `softmax`, exact where that
    underflows."""
    return _along(input, dim, dtype, _log_softmax, "log_softmax")
