"""Primitives as functions of tensors, for the rooms that compose layers and optimisers of them.

They take exact dtypes and shapes and record one operation each (`windows` and `padded` a few), so
they belong into the body of a `block`. Reductions keep the reduced axes as extents of 1.
"""

from __future__ import annotations

from typing import Any

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.shape import Shape, count, same
from treadle.base.symbolic import real
from treadle.graph.capture import CONSTANT
from treadle.ops import attention, contract, ctc, gather, pointwise, reduce, source, view
from treadle.ops.table import input_node
from treadle.runtime.buffer import empty
from treadle.tensor.record import concrete, record, record1

Pads = tuple[tuple[int, int], ...]


def constant(value: float | bool, dtype: DType) -> Any:
    """A 0-d tensor of a number that never changes, which the plan has built in."""
    return record(source.FULL, (), ((), value, dtype))


def filled(shape: Shape, value: float | bool, dtype: DType) -> Any:
    """A tensor of one value."""
    return record(source.FULL, (), (shape, value, dtype))


def in_memory(shape: Shape, value: float, dtype: DType) -> Any:
    """A tensor of one value that is in memory at once, and that plans may write to."""
    buffer = empty(count(shape) * dtype.itemsize)
    buffer.view(dtype, shape, writable=True).fill(value)
    return concrete(buffer, input_node(shape, dtype))


def counter(shape: Shape, axis: int, dtype: DType = dt.int64) -> Any:
    """The index along an axis."""
    return record(source.IOTA, (), (shape, axis, dtype))


def cast(x: Any, dtype: DType) -> Any:
    """In another dtype."""
    return x if x._node.dtype is dtype else record1(pointwise.CAST, x, (dtype,))


