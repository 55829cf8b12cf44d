"""Functions of the layout of images: padding, shuffling, resizing, unfolding."""

from __future__ import annotations

import math
from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import ShapeError
from treadle.nn.functional.common import repeated, shape_of
from treadle.nn.functional.pooling import adaptive_avg
from treadle.tensor import block
from treadle.tensor import primitive as pr

# --- shuffles ----------------------------------------------------------------------------------


def pixel_shuffle(input: Any, upscale_factor: int) -> Any:
    """`(*, c r^2, h, w)` to `(*, c, h r, w r)`."""
    return block(_shuffle, (input,), (upscale_factor,))


def _shuffle(x: Any, r: int) -> Any:
    *lead, c, h, w = shape_of(x)
    if c % (r * r):
        raise ShapeError(
            f"pixel_shuffle expects its input's 'channel' dimension to be divisible by the square "
            f"of upscale_factor, but {c} is not divisible by {r * r}"
        )
    k = len(lead)
    parted = pr.shaped(x, (*lead, c // (r * r), r, r, h, w))
    moved = pr.ordered(parted, (*range(k), k, k + 3, k + 1, k + 4, k + 2))
    return pr.shaped(moved, (*lead, c // (r * r), h * r, w * r))


def pixel_unshuffle(input: Any, downscale_factor: int) -> Any:
    """`(*, c, h r, w r)` to `(*, c r^2, h, w)`."""
    return block(_unshuffle, (input,), (downscale_factor,))


def _unshuffle(x: Any, r: int) -> Any:
    *lead, c, h, w = shape_of(x)
    if h % r or w % r:
        raise ShapeError(f"pixel_unshuffle: {h} x {w} is not divisible by {r}")
    k = len(lead)
    parted = pr.shaped(x, (*lead, c, h // r, r, w // r, r))
    moved = pr.ordered(parted, (*range(k), k, k + 2, k + 4, k + 1, k + 3))
    return pr.shaped(moved, (*lead, c * r * r, h // r, w // r))


def channel_shuffle(input: Any, groups: int) -> Any:
    """The channels of `(n, c, *)` dealt out over `groups`."""
    return block(_channel_shuffle, (input,), (groups,))


def _channel_shuffle(x: Any, groups: int) -> Any:
    n, c, *space = shape_of(x)
    if c % groups:
        raise ShapeError(f"channel_shuffle: {c} channels are not divisible by {groups} groups")
    parted = pr.shaped(x, (n, groups, c // groups, *space))
    return pr.shaped(pr.ordered(parted, (0, 2, 1, *range(3, 3 + len(space)))), shape_of(x))


# --- windows as columns ------------------------------------------------------------------------


def unfold(input: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
           stride: Any = 1) -> Any:  # fmt: skip
    """The windows of `(n, c, h, w)` as columns `(n, c * window, positions)`."""
    attrs = tuple(repeated(v, 2) for v in (kernel_size, dilation, padding, stride))
    return block(_unfold, (input,), attrs)


def _unfold(x: Any, window: Any, spacings: Any, pads: Any, steps: Any) -> Any:
    batched = len(shape_of(x)) == 4
    x = x if batched else pr.shaped(x, (1, *shape_of(x)))
    n, c = shape_of(x)[:2]
    wide = pr.padded(x, ((0, 0), (0, 0), *((p, p) for p in pads)))
    out, inner = pr.windows(wide, (2, 3), window, steps, spacings)
    outer = tuple(a for a in range(2, 6) if a not in inner)
    moved = pr.ordered(out, (0, 1, *inner, *outer))
    positions = math.prod(shape_of(moved)[4:])
    columns = pr.shaped(moved, (n, c * math.prod(window), positions))
    return columns if batched else pr.shaped(columns, shape_of(columns)[1:])


# --- resizing ----------------------------------------------------------------------------------

_RANKS = {"nearest": (1, 2, 3), "nearest-exact": (1, 2, 3), "linear": (1,), "bilinear": (2,),
          "trilinear": (3,), "bicubic": (2,), "area": (1, 2, 3)}  # fmt: skip


def interpolate(
    input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
    align_corners: bool | None = None, recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Any:  # fmt: skip
    """Resizes the last axes of `(n, c, *)`.

    Args:
        size: the new extents, or
        scale_factor: factors of the old ones.
        mode: `"nearest"`, `"nearest-exact"`, `"linear"`, `"bilinear"`, `"trilinear"`, `"bicubic"`
            or `"area"`.
        align_corners: let the outermost points of both grids coincide.
        recompute_scale_factor: use the exact ratio of the extents, not the given factor.
    """
    shape = shape_of(input)
    rank = len(shape) - 2
    if mode not in _RANKS or rank not in _RANKS[mode]:
        raise NotImplementedError(f"Input {len(shape)}D is not supported in mode {mode!r}")
    if antialias:
        raise NotImplementedError("interpolate: antialias=True is not supported")
    if (size is None) == (scale_factor is None):
        raise ValueError("only one of size or scale_factor should be defined")
    if align_corners is not None and mode in ("nearest", "nearest-exact", "area"):
        raise ValueError(
            "align_corners option can only be set with the interpolating modes: linear | bilinear "
            "| bicubic | trilinear"
        )
    space = shape[2:]
    if size is not None:
        sizes = repeated(size, rank, "size")
        ratios: tuple[float, ...] = tuple(n / m for n, m in zip(space, sizes, strict=True))
    else:
        factors = repeated(scale_factor, rank, "scale_factor")
        sizes = tuple(math.floor(n * f) for n, f in zip(space, factors, strict=True))
        exact = recompute_scale_factor
        ratios = tuple(
            n / m if exact else 1 / f for n, m, f in zip(space, sizes, factors, strict=True)
        )
    if mode == "area":
        return block(adaptive_avg, (input,), (sizes,))
    return block(_resize, (input,), (sizes, ratios, mode, bool(align_corners)))


def _resize(x: Any, sizes: Any, ratios: Any, mode: str, aligned: bool) -> Any:
    for j, (m, ratio) in enumerate(zip(sizes, ratios, strict=True)):
        axis, n = 2 + j, shape_of(x)[2 + j]
        if mode.startswith("nearest"):
            x = pr.taken(x, _nearest(n, m, ratio, mode), axis)
        else:
            place = _place(n, m, ratio, aligned, mode == "bicubic", x._node.dtype)
            x = (_cubic if mode == "bicubic" else _linear)(x, axis, n, place)
    return x


def _nearest(n: int, m: int, ratio: float, mode: str) -> Any:
    i = pr.cast(pr.counter((m,), 0), dt.float64)
    i = (i + 0.5) * ratio if mode == "nearest-exact" else i * ratio
    return pr.cast(i.floor(), dt.int64).clamp(0, n - 1)


def _place(n: int, m: int, ratio: float, aligned: bool, cubic: bool, dtype: Any) -> Any:
    """Where each new point lies on the old axis."""
    i = pr.cast(pr.counter((m,), 0), dtype)
    if aligned:
        return i * ((n - 1) / (m - 1) if m > 1 else 0.0)
    place = (i + 0.5) * ratio - 0.5
    return place if cubic else place.clamp(min=0.0)


def _column(t: Any, rank: int, axis: int) -> Any:
    """A vector along one of `rank` axes."""
    return pr.shaped(t, (*(1,) * axis, shape_of(t)[0], *(1,) * (rank - axis - 1)))


def _linear(x: Any, axis: int, n: int, place: Any) -> Any:
    base = place.floor()
    share = _column(place - base, len(shape_of(x)), axis)
    low = pr.cast(base, dt.int64).clamp(0, n - 1)
    high = (low + 1).clamp(0, n - 1)
    return pr.taken(x, low, axis) * (1 - share) + pr.taken(x, high, axis) * share


def _cubic(x: Any, axis: int, n: int, place: Any) -> Any:
    """Cubic convolution (Keys, IEEE Trans. ASSP 29, 1981) with a = -0.75."""
    a = -0.75
    base = place.floor()
    t = place - base
    first = pr.cast(base, dt.int64)
    out: Any = None
    for offset in (-1, 0, 1, 2):
        d = (t - float(offset)).abs()
        near = ((a + 2) * d - (a + 3)) * d * d + 1
        far = ((d - 5) * d + 8) * d * a - 4 * a
        weight = _column(near if offset in (0, 1) else far, len(shape_of(x)), axis)
        part = pr.taken(x, (first + offset).clamp(0, n - 1), axis) * weight
        out = part if out is None else out + part
    return out


def upsample(input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest",
             align_corners: bool | None = None) -> Any:  # fmt: skip
    """`interpolate` under its old name."""
    return interpolate(input, size, scale_factor, mode, align_corners)


def upsample_nearest(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """`interpolate` with `mode="nearest"`, under its old name."""
    return interpolate(input, size, scale_factor, "nearest")


def upsample_bilinear(input: Any, size: Any = None, scale_factor: Any = None) -> Any:
    """`interpolate` with `mode="bilinear"` and aligned corners, under its old name."""
    return interpolate(input, size, scale_factor, "bilinear", True)
