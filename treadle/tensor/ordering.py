"""Sorting, selecting by rank, searching and counting."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy import LazyModule
from treadle.ops.gather import TAKE_ALONG
from treadle.ops.order import ARGSORT, RANKED, SEARCH, comparable
from treadle.tensor import arithmetic as ar
from treadle.tensor import movement as mv
from treadle.tensor import reduction as red
from treadle.tensor.creation import from_numpy
from treadle.tensor.gathering import promote_pair
from treadle.tensor.promote import as_dtype, get_default_dtype
from treadle.tensor.record import Lazy, record
from treadle.tensor.reduction import Extremum

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

np = LazyModule("numpy")


def _order(input: Any, dim: int, descending: bool) -> tuple[Any, int]:
    """The positions in order along an axis, and the axis."""
    axis = sh.axis(dim, len(input._node.shape))
    return record(ARGSORT, (input.detach(),), (axis, descending)), axis


def sort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Extremum:
    """The elements in order along `dim`, and their positions.

    NaN counts as the largest. The order of equal elements is always kept, `stable` or not.

    Returns:
        `(values, indices)`.
    """
    if not input._node.shape:
        return Extremum(mv.reshape(input, ()), as_dtype(0, dt.int64))
    order, axis = _order(input, dim, descending)
    return Extremum(record(TAKE_ALONG, (input, order), (axis,)), order)


def argsort(input: Tensor, dim: int = -1, descending: bool = False, stable: bool = False) -> Tensor:
    """The positions of the elements in order along `dim`."""
    return sort(input, dim, descending).indices


def msort(input: Tensor) -> Tensor:
    """The elements in order along the first axis."""
    return sort(input, 0).values


def topk(
    input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True
) -> Extremum:
    """The `k` largest (or smallest) elements along `dim` in order, and their positions.

    Raises:
        ShapeError: there are fewer than `k` elements.
    """
    if not input._node.shape:
        return sort(input)
    axis = sh.axis(dim, len(input._node.shape))
    if not 0 <= k <= input._node.shape[axis]:
        raise ShapeError(
            f"topk: selected index k = {k} out of range for dimension {axis} with size "
            f"{input._node.shape[axis]}"
        )
    first = record(RANKED, (input.detach(),), (axis, 0, k, largest))
    return Extremum(record(TAKE_ALONG, (input, first), (axis,)), first)


def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Extremum:
    """The `k`-th smallest element (from 1) along `dim`, and its position."""
    if not input._node.shape:
        return lifted(kthvalue, input, k, dim)
    axis = sh.axis(dim, len(input._node.shape))
    if not 1 <= k <= input._node.shape[axis]:
        raise ShapeError(
            f"kthvalue: k = {k} out of range for dimension {axis} with size "
            f"{input._node.shape[axis]}"
        )
    place = record(RANKED, (input.detach(),), (axis, k - 1, k, False))
    return pick(input, place, axis, keepdim)


def lifted(function: Callable[..., Extremum], input: Any, *args: Any) -> Extremum:
    """A function of an axis, of a scalar: as of the one element of a vector."""
    values, indices = function(mv.reshape(input, 1), *args)
    return Extremum(mv.reshape(values, ()), mv.reshape(indices, ()))


def pick(input: Any, place: Any, axis: int, keepdim: bool) -> Extremum:
    """The elements at one position along an axis, and the positions."""
    values = record(TAKE_ALONG, (input, place), (axis,))
    if keepdim:
        return Extremum(values, place)
    return Extremum(mv.squeeze(values, axis), mv.squeeze(place, axis))


def mode(input: Tensor, dim: int = -1, keepdim: bool = False) -> Extremum:
    """The most frequent element along `dim`, the smallest of several, and its last position."""
    if not input._node.shape:
        return lifted(mode, input, dim)
    axis = sh.axis(dim, len(input._node.shape))
    rows = np.moveaxis(comparable(input.detach().numpy()), axis, -1)
    place = np.empty(rows.shape[:-1], np.int64)
    for at in np.ndindex(place.shape):
        values, counts = np.unique(rows[at], return_counts=True)
        place[at] = np.flatnonzero(rows[at] == values[counts.argmax()])[-1]
    return pick(input, from_numpy(np.expand_dims(place, axis)), axis, keepdim)


# --- sets and searching ------------------------------------------------------------------------


def unique(
    input: Tensor, sorted: bool = True, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """The distinct elements, or slices along `dim`, in order; reads the tensor.

    Args:
        sorted: they always are.
        return_inverse: also where each element is among them.
        return_counts: also how often each occurs.
        dim: compare slices along an axis.

    Returns:
        The elements, or a tuple of them and what was asked for.
    """
    array = input.detach().numpy()
    found = np.unique(array, False, return_inverse, return_counts, dim)
    values, *rest = found if return_inverse or return_counts else (found,)
    shape = array.shape if dim is None else (array.shape[dim],)
    extras = []
    if return_inverse:
        extras.append(from_numpy(rest.pop(0).reshape(shape).astype(np.int64)))
    if return_counts:
        extras.append(from_numpy(rest.pop(0).astype(np.int64)))
    return (from_numpy(values), *extras) if extras else from_numpy(values)


def unique_consecutive(
    input: Tensor, return_inverse: bool = False, return_counts: bool = False,
    dim: int | None = None,
) -> Any:  # fmt: skip
    """The elements in row-major order, or the slices along `dim`, without repetitions of the one
    before; reads the tensor."""
    array = input.detach().numpy()
    flat = array.reshape(-1) if dim is None else np.moveaxis(array, dim, 0)
    n = len(flat)
    fresh = np.ones(n, bool)
    fresh[1:] = (flat[1:] != flat[:-1]).reshape(max(n - 1, 0), -1).any(1) if n > 1 else True
    starts = np.flatnonzero(fresh)
    inverse = (np.cumsum(fresh) - 1).reshape(array.shape if dim is None else (n,))
    counts = np.diff(np.append(starts, n))
    kept = flat[starts] if dim is None else np.ascontiguousarray(np.moveaxis(flat[starts], 0, dim))
    extras = [from_numpy(inverse.astype(np.int64))] if return_inverse else []
    extras += [from_numpy(counts.astype(np.int64))] if return_counts else []
    return (from_numpy(kept), *extras) if extras else from_numpy(kept)


def searchsorted(
    sorted_sequence: Tensor, input: Any, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """Where values would be inserted into a sorted sequence to keep it sorted.

    Args:
        sorted_sequence: ascending along the last axis; a vector, or one row for each row of values.
        input: the values, or a number.
        right, side: after equal elements (`right=True`, `side="right"`) instead of before.
        sorter: the positions that put the sequence in order, where it is not.

    Returns:
        int64, or int32, of the shape of the values.
    """
    if right and side == "left":
        raise ValueError("searchsorted: side and right can't be set to opposites")
    if sorter is not None:
        axis = len(sorted_sequence._node.shape) - 1
        sorted_sequence = record(TAKE_ALONG, (sorted_sequence, sorter), (axis,))
    values = input if isinstance(input, Lazy) else as_dtype(input, sorted_sequence._node.dtype)
    edges, points = promote_pair(sorted_sequence, values)
    after = right or side == "right"
    out = record(SEARCH, (edges.detach(), points.detach()), (after,))
    return as_dtype(out, dt.int32) if out_int32 else out


def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """Which of the intervals between ascending boundaries each value is in."""
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)


# --- counting ----------------------------------------------------------------------------------


def bincount(input: Tensor, weights: Tensor | None = None, minlength: int = 0) -> Tensor:
    """How often each of `0, 1, 2, ...` occurs in a vector, or the sum of its weights; reads it.

    Raises:
        DTypeError: the elements are not integers.
        ValueError: an element is negative.
    """
    if input._node.dtype.kind not in "iu":
        raise DTypeError(f"bincount: expected integers, got {input._node.dtype.name}")
    values = input.detach().numpy()
    if values.size and values.min() < 0:
        raise ValueError("bincount only supports 1-d non-negative integral inputs.")
    if weights is None:
        return from_numpy(np.bincount(values, minlength=minlength).astype(np.int64))
    by = weights.detach().numpy()
    out = np.bincount(values, by, minlength)
    return from_numpy(out.astype(np.float32 if by.dtype == np.float32 else np.float64))


def histc(input: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:
    """How many elements lie in each of `bins` equal intervals; reads the tensor.

    With `min` and `max` equal they are those of the elements.
    """
    values = comparable(input.detach().numpy()).reshape(-1)
    low, high = float(min), float(max)
    if low == high and values.size:
        low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 1, high + 1
    counts, _ = np.histogram(values, bins, (low, high))
    return from_numpy(counts.astype(input._node.dtype.numpy))


def histogram(
    input: Tensor, bins: int | Tensor, *, range: tuple[float, float] | None = None,
    weight: Tensor | None = None, density: bool = False,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """How many elements lie in each interval, and the boundaries; reads the tensor.

    Args:
        bins: how many equal intervals, or a vector of boundaries.
        range: the ends, those of the elements unless given.
        weight: how much each element counts.
        density: divide by the total and the widths.
    """
    values = comparable(input.detach().numpy()).reshape(-1)
    given = bins.detach().numpy() if isinstance(bins, Lazy) else bins
    by = None if weight is None else weight.detach().numpy().reshape(-1)
    low, high = (values.min(), values.max()) if range is None and values.size else range or (0, 0)
    ends = (low - 0.5, high + 0.5) if low == high else (low, high)
    counts, edges = np.histogram(values, given, ends, density=density, weights=by)
    dtype = input._node.dtype if input._node.dtype.kind == "f" else get_default_dtype()
    return tuple(from_numpy(x.astype(dtype.numpy)) for x in (counts, edges))  # type: ignore


def median_place(input: Any, axis: int) -> Any:
    """The position of the lower median along an axis, of the first NaN where there is one."""
    plain = input.detach()
    rank = (input._node.shape[axis] - 1) // 2
    middle = record(RANKED, (plain,), (axis, rank, rank + 1, False))
    if input._node.dtype.kind != "f":
        return middle
    missing = as_dtype(ar.isnan(plain), dt.int32)
    first = red.argmax(missing, axis, True)
    return ar.where(ar.eq(red.amax(missing, axis, True), 1), first, middle)