def select(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`."""
    return record(pointwise.WHERE, (condition, a, b))


def fixed(x: Any) -> Any:
    """The same value as a constant, which no gradient passes."""
    return record(view.ALIAS, (x,), (), CONSTANT)


def checked(x: Any, ok: Any, message: str) -> Any:
    """`x`; the run fails with the message (`IndexBoundsError`) where `ok` is false."""
    return record(pointwise.CHECK, (x, ok), (message,))


# --- reductions --------------------------------------------------------------------------------


def total(x: Any, axes: Shape) -> Any:
    """The sum along axes."""
    return record1(reduce.SUM, x, (axes,)) if axes else x


def average(x: Any, axes: Shape) -> Any:
    """The mean along axes; the count is an input of the plan, so that it may change."""
    return total(x, axes) / real(count([x._node.shape[a] for a in axes]))


def peak(x: Any, axes: Shape) -> Any:
    """The largest element along axes as a constant: what a softmax subtracts for safety."""
    return record(reduce.AMAX, (x,), (axes,), CONSTANT)


def first_largest(x: Any, axes: Shape) -> Any:
    """The largest element along axes; the first of equals takes the gradient."""
    return record1(reduce.MAX_REDUCE, x, (axes,))


def first_position(x: Any, best: Any, axes: Shape) -> Any:
    """The first row-major position within the axes of an element equal to `best` (or NaN)."""
    shape = x._node.shape
    place: Any = None
    step = 1
    for axis in reversed(axes):
        part = counter(shape, axis)
        part = part * step if step > 1 else part
        place = part if place is None else place + part
        step *= shape[axis]
    hit = record(pointwise.EQ, (x, best))
    if x._node.dtype.kind == "f":
        hit = record(pointwise.OR, (hit, record1(pointwise.ISNAN, x)))
    candidates = select(hit, place, constant(2**62, dt.int64))
    return record(reduce.AMIN, (candidates,), (axes,))


# --- views -------------------------------------------------------------------------------------


def shaped(x: Any, shape: Shape) -> Any:
    """The elements in row-major order under another shape, as a value of its own."""
    return x if same(x._node.shape, shape) else record1(view.RESHAPE, x, (shape,))


def ordered(x: Any, axes: Shape) -> Any:
    """The axes in another order."""
    return record1(view.PERMUTE, x, (axes,))


def expanded(x: Any, shape: Shape) -> Any:
    """Broadcast to a larger shape."""
    return x if same(x._node.shape, shape) else record1(view.EXPAND, x, (shape,))


def flipped(x: Any, axes: Shape) -> Any:
    """The order along axes reversed."""
    return record1(view.FLIP, x, (axes,)) if axes else x


def cut(x: Any, starts: Shape, stops: Shape, steps: Shape | None = None) -> Any:
    """Every step-th element from start up to stop, along each axis."""
    return record1(view.SLICE, x, (starts, stops, steps or (1,) * len(starts)))


def padded(x: Any, pads: Pads, value: float = 0.0) -> Any:
    """`(before, after)` elements of a value added to each axis; negative numbers take away."""
    shape = x._node.shape
    if any(a < 0 or b < 0 for a, b in pads):
        starts = tuple(max(-a, 0) for a, _ in pads)
        stops = tuple(n - max(-b, 0) for n, (_, b) in zip(shape, pads, strict=True))
        x = cut(x, starts, stops)
        shape = x._node.shape
    grown = tuple((max(a, 0), max(b, 0)) for a, b in pads)
    wide = tuple(n + a + b for n, (a, b) in zip(shape, grown, strict=True))
    if wide == shape:
        return x
    attrs = (wide, tuple(a for a, _ in grown), (1,) * len(shape))
    laid = record1(view.UNSLICE, x, attrs)
    if value == 0:
        return laid
    inside = record1(view.UNSLICE, filled(shape, True, dt.bool_), attrs)
    return select(inside, laid, constant(value, x._node.dtype))


def dilated(x: Any, steps: Shape) -> Any:
    """`step - 1` zeros between the neighbours along each axis."""
    shape = tuple((n - 1) * s + 1 if n else 0 for n, s in zip(x._node.shape, steps, strict=True))
    return x if shape == x._node.shape else record1(
        view.UNSLICE, x, (shape, (0,) * len(shape), steps))  # fmt: skip


def windows(
    x: Any, axes: Shape, sizes: Shape, steps: Shape, dilations: Shape
) -> tuple[Any, tuple[int, ...]]:
    """Sliding windows along axes, and the axes of the result that run within a window.

    Windows that touch without overlap are a reshape: their gradient reads each element once.
    """
    shape = x._node.shape
    counts = tuple(
        (shape[a] - (k - 1) * d - 1) // s + 1
        for a, k, s, d in zip(axes, sizes, steps, dilations, strict=True)
    )
    if sizes == steps and all(d == 1 for d in dilations):
        return _tiles(x, axes, sizes, counts)
    column = shaped(x, shape + (1,) * len(axes))
    wide = record1(view.EXPAND, column, (shape + sizes,))
    out = record1(view.SKEW, wide, (axes, steps, dilations, counts))
    return out, tuple(range(len(shape), len(shape) + len(axes)))


def _tiles(x: Any, axes: Shape, sizes: Shape, counts: Shape) -> tuple[Any, tuple[int, ...]]:
    shape = list(x._node.shape)
    for axis, k, n in zip(axes, sizes, counts, strict=True):
        shape[axis] = k * n
    if tuple(shape) != x._node.shape:
        x = cut(x, (0,) * len(shape), tuple(shape))
    split: list[int] = []
    inner: list[int] = []
    for axis, n in enumerate(shape):
        if axis in axes:
            j = axes.index(axis)
            split += [counts[j], sizes[j]]
            inner.append(len(split) - 1)
        else:
            split.append(n)
    return shaped(x, tuple(split)), tuple(inner)


# --- products and gathers ----------------------------------------------------------------------


def contracted(a: Any, b: Any, left: Shape, right: Shape, out: Shape) -> Any:
    """The sum of products over the labels missing from `out` (einsum with numbers as letters)."""
    return record(contract.CONTRACT, (a, b), (left, right, out))


def convolved(x: Any, w: Any, steps: Shape, pads: Pads, spacings: Shape, dilations: Shape) -> Any:
    """Cross-correlation of `x (n, group, channel, *space)` with `w (group, out, channel, *window)`.

    `pads` may be negative, `spacings` dilate the window, `dilations` the input.
    """
    return record(contract.CONV, (x, w), (steps, pads, spacings, dilations))


def attended(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool) -> Any:
    """`softmax(q k^T scale + mask) v` for float32 or float64, by one kernel.

    q `(b, t, h, d)`, k `(b, s, h, d)`, v `(b, s, h, e)` and the result `(b, t, h, e)` in the order
    of projections; mask `None` or `(b, h, t, s)`, extents of 1 being broadcast: bool (true where
    a query sees a key) or added to the scores.
    """
    rest = () if mask is None else (mask,)
    lse = record(attention.ATTENTION_LSE, (q, k, *rest), (scale, causal))
    return record(attention.ATTENTION, (q, k, v, lse, *rest), (scale, causal))


def taken(x: Any, index: Any, axis: int) -> Any:
    """The slices of `x` along an axis at an int64 index of any shape."""
    return record(gather.TAKE, (x, index), (axis,))


def scattered(x: Any, index: Any, axis: int, extent: int) -> Any:
    """Zeros, to which the slices of `x` are added at an index along an axis."""
    return record(gather.SCATTER_ADD, (x, index), (axis, extent))


def joined(parts: tuple[Any, ...], axis: int) -> Any:
    """The parts one after another along an axis."""
    return parts[0] if len(parts) == 1 else record(gather.JOIN, parts, (axis,))


def taken_along(x: Any, index: Any, axis: int) -> Any:
    """The elements of `x` at an int64 index of its rank, which runs along one axis."""
    return record(gather.TAKE_ALONG, (x, index), (axis,))


def spelled(x: Any, target: Any, times: Any, lengths: Any, blank: int, finite: bool) -> Any:
    """Minus the log-probability `(n,)` of each target over its alignments; `finite` gives 0 where
    there is none."""
    return record(ctc.CTC, (x, target, times, lengths), (blank, finite))
