"""Reading and writing images at computed places: folding, unpooling, sampling; bags of rows."""

from __future__ import annotations

import math
from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import ShapeError
from treadle.nn.functional.common import repeated, shape_of
from treadle.nn.functional.linear import embedding
from treadle.tensor import block, no_grad
from treadle.tensor import primitive as pr

# --- fold and unpool ---------------------------------------------------------------------------


def fold(input: Any, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
         stride: Any = 1) -> Any:  # fmt: skip
    """Adds up columns `(n, c * window, positions)` into images `(n, c, h, w)`: the adjoint of
    `unfold`."""
    pairs = (output_size, kernel_size, dilation, padding, stride)
    return block(_fold, (input,), tuple(repeated(v, 2) for v in pairs))


def _fold(x: Any, space: Any, window: Any, spacings: Any, pads: Any, steps: Any) -> Any:
    batched = len(shape_of(x)) == 3
    x = x if batched else pr.shaped(x, (1, *shape_of(x)))
    n, rows, positions = shape_of(x)
    wide = tuple(m + 2 * p for m, p in zip(space, pads, strict=True))
    counts = tuple(
        (m - (k - 1) * d - 1) // s + 1
        for m, k, d, s in zip(wide, window, spacings, steps, strict=True)
    )
    c = rows // math.prod(window)
    if rows % math.prod(window) or positions != math.prod(counts):
        raise ShapeError(
            f"fold: given output_size={space}, kernel_size={window}, dilation={spacings}, "
            f"padding={pads}, stride={steps}, expected input of shape (n, c * "
            f"{math.prod(window)}, {math.prod(counts)}), but got {shape_of(x)}"
        )
    parted = pr.shaped(x, (n, c, *window, *counts))
    index = _places(counts, window, steps, spacings, wide)
    flat = pr.ordered(parted, (2, 3, 4, 5, 0, 1))
    flat = pr.shaped(flat, (math.prod(window) * math.prod(counts), n, c))
    summed = pr.scattered(flat, index, 0, math.prod(wide))
    image = pr.ordered(pr.shaped(summed, (*wide, n, c)), (2, 3, 0, 1))
    out = pr.padded(image, ((0, 0), (0, 0), *((-p, -p) for p in pads)))
    return out if batched else pr.shaped(out, shape_of(out)[1:])


def _places(counts: Any, window: Any, steps: Any, spacings: Any, wide: Any) -> Any:
    """Where each tap of each window lies in the padded image, taps first."""
    shape = (*window, *counts)
    rows = pr.counter(shape, 2) * steps[0] + pr.counter(shape, 0) * spacings[0]
    columns = pr.counter(shape, 3) * steps[1] + pr.counter(shape, 1) * spacings[1]
    return pr.shaped(rows * wide[1] + columns, (math.prod(shape),))


def _unpool(x: Any, index: Any, space: tuple[int, ...]) -> Any:
    lead = shape_of(x)[: -len(space)]
    count, cells = math.prod(lead), math.prod(space)
    rows = math.prod(shape_of(x)[-len(space) :])
    flat = pr.shaped(pr.cast(index, dt.int64), (count, rows))
    ok = (flat >= 0) & (flat < cells)
    flat = pr.checked(flat, ok, f"max_unpool: found an invalid max index for {cells} elements")
    place = pr.shaped(pr.counter((count, rows), 0) * cells + flat, (count * rows,))
    sums = pr.scattered(pr.shaped(x, (count * rows,)), place, 0, count * cells)
    # Windows that overlap name one place more than once, with one value: it counts once, and
    # each of them takes the gradient.
    with no_grad():
        times = pr.scattered(pr.filled((count * rows,), 1.0, x._node.dtype), place, 0,
                             count * cells)  # fmt: skip
        value = sums / times.maximum(pr.constant(1, x._node.dtype))
    return pr.shaped(pr.fixed(value) + (sums - pr.fixed(sums)), (*lead, *space))


def _max_unpool(rank: int, x: Any, index: Any, kernel_size: Any, stride: Any, padding: Any,
                output_size: Any) -> Any:  # fmt: skip
    window = repeated(kernel_size, rank, "kernel_size")
    steps = window if stride is None else repeated(stride, rank, "stride")
    pads = repeated(padding, rank, "padding")
    space = shape_of(x)[-rank:]
    if output_size is None:
        out = tuple(
            (n - 1) * s - 2 * p + k for n, s, p, k in zip(space, steps, pads, window, strict=True)
        )
    else:
        out = tuple(output_size)[-rank:]
    return block(_unpool, (x, index), (out,))


