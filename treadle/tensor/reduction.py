"""Functions that make one value of many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.errors import DTypeError
from treadle.base.symbolic import real
from treadle.ops import reduce as ops
from treadle.ops.pointwise import EQ, ISNAN, OR, WHERE
from treadle.ops.source import FULL, IOTA
from treadle.ops.table import Op
from treadle.ops.view import ALIAS, RESHAPE
from treadle.tensor import arithmetic as ar
from treadle.tensor.promote import as_dtype, floating
from treadle.tensor.record import block, record

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

Dims = int | Sequence[int] | None


class Extremum(NamedTuple):
    """The values and positions that `max`, `min`, `sort` and their like give."""

    values: Any
    indices: Any


def _reduced(op: Op, input: Any, dim: Dims, keepdim: bool) -> Any:
    """A reduction along axes, which are dropped unless `keepdim`."""
    return block(_reduce, (input,), (op, tuple(dim) if isinstance(dim, list) else dim, keepdim))


def _reduce(input: Any, op: Op, dim: Any, keepdim: bool) -> Any:
    shape = input._node.shape
    axes = sh.axes(None if dim == () else dim, len(shape))
    if not axes:
        return record(ALIAS, (input,))
    out = record(op, (input,), (axes,))
    if keepdim:
        return out
    return record(RESHAPE, (out,), (tuple(n for i, n in enumerate(shape) if i not in axes),))


def sum(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The sum of the elements, along `dim` or of all; integers and bools sum as int64."""
    source = input._node.dtype
    wanted = dtype or (source if source.kind == "f" else dt.int64)
    return _reduced(ops.SUM, as_dtype(input, wanted), dim, keepdim)


def _count(input: Any, dim: Dims) -> int:
    shape = input._node.shape
    axes = sh.axes(None if isinstance(dim, (tuple, list)) and not dim else dim, len(shape))
    return sh.count([shape[a] for a in axes])


