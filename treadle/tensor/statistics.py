"""Running sums and products, medians, quantiles, and reductions that pass over NaN."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.errors import ShapeError
from treadle.ops import scan as ops
from treadle.ops.gather import TAKE_ALONG
from treadle.ops.table import Op
from treadle.tensor import arithmetic as ar
from treadle.tensor import movement as mv
from treadle.tensor import reduction as red
from treadle.tensor.creation import arange, tensor
from treadle.tensor.ordering import lifted, median_place, pick, sort
from treadle.tensor.promote import as_dtype, floating
from treadle.tensor.record import Lazy, record
from treadle.tensor.reduction import Dims, Extremum

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor


def _scan(op: Op, input: Any, dim: int, dtype: DType | None) -> Any:
    source = input._node.dtype
    wanted = dtype or (source if source.kind == "f" else dt.int64)
    x = as_dtype(input, wanted)
    axis = sh.axis(dim, len(input._node.shape))
    return record(op, (x,), (axis, False)) if input._node.shape else x


def cumsum(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """The sum of the elements up to each along `dim`; integers and bools sum as int64.

    `out[i] = input[0] + ... + input[i]`

    Example:
        >>> import treadle
        >>> treadle.cumsum(treadle.tensor([1, 2, 3]), 0)
        tensor([1, 3, 6])
    """
    return _scan(ops.CUMSUM, input, dim, dtype)


def cumprod(input: Tensor, dim: int, *, dtype: DType | None = None) -> Tensor:
    """The product of the elements up to each along `dim`; integers and bools as int64."""
    return _scan(ops.CUMPROD, input, dim, dtype)


def logcumsumexp(input: Tensor, dim: int) -> Tensor:
    """The logarithm of the running sum of `exp(input)` along `dim`, without overflow."""
    return _scan(ops.LOGCUMSUMEXP, input, dim, input._node.dtype)


def _extremum(input: Any, dim: int, largest: bool) -> Extremum:
    axis = sh.axis(dim, len(input._node.shape))
    if not input._node.shape:
        return Extremum(mv.reshape(input, ()), as_dtype(0, dt.int64))
    best = record(ops.CUMMAX if largest else ops.CUMMIN, (input,), (axis, False))
    plain = input.detach()
    hit = ar.logical_or(ar.eq(plain, best.detach()), ar.isnan(plain))
    shape = [1] * len(input._node.shape)
    shape[axis] = input._node.shape[axis]
    position = mv.reshape(arange(shape[axis]), shape)
    place = record(ops.CUMMAX, (ar.where(hit, position, -1),), (axis, False))
    return Extremum(best, place)


def cummax(input: Tensor, dim: int) -> Extremum:
    """The largest element up to each along `dim`, and the last position of it."""
    return _extremum(input, dim, True)


def cummin(input: Tensor, dim: int) -> Extremum:
    """The smallest element up to each along `dim`, and the last position of it."""
    return _extremum(input, dim, False)


def diff(
    input: Tensor, n: int = 1, dim: int = -1, prepend: Tensor | None = None,
    append: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The differences of neighbours along `dim`, `n` times.

    Args:
        prepend, append: what is joined to the ends of the input first.
    """
    if not input._node.shape:
        raise ShapeError("diff expects input to be at least one-dimensional")
    parts = [x for x in (prepend, input, append) if x is not None]
    out = mv.cat(parts, dim) if len(parts) > 1 else input
    for _ in range(n):
        extent = out._node.shape[sh.axis(dim, len(out._node.shape))]
        length = max(extent - 1, 0)
        after = mv.narrow(out, dim, min(1, extent), length)
        before = mv.narrow(out, dim, 0, length)
        boolean = out._node.dtype is dt.bool_
        out = ar.logical_xor(after, before) if boolean else ar.sub(after, before)
    return out


def trapezoid(y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1) -> Tensor:
    """The integral by trapezoids along `dim`, at the points `x` or `dx` apart."""
    n = y._node.shape[sh.axis(dim, len(y._node.shape))]
    pairs = ar.add(mv.narrow(y, dim, 1, n - 1), mv.narrow(y, dim, 0, n - 1))
    width: Any = dx if x is None else diff(x, 1, dim if len(x._node.shape) > 1 else -1)
    return red.sum(ar.mul(ar.mul(pairs, width), 0.5), dim)


trapz = trapezoid


