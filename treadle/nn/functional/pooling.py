"""Pooling: one value of each window.

Windows are a view (`primitive.windows`) and pooling is a reduction of it, so that both directions
fuse with what stands around them.
"""

from __future__ import annotations

import math
from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import ShapeError
from treadle.base.symbolic import real
from treadle.nn.functional.common import repeated, shape_of
from treadle.tensor import block, no_grad
from treadle.tensor import primitive as pr


class _Plan:
    """Where the windows of a pooling lie."""

    def __init__(self, x: Any, window: Any, steps: Any, pads: Any, spacings: Any, ceil: bool):
        rank = len(window)
        shape = shape_of(x)
        self.axes = tuple(range(len(shape) - rank, len(shape)))
        ends = []
        for n, k, s, p, d in zip(shape[-rank:], window, steps, pads, spacings, strict=True):
            room = n + 2 * p - d * (k - 1) - 1
            count = (-(-room // s) if ceil else room // s) + 1
            if ceil and (count - 1) * s >= n + p:
                count -= 1
            if count < 1:
                raise ShapeError(
                    f"pooling: the window {tuple(window)} is larger than the padded input "
                    f"{shape[-rank:]}"
                )
            # Elements behind the end that the last window reaches.
            ends.append(max((count - 1) * s + d * (k - 1) + 1 - n - p, 0))
        lead = ((0, 0),) * (len(shape) - rank)
        self.padding = (*lead, *zip(pads, ends, strict=True))
        self.inner = (*lead, *((p, p) for p in pads))
        self.geometry = (self.axes, window, steps, spacings)


def _require(name: str, x: Any, rank: int) -> None:
    if len(shape_of(x)) not in (rank + 1, rank + 2):
        raise ShapeError(
            f"{name}: Expected {rank + 1}D or {rank + 2}D input, got shape {shape_of(x)}"
        )


def _require_half(window: tuple[int, ...], pads: tuple[int, ...]) -> None:
    if any(p > k / 2 for k, p in zip(window, pads, strict=True)):
        raise RuntimeError(
            f"pad should be at most half of effective kernel size, but got pad={pads}, "
            f"kernel_size={window}"
        )


# --- maximum -----------------------------------------------------------------------------------


def _max_pool(x: Any, window: Any, steps: Any, pads: Any, spacings: Any, ceil: bool,
              places: bool) -> Any:  # fmt: skip
    plan = _Plan(x, window, steps, pads, spacings, ceil)
    lowest = _lowest(x._node.dtype)
    wide, inner = pr.windows(pr.padded(x, plan.padding, lowest), *plan.geometry)
    best = pr.first_largest(wide, inner)
    kept = tuple(n for a, n in enumerate(shape_of(best)) if a not in inner)
    out = pr.shaped(best, kept)
    if not places:
        return out
    with no_grad():
        rank = len(window)
        space = shape_of(x)[-rank:]
        at = pr.counter(shape_of(x), len(shape_of(x)) - rank)
        for j in range(1, rank):
            at = at * space[j] + pr.counter(shape_of(x), len(shape_of(x)) - rank + j)
        spread, _ = pr.windows(pr.padded(at, plan.padding), *plan.geometry)
        first = pr.first_position(wide, best, inner)
        chosen = _offsets(shape_of(wide), inner) == first
        index = pr.total(pr.select(chosen, spread, pr.constant(0, dt.int64)), inner)
    return out, pr.shaped(index, kept)


def _lowest(dtype: Any) -> float:
    """What no element of a dtype is below."""
    return -math.inf if dtype.kind == "f" else 0 if dtype.kind in "ub" else -(2 ** (dtype.bits - 1))


def _offsets(shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """The row-major position within some axes."""
    out: Any = pr.counter(shape, axes[0])
    for axis in axes[1:]:
        out = out * shape[axis] + pr.counter(shape, axis)
    return out


def _max(rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
         ceil_mode: bool, return_indices: bool) -> Any:  # fmt: skip
    _require(f"max_pool{rank}d", x, rank)
    window = repeated(kernel_size, rank, "kernel_size")
    pads = repeated(padding, rank, "padding")
    _require_half(window, pads)
    attrs = (
        window,
        window if stride is None or stride == () else repeated(stride, rank, "stride"),
        pads,
        repeated(dilation, rank, "dilation"),
        ceil_mode,
        return_indices,
    )
    return block(_max_pool, (x,), attrs)


def max_pool1d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False,
               return_indices: bool = False) -> Any:  # fmt: skip
    """The largest element of each window; the first of equals takes the gradient.

    Args:
        input: `(n, channels, length)` or `(channels, length)`.
        kernel_size: elements in a window.
        stride: elements between windows (default: the window).
        padding: elements of -inf at both ends.
        dilation: elements between the taps of a window.
        ceil_mode: let the last window reach over the end.
        return_indices: give the positions in the input as well.
    """
    return _max(1, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool2d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False,
               return_indices: bool = False) -> Any:  # fmt: skip
    """`max_pool1d` of images `(n, channels, h, w)`; positions are row-major in the image."""
    return _max(2, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


def max_pool3d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
               dilation: Any = 1, ceil_mode: bool = False,
               return_indices: bool = False) -> Any:  # fmt: skip
    """`max_pool1d` of volumes `(n, channels, d, h, w)`; positions are row-major."""
    return _max(3, input, kernel_size, stride, padding, dilation, ceil_mode, return_indices)


# --- average -----------------------------------------------------------------------------------


def _avg_pool(x: Any, window: Any, steps: Any, pads: Any, ceil: bool, with_pad: bool,
              divisor: float | None) -> Any:  # fmt: skip
    ones = (1,) * len(window)
    plan = _Plan(x, window, steps, pads, ones, ceil)
    wide, inner = pr.windows(pr.padded(x, plan.padding), *plan.geometry)
    total = pr.total(wide, inner)
    kept = tuple(n for a, n in enumerate(shape_of(total)) if a not in inner)
    out = pr.shaped(total, kept)
    if divisor is not None:
        return _shared(out, divisor)
    whole = math.prod(window)
    inside = all(b <= d for (_, b), (_, d) in zip(plan.padding, plan.inner, strict=True))
    if (inside and with_pad) or not any(a or b for a, b in plan.padding):
        if x._node.dtype.kind != "f":
            return _shared(out, whole)
        return out * pr.constant(1 / whole, x._node.dtype)
    # The windows at the edges hold fewer elements: count what each of them covers.
    shape = (*(1,) * (len(shape_of(x)) - len(window)), *shape_of(x)[-len(window) :])
    lit = pr.filled(shape, 1, x._node.dtype)
    if with_pad:
        lit = pr.padded(lit, plan.inner, 1)
        rest = tuple(
            (a - c, b - d) for (a, b), (c, d) in zip(plan.padding, plan.inner, strict=True)
        )
        lit = pr.padded(lit, rest)
    else:
        lit = pr.padded(lit, plan.padding)
    counted, inner = pr.windows(lit, *plan.geometry)
    counts = pr.total(counted, inner)
    return _shared(out, pr.shaped(counts, (*shape[: -len(window)], *kept[-len(window) :])))


def _shared(total: Any, parts: Any) -> Any:
    """A sum divided by how many there are; of integers the whole part."""
    if total._node.dtype.kind != "f":
        return total.div(parts, rounding_mode="trunc")
    return total / (parts if hasattr(parts, "_node") else real(parts))


def _avg(rank: int, x: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
         count_include_pad: bool, divisor_override: float | None) -> Any:  # fmt: skip
    _require(f"avg_pool{rank}d", x, rank)
    if divisor_override == 0:
        raise RuntimeError("divisor must be not zero")
    window = repeated(kernel_size, rank, "kernel_size")
    pads = repeated(padding, rank, "padding")
    _require_half(window, pads)
    steps = window if stride is None or stride == () else repeated(stride, rank, "stride")
    attrs = (window, steps, pads, ceil_mode, count_include_pad, divisor_override)
    return block(_avg_pool, (x,), attrs)


def avg_pool1d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True) -> Any:  # fmt: skip
    """The mean of each window; `count_include_pad` counts the padding's zeros."""
    return _avg(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad, None)


def avg_pool2d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: float | None = None) -> Any:  # fmt: skip
    """`avg_pool1d` of images; `divisor_override` replaces the number of elements."""
    return _avg(
        2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def avg_pool3d(input: Any, kernel_size: Any, stride: Any = None, padding: Any = 0,
               ceil_mode: bool = False, count_include_pad: bool = True,
               divisor_override: float | None = None) -> Any:  # fmt: skip
    """`avg_pool1d` of volumes; `divisor_override` replaces the number of elements."""
    return _avg(
        3, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor_override
    )


def lp_pool1d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None,
              ceil_mode: bool = False) -> Any:  # fmt: skip
    """The p-norm of each window."""
    return _lp(1, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool2d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None,
              ceil_mode: bool = False) -> Any:  # fmt: skip
    """The p-norm of each window of an image."""
    return _lp(2, input, norm_type, kernel_size, stride, ceil_mode)


