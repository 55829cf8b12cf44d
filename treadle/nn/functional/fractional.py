"""Maxima of windows at random places.

Source: Graham, "Fractional Max-Pooling" (2014).
"""

from __future__ import annotations

import math
from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import ShapeError
from treadle.nn.functional.common import repeated, shape_of
from treadle.tensor import block, no_grad, rand
from treadle.tensor import primitive as pr


def fractional_max_pool2d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Any = None,
) -> Any:  # fmt: skip
    """The largest elements of windows of images whose places are drawn.

    Args:
        input: `(n, channels, h, w)` or `(channels, h, w)`.
        kernel_size: extents of the window.
        output_size: how many windows along each axis, or
        output_ratio: that as a share of the input, in (0, 1).
        return_indices: give the row-major positions in the image as well.
        _random_samples: `(n, channels, 2)` in [0, 1), drawn unless given; those of
            further images are passed over.
    """
    return _fractional(2, input, kernel_size, output_size, output_ratio, return_indices,
                       _random_samples)  # fmt: skip


def fractional_max_pool3d(
    input: Any, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
    return_indices: bool = False, _random_samples: Any = None,
) -> Any:  # fmt: skip
    """`fractional_max_pool2d` of volumes `(n, channels, d, h, w)`."""
    return _fractional(3, input, kernel_size, output_size, output_ratio, return_indices,
                       _random_samples)  # fmt: skip


def _fractional(rank: int, x: Any, kernel_size: Any, output_size: Any, output_ratio: Any,
                places: bool, draws: Any) -> Any:  # fmt: skip
    if len(shape_of(x)) not in (rank + 1, rank + 2):
        raise ShapeError(
            f"fractional_max_pool{rank}d: Expected {rank + 1}D or {rank + 2}D input, got "
            f"{shape_of(x)}"
        )
    if output_size is None and output_ratio is None:
        raise ValueError(
            f"fractional_max_pool{rank}d requires specifying either an output_size or an "
            f"output_ratio"
        )
    window = repeated(kernel_size, rank, "kernel_size")
    space = shape_of(x)[-rank:]
    if output_size is None:
        ratios = repeated(output_ratio, rank, "output_ratio")
        sizes = tuple(int(n * r) for n, r in zip(space, ratios, strict=True))
    else:
        sizes = repeated(output_size, rank, "output_size")
    for n, k, m in zip(space, window, sizes, strict=True):
        if m + k - 1 > n:
            raise RuntimeError(
                f"fractional_max_pool{rank}d: pool size {k} too large relative to input size {n}"
            )
    batched = x if len(shape_of(x)) == rank + 2 else x.unsqueeze(0)
    if draws is None:
        draws = rand(*shape_of(batched)[:2], rank, dtype=x.dtype)
    # As PyTorch: samples for more images than there are count for the first ones.
    draws = draws[: shape_of(batched)[0]]
    out = block(_pooled, (batched, draws), (window, sizes, places))
    if batched is x:
        return out
    return tuple(t.squeeze(0) for t in out) if places else out.squeeze(0)


def _starts(draws: Any, column: int, n: int, k: int, m: int) -> Any:
    """Where the windows along an axis begin, `(n, channels, m)`: evenly but for rounding."""
    lead = shape_of(draws)[:2]
    u = pr.cut(draws, (0, 0, column), (*lead, column + 1))
    i = pr.cast(pr.counter((*lead, m), 2), draws._node.dtype)
    if m == 1:
        return pr.filled((*lead, m), n - k, dt.int64)
    alpha = (n - k) / (m - 1)
    at = pr.cast(((i + u) * alpha).floor() - (u * alpha).floor(), dt.int64)
    return pr.select(pr.counter((*lead, m), 2) == m - 1, pr.constant(n - k, dt.int64), at)


def _pooled(x: Any, draws: Any, window: Any, sizes: Any, places: bool) -> Any:
    rank, space = len(window), shape_of(x)[2:]
    lead = shape_of(x)[:2]
    at = _positions(space)
    out, inner = x, []
    # Each axis in turn becomes (windows, window).
    for j, (n, k, m) in enumerate(zip(space, window, sizes, strict=True)):
        axis = 2 + 2 * j
        # PyTorch's samples are (w, h) of images, but (d, h, w) of volumes.
        start = _starts(draws, rank - 1 - j if rank == 2 else j, n, k, m)
        index = pr.shaped(start, (*lead, m, 1)) + pr.counter((*lead, m, k), 3)
        out = _taken(out, pr.shaped(index, (*lead, m * k)), axis, (m, k))
        if places:
            with no_grad():
                at = pr.expanded(at, (*lead, *shape_of(at)[2:]))
                at = _taken(at, pr.shaped(index, (*lead, m * k)), axis, (m, k))
        inner.append(axis + 1)
    best = pr.first_largest(out, tuple(inner))
    kept = (*lead, *sizes)
    if not places:
        return pr.shaped(best, kept)
    with no_grad():
        shape = shape_of(out)
        offset: Any = 0
        for axis in inner:
            offset = offset * shape[axis] + pr.counter(shape, axis)
        chosen = offset == pr.first_position(out, best, tuple(inner))
        index = pr.total(pr.select(chosen, at, pr.constant(0, dt.int64)), tuple(inner))
    return pr.shaped(best, kept), pr.shaped(index, kept)


def _positions(space: tuple[int, ...]) -> Any:
    """The row-major position of each element."""
    at = pr.counter((1, 1, math.prod(space)), 2)
    return pr.shaped(at, (1, 1, *space))


def _taken(x: Any, index: Any, axis: int, parts: tuple[int, int]) -> Any:
    """Elements along an axis at an index for each image and channel, the axis then in two."""
    shape = shape_of(x)
    flat = (*shape[:2], *(1,) * (axis - 2), shape_of(index)[2], *(1,) * (len(shape) - axis - 1))
    wide = (*shape[:axis], shape_of(index)[2], *shape[axis + 1 :])
    out = pr.taken_along(x, pr.expanded(pr.shaped(index, flat), wide), axis)
    return pr.shaped(out, (*shape[:axis], *parts, *shape[axis + 1 :]))