def cumulative_trapezoid(
    y: Tensor, x: Tensor | None = None, *, dx: float = 1.0, dim: int = -1
) -> Tensor:
    """The running integral by trapezoids along `dim`, at the points `x` or `dx` apart."""
    n = y._node.shape[sh.axis(dim, len(y._node.shape))]
    pairs = ar.add(mv.narrow(y, dim, 1, n - 1), mv.narrow(y, dim, 0, n - 1))
    width: Any = dx if x is None else diff(x, 1, dim if len(x._node.shape) > 1 else -1)
    return cumsum(ar.mul(ar.mul(pairs, width), 0.5), dim)


# --- medians and quantiles ---------------------------------------------------------------------


def median(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The middle element, the lower of two, NaN if any is; with `dim` also its position."""
    if dim is None:
        flat = mv.reshape(input, -1)
        return pick(flat, median_place(flat, 0), 0, False).values
    if not input._node.shape:
        return lifted(median, input, dim)
    axis = sh.axis(dim, len(input._node.shape))
    return pick(input, median_place(input, axis), axis, keepdim)


def nanmedian(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The lower middle of the elements that are not NaN; with `dim` also its position."""
    if dim is None:
        return nanmedian(mv.reshape(input, -1), 0).values
    if not input._node.shape:
        return lifted(nanmedian, input, dim)
    axis = sh.axis(dim, len(input._node.shape))
    order = sort(input, axis).indices
    valid = red.sum(ar.logical_not(ar.isnan(input)), axis, True)
    middle = ar.clamp(ar.floor_divide(ar.sub(valid, 1), 2), min=0)
    return pick(input, record(TAKE_ALONG, (order, middle), (axis,)), axis, keepdim)


_BETWEEN = ("linear", "lower", "higher", "nearest", "midpoint")


def _quantile(input: Any, q: Any, dim: int | None, keepdim: bool, interpolation: str,
              skip: bool) -> Any:  # fmt: skip
    if interpolation not in _BETWEEN:
        raise ValueError(f"quantile: interpolation is one of {_BETWEEN}, not {interpolation!r}")
    if dim is not None and not input._node.shape:
        sh.axis(dim, 0)
        dim = None
    x = mv.reshape(input, -1) if dim is None else input
    axis = 0 if dim is None else sh.axis(dim, len(x._node.shape))
    if not x._node.shape[axis]:
        raise ShapeError("quantile() input tensor must be non-empty")
    where: Any = q if isinstance(q, Lazy) else tensor(q, dtype=x._node.dtype)
    values = mv.movedim(sort(x, axis).values, axis, -1)
    missing = ar.isnan(values)
    count = red.sum(ar.logical_not(missing), -1, True) if skip else x._node.shape[axis]
    last = ar.clamp(ar.sub(count, 1), min=0) if skip else count - 1
    rank = ar.mul(mv.reshape(where, -1), as_dtype(last, x._node.dtype))
    outer = tuple(values._node.shape[:-1])
    rank = mv.expand(rank, (*outer, rank._node.shape[-1]))
    out = _between(values, rank, interpolation)
    if not skip:
        broken = red.any(missing, -1, True)
        out = ar.where(broken, as_dtype(float("nan"), x._node.dtype), out)
    return _placed(out, where, input, dim, axis, keepdim)


def _between(values: Any, rank: Any, interpolation: str) -> Any:
    axis = len(values._node.shape) - 1
    if interpolation == "nearest":
        rank = ar.round(rank)
    low = as_dtype(ar.floor(rank), dt.int64)
    high = as_dtype(ar.ceil(rank), dt.int64)
    below = record(TAKE_ALONG, (values, low), (axis,))
    above = record(TAKE_ALONG, (values, high), (axis,))
    if interpolation in ("lower", "nearest"):
        return below
    if interpolation == "higher":
        return above
    weight = 0.5 if interpolation == "midpoint" else ar.sub(rank, ar.floor(rank))
    return ar.lerp(below, above, weight)


def _placed(out: Any, where: Any, input: Any, dim: int | None, axis: int, keepdim: bool) -> Any:
    """The quantiles as leading axis, or without it for a single one; the reduced axis kept."""
    rank = len(input._node.shape)
    front = mv.movedim(out, -1, 0)
    if keepdim:
        if dim is None:
            front = mv.reshape(front, (front._node.shape[0], *(1,) * rank))
        else:
            front = mv.unsqueeze(front, axis + 1)
    return front if where._node.shape else mv.squeeze(front, 0)


def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
             interpolation: str = "linear") -> Tensor:  # fmt: skip
    """The value below which the fraction `q` of the elements lies; NaN if any is.

    Args:
        q: a number or a vector on [0, 1]; of a vector the results are a leading axis.
        interpolation: between two elements: `"linear"`, `"lower"`, `"higher"`, `"nearest"` or
            `"midpoint"`.
    """
    return _quantile(input, q, dim, keepdim, interpolation, False)


def nanquantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False, *,
                interpolation: str = "linear") -> Tensor:  # fmt: skip
    """`quantile` of the elements that are not NaN."""
    return _quantile(input, q, dim, keepdim, interpolation, True)


# --- passing over NaN --------------------------------------------------------------------------


def nan_to_num(input: Tensor, nan: float | None = None, posinf: float | None = None,
               neginf: float | None = None) -> Tensor:  # fmt: skip
    """NaN and infinities replaced: by 0 and the largest finite numbers unless given."""
    dtype = input._node.dtype
    if dtype.kind != "f":
        return mv.reshape(input, input._node.shape)
    most = {
        dt.float64: 1.7976931348623157e308, dt.float32: 3.4028234663852886e38,
        dt.float16: 65504.0, dt.bfloat16: 3.3895313892515355e38,
    }[dtype]  # fmt: skip
    top = most if posinf is None else posinf
    bottom = -most if neginf is None else neginf
    out: Any = ar.where(ar.isnan(input), as_dtype(nan or 0.0, dtype), input)
    infinite = as_dtype(float("inf"), dtype)
    out = ar.where(ar.eq(out, infinite), as_dtype(top, dtype), out)
    return ar.where(ar.eq(out, ar.neg(infinite)), as_dtype(bottom, dtype), out)


def nansum(input: Tensor, dim: Dims = None, keepdim: bool = False, *,
           dtype: DType | None = None) -> Tensor:  # fmt: skip
    """The sum of the elements that are not NaN."""
    if input._node.dtype.kind != "f":
        return red.sum(input, dim, keepdim, dtype=dtype)
    clean = ar.where(ar.isnan(input), as_dtype(0, input._node.dtype), input)
    return red.sum(clean, dim, keepdim, dtype=dtype)


def nanmean(input: Tensor, dim: Dims = None, keepdim: bool = False, *,
            dtype: DType | None = None) -> Tensor:  # fmt: skip
    """The mean of the elements that are not NaN."""
    total = nansum(input, dim, keepdim, dtype=dtype)
    return ar.div(total, red.sum(ar.logical_not(ar.isnan(input)), dim, keepdim))


def aminmax(input: Tensor, *, dim: int | None = None, keepdim: bool = False) -> Any:
    """The smallest and the largest element."""
    axes: Dims = () if dim is None else dim
    return red.amin(input, axes, keepdim), red.amax(input, axes, keepdim)


def cov(
    input: Tensor, *, correction: int = 1, fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The covariance matrix of variables in rows and observations in columns.

    Args:
        correction: what the number of observations is lessened by, 1 or 0.
        fweights: how often each observation was made.
        aweights: how much each observation counts.
    """
    if len(input._node.shape) > 2:
        raise ShapeError(f"cov: expected at most 2 dimensions, got {len(input._node.shape)}")
    x: Any = floating(mv.reshape(input, 1, -1) if len(input._node.shape) < 2 else input)
    weights = [as_dtype(w, x._node.dtype) for w in (fweights, aweights) if w is not None]
    if not weights:
        centred = ar.sub(x, red.mean(x, 1, True))
        scaled: Any = centred
        room: Any = float(max(x._node.shape[1] - correction, 0))
    else:
        w = weights[0] if len(weights) == 1 else ar.mul(*weights)
        total: Any = red.sum(w)
        centred = ar.sub(x, ar.div(red.sum(ar.mul(x, w), 1, True), total))
        scaled = ar.mul(centred, w)
        lost: Any = correction
        if aweights is not None and correction:
            lost = ar.mul(ar.div(red.sum(ar.mul(w, weights[-1])), total), correction)
        room = ar.clamp(ar.sub(total, lost), min=0)
    product: Any = ar.div(scaled @ mv.transpose(centred, 0, 1), room)
    return mv.squeeze(product)


def corrcoef(input: Tensor) -> Tensor:
    """The correlation coefficients of variables in rows and observations in columns."""
    c: Any = cov(input)
    if not c._node.shape:
        return ar.div(c, c)
    scale = ar.sqrt(c.diagonal())
    return ar.div(ar.div(c, mv.unsqueeze(scale, 1)), mv.unsqueeze(scale, 0))
