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


# --- sampling ----------------------------------------------------------------------------------


def affine_grid(theta: Any, size: Any, align_corners: bool | None = None) -> Any:
    """The places `(n, h, w, 2)` that affine maps `(n, 2, 3)` of an image's grid lead to, in
    coordinates from -1 to 1."""
    return block(_affine, (theta,), (tuple(size), bool(align_corners)))


def _affine(theta: Any, size: tuple[int, ...], aligned: bool) -> Any:
    n, _, h, w = size
    dtype = theta._node.dtype

    def axis(m: int) -> Any:
        i = pr.cast(pr.counter((m,), 0), dtype)
        if aligned:
            return i * (2 / (m - 1) if m > 1 else 0.0) - (1.0 if m > 1 else 0.0)
        return (i * 2 + 1) * (1 / m) - 1.0

    x = pr.expanded(pr.shaped(axis(w), (1, w, 1)), (h, w, 1))
    y = pr.expanded(pr.shaped(axis(h), (h, 1, 1)), (h, w, 1))
    grid = pr.joined((x, y, pr.filled((h, w, 1), 1.0, dtype)), 2)
    flat = pr.shaped(grid, (h * w, 3))
    return pr.shaped(flat @ theta.transpose(1, 2), (n, h, w, 2))


def grid_sample(input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Any:  # fmt: skip
    """An image read at places between its elements.

    Args:
        input: `(n, c, h, w)`.
        grid: `(n, rows, columns, 2)`, x and y from -1 to 1.
        mode: `"bilinear"` or `"nearest"`.
        padding_mode: `"zeros"` or `"border"`.
        align_corners: let -1 and 1 be the middles of the outermost elements, not their edges.
    """
    if mode not in ("bilinear", "nearest") or padding_mode not in ("zeros", "border"):
        raise NotImplementedError(f"grid_sample: mode {mode!r} with padding {padding_mode!r}")
    if len(shape_of(input)) != 4 or len(shape_of(grid)) != 4 or shape_of(grid)[-1] != 2:
        raise ShapeError(
            f"grid_sample: expected an image (n, c, h, w) and a grid (n, rows, columns, 2), got "
            f"{shape_of(input)} and {shape_of(grid)}"
        )
    return block(_sample, (input, grid), (mode, padding_mode == "border", bool(align_corners)))


def _sample(image: Any, grid: Any, mode: str, border: bool, aligned: bool) -> Any:
    h, w = shape_of(image)[2:]
    places = []
    for j, m in ((1, h), (0, w)):
        part = pr.shaped(
            pr.cut(grid, (0, 0, 0, j), (*shape_of(grid)[:3], j + 1)), shape_of(grid)[:3]
        )
        place = (part + 1.0) * ((m - 1) / 2) if aligned else ((part + 1.0) * m - 1.0) * 0.5
        places.append(place.clamp(0.0, float(m - 1)) if border else place)
    y, x = places
    if mode == "nearest":
        return _corner(image, y.round(), x.round(), None)
    top, left = y.floor(), x.floor()
    dy, dx = y - top, x - left
    out: Any = None
    for j, wy in ((0, 1.0 - dy), (1, dy)):
        for i, wx in ((0, 1.0 - dx), (1, dx)):
            part = _corner(image, top + float(j), left + float(i), wy * wx)
            out = part if out is None else out + part
    return out


def _corner(image: Any, y: Any, x: Any, weight: Any) -> Any:
    """The elements `(n, c, rows, columns)` at whole places, zero outside, times a weight."""
    n, c, h, w = shape_of(image)
    inside = (y >= 0.0) & (y <= float(h - 1)) & (x >= 0.0) & (x <= float(w - 1))
    row = pr.cast(y.clamp(0.0, float(h - 1)), dt.int64)
    column = pr.cast(x.clamp(0.0, float(w - 1)), dt.int64)
    shape = shape_of(row)
    flat = pr.counter(shape, 0) * (h * w) + row * w + column
    pixels = pr.shaped(pr.ordered(image, (0, 2, 3, 1)), (n * h * w, c))
    taken = pr.taken(pixels, pr.shaped(flat, (math.prod(shape),)), 0)
    out = pr.ordered(pr.shaped(taken, (*shape, c)), (0, 3, 1, 2))
    column_shape = (shape[0], 1, *shape[1:])
    zero = pr.constant(0, image._node.dtype)
    out = pr.select(pr.shaped(inside, column_shape), out, zero)
    return out if weight is None else out * pr.shaped(weight, column_shape)


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