def lp_pool3d(input: Any, norm_type: float, kernel_size: Any, stride: Any = None,
              ceil_mode: bool = False) -> Any:  # fmt: skip
    """The p-norm of each window of a volume."""
    return _lp(3, input, norm_type, kernel_size, stride, ceil_mode)


def _lp(rank: int, x: Any, p: float, kernel_size: Any, stride: Any, ceil_mode: bool) -> Any:
    window = repeated(kernel_size, rank, "kernel_size")
    out = _avg(rank, x**p, window, stride, 0, ceil_mode, True, None)
    return (out * float(math.prod(window))).relu() ** (1.0 / p)


# --- adaptive ----------------------------------------------------------------------------------


def _targets(x: Any, output_size: Any, rank: int) -> tuple[int, ...]:
    sizes = repeated(output_size, rank, "output_size")
    return tuple(
        n if size is None else size for n, size in zip(shape_of(x)[-rank:], sizes, strict=True)
    )


def _mean_matrix(n: int, m: int, dtype: Any) -> Any:
    """`(m, n)`: row i averages the elements from `floor(i n / m)` to `ceil((i + 1) n / m)`."""
    row, column = pr.counter((m, n), 0), pr.counter((m, n), 1)
    start, end = row * n // m, ((row + 1) * n + (m - 1)) // m
    inside = pr.cast((column >= start) & (column < end), dtype)
    return inside / pr.cast(end - start, dtype)