def max_unpool1d(input: Any, indices: Any, kernel_size: Any, stride: Any = None,
                 padding: Any = 0, output_size: Any = None) -> Any:  # fmt: skip
    """Lays maxima back where `max_pool1d(return_indices=True)` found them, zeros elsewhere."""
    return _max_unpool(1, input, indices, kernel_size, stride, padding, output_size)


def max_unpool2d(input: Any, indices: Any, kernel_size: Any, stride: Any = None,
                 padding: Any = 0, output_size: Any = None) -> Any:  # fmt: skip
    """Lays maxima back where `max_pool2d(return_indices=True)` found them, zeros elsewhere."""
    return _max_unpool(2, input, indices, kernel_size, stride, padding, output_size)


def max_unpool3d(input: Any, indices: Any, kernel_size: Any, stride: Any = None,
                 padding: Any = 0, output_size: Any = None) -> Any:  # fmt: skip
    """Lays maxima back where `max_pool3d(return_indices=True)` found them, zeros elsewhere."""
    return _max_unpool(3, input, indices, kernel_size, stride, padding, output_size)


# --- bags --------------------------------------------------------------------------------------


def embedding_bag(
    input: Any, weight: Any, offsets: Any = None, max_norm: float | None = None,
    norm_type: float = 2, scale_grad_by_freq: bool = False, mode: str = "mean",
    sparse: bool = False, per_sample_weights: Any = None, include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Any:  # fmt: skip
    """The sum, mean or maximum of the rows of a table in each of several bags.

    Args:
        input: `(bags, length)`, or all bags one after another with `offsets`.
        weight: `(rows, features)`.
        offsets: `(bags,)`, where each bag starts.
        mode: `"sum"`, `"mean"` or `"max"`.
        per_sample_weights: factors of the rows, for `"sum"`.
        include_last_offset: the last offset is the end, not a start.
        padding_idx: a row that does not count.
        max_norm, norm_type, scale_grad_by_freq, sparse: as those of `embedding`.
    """
    if mode not in ("sum", "mean", "max"):
        raise ValueError("mode has to be one of sum, mean or max")
    if per_sample_weights is not None and mode != "sum":
        raise NotImplementedError("embedding_bag: per_sample_weights is only supported for 'sum'")
    if padding_idx is not None:
        padding_idx %= shape_of(weight)[0]
    if len(shape_of(input)) == 2:
        if offsets is not None:
            raise ValueError("if input is 2D, then offsets has to be None")
        bags, length = shape_of(input)
        bag = pr.shaped(pr.counter((bags, length), 0), (bags * length,))
        input = input.reshape(-1)
        per_sample_weights = None if per_sample_weights is None else per_sample_weights.reshape(-1)
    else:
        if offsets is None:
            raise ValueError("offsets has to be a 1D Tensor but got None")
        bags = shape_of(offsets)[0] - include_last_offset
        bag = block(_bag_of, (offsets,), (shape_of(input)[0], bags))
    rows = embedding(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq)
    tensors = [rows, input, bag]
    if per_sample_weights is not None:
        tensors.append(per_sample_weights)
    return block(_bags, tensors, (bags, mode, padding_idx))


def _bag_of(offsets: Any, length: int, bags: int) -> Any:
    """The bag of each element: how many of the offsets but the first are not behind it."""
    starts = pr.shaped(pr.cut(pr.cast(offsets, dt.int64), (0,), (bags,)), (1, bags))
    place = pr.counter((length, bags), 0)
    passed = pr.cast(starts <= place, dt.int64)
    return pr.shaped(pr.total(passed, (1,)), (length,)) - 1


def _bags(rows: Any, index: Any, bag: Any, *rest: Any) -> Any:
    *tensors, bags, mode, padding = rest
    dtype = rows._node.dtype
    n, features = shape_of(rows)
    counts = pr.filled((n, 1), 1.0, dtype)
    if padding is not None:
        counts = pr.cast(pr.shaped(pr.cast(index, dt.int64) != padding, (n, 1)), dtype)
    if mode == "max":
        inside = pr.counter((bags, n, 1), 0) == pr.shaped(bag, (1, n, 1))
        inside = inside & pr.shaped(counts > 0, (1, n, 1))
        lowest = pr.constant(-math.inf, dtype)
        wide = pr.select(inside, pr.shaped(rows, (1, n, features)), lowest)
        best = pr.shaped(pr.first_largest(wide, (1,)), (bags, features))
        return pr.select(best == lowest, pr.constant(0, dtype), best)
    if tensors:
        rows = rows * pr.shaped(tensors[0], (n, 1))
    total = pr.scattered(rows * counts, bag, 0, bags)
    if mode == "sum":
        return total
    size = pr.scattered(counts, bag, 0, bags)
    return total / size.maximum(pr.constant(1, dtype))