def mean(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The mean of the elements, along `dim` or of all; of none it is NaN.

    Raises:
        DTypeError: the elements are not floating point and no dtype is given.
    """
    x = input if dtype is None else as_dtype(input, dtype)
    if x._node.dtype.kind != "f":
        raise DTypeError(
            f"mean(): could not infer output dtype. Input dtype must be floating point, got "
            f"{x._node.dtype.name}; hint: .float().mean()"
        )
    # The count is an input of the plan, not a constant: a new batch size compiles nothing.
    return ar.div(_reduced(ops.SUM, x, dim, keepdim), real(_count(x, dim)))


def _variance(x: Any, dim: Any, correction: float, keepdim: bool) -> Any:
    centred = ar.sub(x, mean(x, dim, True))
    total = _reduced(ops.SUM, ar.mul(centred, centred), dim, keepdim)
    n = _count(x, dim) - correction
    return ar.div(total, real(n) if n > 0 else 0.0)


def _spread(dim: Dims, unbiased: bool | None, correction: float | None) -> tuple[Dims, float]:
    """The dimensions and the correction out of the ways PyTorch lets them be given."""
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    by = correction if correction is not None else 1 if unbiased is None else int(unbiased)
    return tuple(dim) if isinstance(dim, list) else dim, by


def var(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The variance, `sum((x - mean)^2) / (n - correction)`, along `dim` or of all.

    `correction` is 1 unless given; `unbiased=False` stands for 0.
    """
    key, by = _spread(dim, unbiased, correction)
    return block(_variance, (input,), (key, by, keepdim))


def std(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> Tensor:  # fmt: skip
    """The standard deviation: the square root of `var`; where that is 0 its gradient is 0."""
    key, by = _spread(dim, unbiased, correction)
    return block(_deviation, (input,), (key, by, keepdim))


def _deviation(x: Any, dim: Any, correction: float, keepdim: bool) -> Any:
    return _root(_variance(x, dim, correction, keepdim))


def var_mean(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The variance and the mean."""
    key, _ = _spread(dim, None, None)
    return var(input, dim, unbiased, keepdim, correction=correction), mean(input, key, keepdim)


def std_mean(
    input: Tensor, dim: Dims = None, unbiased: bool | None = None, keepdim: bool = False, *,
    correction: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The standard deviation and the mean."""
    key, _ = _spread(dim, None, None)
    return std(input, dim, unbiased, keepdim, correction=correction), mean(input, key, keepdim)


def root(x: Any) -> Any:
    """The square root of what is not negative, with the gradient 0 at 0 instead of infinity."""
    return block(_root, (x,))


def _root(x: Any) -> Any:
    one = record(FULL, (), ((), 1, x._node.dtype))
    zero = record(FULL, (), ((), 0, x._node.dtype))
    nothing = record(EQ, (x, zero))
    return record(WHERE, (nothing, zero, ar.sqrt(record(WHERE, (nothing, one, x)))))


def prod(
    input: Tensor, dim: Dims = None, keepdim: bool = False, *, dtype: DType | None = None
) -> Tensor:
    """The product of the elements, along `dim` or of all."""
    source = input._node.dtype
    wanted = dtype or (source if source.kind == "f" else dt.int64)
    return _reduced(ops.PROD, as_dtype(input, wanted), dim, keepdim)


def amax(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The largest elements along `dim`; equal ones share the gradient."""
    return _reduced(ops.AMAX, input, dim, keepdim)


def amin(input: Tensor, dim: Dims = (), keepdim: bool = False) -> Tensor:
    """The smallest elements along `dim`; equal ones share the gradient."""
    return _reduced(ops.AMIN, input, dim, keepdim)


def any(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether any element is not zero."""
    return _truth(input, _reduced(ops.ANY, as_dtype(input, dt.bool_), dim, keepdim))


def _truth(input: Any, found: Any) -> Any:
    """A truth value as bool, of uint8 as uint8: PyTorch's older kind of truth."""
    return as_dtype(found, dt.uint8) if input._node.dtype is dt.uint8 else found


def all(input: Tensor, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Whether every element is not zero."""
    return _truth(input, _reduced(ops.ALL, as_dtype(input, dt.bool_), dim, keepdim))


def _first_position(x: Any, axis: int, op: Op) -> Any:
    """The first position of the extremum along an axis, which stays; NaN is extreme."""
    shape = x._node.shape
    best = record(op, (x,), ((axis,),))
    hit = record(EQ, (x, best))
    if x._node.dtype.kind == "f":
        hit = record(OR, (hit, record(ISNAN, (x,))))
    place = record(IOTA, (), (shape, axis, dt.int64))
    none = record(FULL, (), ((), 2**62, dt.int64))
    return record(ops.AMIN, (record(WHERE, (hit, place, none)),), ((axis,),))


def _arg(input: Any, dim: int | None, keepdim: bool, op: Op) -> Any:
    x = input if input._node.dtype is not dt.bool_ else as_dtype(input, dt.uint8)
    if dim is None:
        rank = len(x._node.shape)
        flat = record(RESHAPE, (x,), ((sh.count(x._node.shape),),))
        out = block(_first_position, (flat,), (0, op))
        return record(RESHAPE, (out,), ((1,) * rank if keepdim else (),))
    shape = x._node.shape
    if not shape:
        return as_dtype(0, dt.int64)
    axis = sh.axis(dim, len(shape))
    out = block(_first_position, (x,), (axis, op))
    kept = tuple(1 if i == axis else n for i, n in enumerate(shape))
    return out if keepdim else record(RESHAPE, (out,), (kept[:axis] + kept[axis + 1 :],))


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the largest element along `dim` (the first of equals), as int64."""
    return _arg(input, dim, keepdim, ops.AMAX)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The position of the smallest element along `dim` (the first of equals), as int64."""
    return _arg(input, dim, keepdim, ops.AMIN)


def max(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The largest element of all, the larger of two tensors, or values and positions along
    `dim`."""
    if dim is None:
        return _reduced(ops.AMAX, input, None, keepdim)
    if hasattr(dim, "_node"):
        return ar.maximum(input, dim)
    return Extremum(_reduced(ops.MAX_REDUCE, input, dim, keepdim), argmax(input, dim, keepdim))


def min(input: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    """The smallest element of all, the smaller of two tensors, or values and positions along
    `dim`."""
    if dim is None:
        return _reduced(ops.AMIN, input, None, keepdim)
    if hasattr(dim, "_node"):
        return ar.minimum(input, dim)
    return Extremum(_reduced(ops.MIN_REDUCE, input, dim, keepdim), argmin(input, dim, keepdim))


def _logsumexp(x: Any, dim: Any, keepdim: bool) -> Any:
    axes = sh.axes(dim, len(x._node.shape))
    peak = record(ops.AMAX, (x.detach(),), (axes,))
    zero = record(FULL, (), ((), 0, x._node.dtype))
    safe = record(WHERE, (ar.isfinite(peak), peak, zero))
    total = record(ops.SUM, (ar.exp(ar.sub(x, safe)),), (axes,))
    out = ar.add(ar.log(total), safe)
    if keepdim:
        return out
    shape = tuple(n for i, n in enumerate(x._node.shape) if i not in axes)
    return record(RESHAPE, (out,), (shape,))


def logsumexp(input: Tensor, dim: int | Sequence[int], keepdim: bool = False) -> Tensor:
    """`log(sum(exp(input)))` along `dim`, without overflow."""
    axes = dim if isinstance(dim, int) else tuple(dim)
    return block(_logsumexp, (floating(input),), (axes, keepdim))


def _euclidean(x: Any, dim: Any, keepdim: bool) -> Any:
    return _root(_reduced(ops.SUM, ar.mul(x, x), dim, keepdim))


def norm(input: Tensor, p: float | str = 2, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The p-norm, `sum(|x|^p)^(1/p)`, along `dim` or of all; `p` may be inf, -inf, 0 or "fro"."""
    if p == "fro" or p == 2:
        key = tuple(dim) if isinstance(dim, list) else dim
        return block(_euclidean, (input,), (key, keepdim))
    if not isinstance(p, (int, float)):
        raise ValueError(f"norm: p is a number or 'fro', got {p!r}")
    size = ar.abs(input)
    if p == float("inf"):
        return _reduced(ops.AMAX, size, dim, keepdim)
    if p == float("-inf"):
        return _reduced(ops.AMIN, size, dim, keepdim)
    if p == 0:
        return _reduced(ops.SUM, as_dtype(ar.ne(input, 0), input._node.dtype), dim, keepdim)
    if p == 1:
        return _reduced(ops.SUM, size, dim, keepdim)
    return block(_power_root, (_reduced(ops.SUM, ar.pow(size, p), dim, keepdim),), (float(p),))


def _power_root(total: Any, p: float) -> Any:
    """The p-th root of a sum, whose gradient at 0 is 0."""
    one = record(FULL, (), ((), 1, total._node.dtype))
    zero = record(FULL, (), ((), 0, total._node.dtype))
    nothing = record(EQ, (total, zero))
    root = ar.pow(record(WHERE, (nothing, one, total)), 1.0 / p)
    return record(WHERE, (nothing, zero if p > 0 else root, root))


def count_nonzero(input: Tensor, dim: Dims = None) -> Tensor:
    """The number of elements that are not zero."""
    return sum(as_dtype(input, dt.bool_), dim)


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape and the same elements; reads the result."""
    if input._node.shape != other._node.shape:
        return False
    return bool(all(ar.eq(input, other)).item())


def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether all elements satisfy `isclose`; reads the result."""
    return bool(all(ar.isclose(input, other, rtol, atol, equal_nan)).item())