def adaptive_avg(x: Any, sizes: tuple[int, ...]) -> Any:
    """Within a block: the means of windows that cover the last axes evenly."""
    rank = len(sizes)
    first = len(shape_of(x)) - rank
    if all(m and n % m == 0 for n, m in zip(shape_of(x)[-rank:], sizes, strict=True)):
        window = tuple(n // m for n, m in zip(shape_of(x)[-rank:], sizes, strict=True))
        return _avg_pool(x, window, window, (0,) * rank, False, True, None)
    out = x
    for j, m in enumerate(sizes):
        axis = first + j
        labels = tuple(range(len(shape_of(out))))
        new = tuple(len(labels) if a == axis else a for a in labels)
        matrix = _mean_matrix(shape_of(out)[axis], m, x._node.dtype)
        out = pr.contracted(out, matrix, labels, (len(labels), axis), new)
    return out


def _adaptive_max(x: Any, sizes: tuple[int, ...], places: bool) -> Any:
    rank, shape = len(sizes), shape_of(x)
    space = shape[-rank:]
    out = x
    inner: list[int] = []
    # Each axis in turn becomes (windows, longest window): positions beyond a window's end repeat
    # its last element, which never wins over itself.
    axis = len(shape) - rank
    for n, m in zip(space, sizes, strict=True):
        out = pr.taken(out, _window_index(n, m), axis)
        inner.append(axis + 1)
        axis += 2
    best = pr.first_largest(out, tuple(inner))
    kept = tuple(n for a, n in enumerate(shape_of(best)) if a not in inner)
    if not places:
        return pr.shaped(best, kept)
    with no_grad():
        at = pr.counter(space, 0)
        for j in range(1, rank):
            at = at * space[j] + pr.counter(space, j)
        for j, (n, m) in enumerate(zip(space, sizes, strict=True)):
            at = pr.taken(at, _window_index(n, m), 2 * j)
        chosen = _offsets(shape_of(out), tuple(inner)) == pr.first_position(out, best, tuple(inner))
        index = pr.total(pr.select(chosen, at, pr.constant(0, dt.int64)), tuple(inner))
    return pr.shaped(best, kept), pr.shaped(index, kept)


def _window_index(n: int, m: int) -> Any:
    """`(m, longest)`: the positions of the elements of each window, the last one repeated."""
    longest = max(-(-(i + 1) * n // m) - i * n // m for i in range(m)) if m else 1
    row, column = pr.counter((m, longest), 0), pr.counter((m, longest), 1)
    last = ((row + 1) * n + (m - 1)) // m - 1
    return (row * n // m + column).minimum(last)


def adaptive_avg_pool1d(input: Any, output_size: Any) -> Any:
    """The means of `output_size` windows that cover the input evenly."""
    return block(adaptive_avg, (input,), (_targets(input, output_size, 1),))


def adaptive_avg_pool2d(input: Any, output_size: Any) -> Any:
    """The means of `output_size` windows that cover the image evenly; `None` keeps an extent."""
    return block(adaptive_avg, (input,), (_targets(input, output_size, 2),))


def adaptive_avg_pool3d(input: Any, output_size: Any) -> Any:
    """The means of `output_size` windows that cover the volume evenly; `None` keeps an extent."""
    return block(adaptive_avg, (input,), (_targets(input, output_size, 3),))


def adaptive_max_pool1d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of `output_size` windows that cover the input evenly."""
    return block(_adaptive_max, (input,), (_targets(input, output_size, 1), return_indices))


def adaptive_max_pool2d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of `output_size` windows that cover the image evenly."""
    return block(_adaptive_max, (input,), (_targets(input, output_size, 2), return_indices))


def adaptive_max_pool3d(input: Any, output_size: Any, return_indices: bool = False) -> Any:
    """The maxima of `output_size` windows that cover the volume evenly."""
    return block(_adaptive_max, (input,), (_targets(input, output_size, 3), return_indices))
