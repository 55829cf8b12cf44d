"""Images and volumes read at places between their elements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import ShapeError
from treadle.nn.functional.common import shape_of
from treadle.tensor import block
from treadle.tensor import primitive as pr

_CUBIC = -0.75
"""The slope of the cubic kernel at distance 1, as PyTorch has it."""


def affine_grid(theta: Any, size: Any, align_corners: bool | None = None) -> Any:
    """The places that affine maps of the grid of an image or a volume lead to.

    Args:
        theta: `(n, 2, 3)` for images or `(n, 3, 4)` for volumes.
        size: `(n, c, h, w)` or `(n, c, d, h, w)`.
        align_corners: let -1 and 1 be the middles of the outermost elements, not their edges.

    Returns:
        `(n, h, w, 2)` or `(n, d, h, w, 3)`: coordinates from -1 to 1, x first.
    """
    space = tuple(size)[2:]
    if len(space) not in (2, 3) or shape_of(theta)[1:] != (len(space), len(space) + 1):
        raise ShapeError(
            f"affine_grid: Expected a batch of 2D affine matrices (n, 2, 3) for images or 3D ones "
            f"(n, 3, 4) for volumes, got {shape_of(theta)} for the size {tuple(size)}"
        )
    return block(_affine, (theta,), (space, bool(align_corners)))


def _affine(theta: Any, space: tuple[int, ...], aligned: bool) -> Any:
    rank, dtype = len(space), theta._node.dtype
    columns = [pr.filled((*space, 1), 1.0, dtype)]
    for axis, m in enumerate(space):
        i = pr.cast(pr.counter((*space, 1), axis), dtype)
        if aligned:
            at = i * (2 / (m - 1) if m > 1 else 0.0) - (1.0 if m > 1 else 0.0)
        else:
            at = (i * 2 + 1) * (1 / m) - 1.0
        columns.insert(0, at)
    flat = pr.shaped(pr.joined(tuple(columns), rank), (math.prod(space), rank + 1))
    return pr.shaped(flat @ theta.transpose(1, 2), (shape_of(theta)[0], *space, rank))


def grid_sample(input: Any, grid: Any, mode: str = "bilinear", padding_mode: str = "zeros",
                align_corners: bool | None = None) -> Any:  # fmt: skip
    """An image or a volume read at places between its elements.

    Args:
        input: `(n, c, h, w)` or `(n, c, d, h, w)`.
        grid: `(n, rows, columns, 2)` or `(n, planes, rows, columns, 3)`, coordinates from -1 to 1,
            x first.
        mode: `"bilinear"` (of volumes trilinear), `"nearest"`, or of images `"bicubic"`.
        padding_mode: what is outside: `"zeros"`, the nearest element of the `"border"`, or the
            `"reflection"` at it.
        align_corners: let -1 and 1 be the middles of the outermost elements, not their edges.

    Raises:
        ShapeError: the image and the grid do not fit.
    """
    shape, places = shape_of(input), shape_of(grid)
    if mode not in ("bilinear", "nearest", "bicubic"):
        raise ValueError(
            f"nn.functional.grid_sample(): expected mode to be 'bilinear', 'nearest' or "
            f"'bicubic', but got: '{mode}'"
        )
    if padding_mode not in ("zeros", "border", "reflection"):
        raise ValueError(
            f"nn.functional.grid_sample(): expected padding_mode to be 'zeros', 'border', or "
            f"'reflection', but got: '{padding_mode}'"
        )
    rank = len(shape) - 2
    if rank not in (2, 3) or len(places) != rank + 2 or places[-1] != rank or (
        places[0] != shape[0]
    ):  # fmt: skip
        raise ShapeError(
            f"grid_sample: expected an image (n, c, h, w) and a grid (n, rows, columns, 2), or a "
            f"volume with one dimension more, got {shape} and {places}"
        )
    if mode == "bicubic" and rank != 2:
        raise ValueError("grid_sample: bicubic interpolation only supports 4D input")
    return block(_sample, (input, grid), (mode, padding_mode, bool(align_corners)))


def _sample(image: Any, grid: Any, mode: str, padding: str, aligned: bool) -> Any:
    space, lead = shape_of(image)[2:], shape_of(grid)[:-1]
    none = (0,) * len(lead)
    places = []
    for j, m in zip(reversed(range(len(space))), space, strict=True):
        part = pr.shaped(pr.cut(grid, (*none, j), (*lead, j + 1)), lead)
        places.append((part + 1.0) * ((m - 1) / 2) if aligned else ((part + 1.0) * m - 1.0) * 0.5)
    if mode == "bicubic":
        return _cubic(image, places, padding, aligned)
    places = [_inside(p, m, padding, aligned) for p, m in zip(places, space, strict=True)]
    if mode == "nearest":
        return _corner(image, [p.round() for p in places], None)
    low = [p.floor() for p in places]
    ends = []
    for place, at in zip(places, low, strict=True):
        above = place - at
        ends.append(((at, 1.0 - above), (at + 1.0, above)))
    return _weighed(image, ends)


def _cubic(image: Any, places: Sequence[Any], padding: str, aligned: bool) -> Any:
    ends = []
    for place, m in zip(places, shape_of(image)[2:], strict=True):
        at = place.floor()
        above = place - at
        taps = []
        for k in (-1, 0, 1, 2):
            gap = (above - float(k)) if k <= 0 else (float(k) - above)
            taps.append((_inside(at + float(k), m, padding, aligned), _kernel(gap, k in (0, 1))))
        ends.append(tuple(taps))
    return _weighed(image, ends)


def _kernel(x: Any, near: bool) -> Any:
    """Keys' cubic kernel at a distance up to 1, or from 1 to 2."""
    a = _CUBIC
    if near:
        return ((a + 2) * x - (a + 3)) * x * x + 1.0
    return ((x * a - 5 * a) * x + 8 * a) * x - 4 * a


def _weighed(image: Any, ends: Sequence[Any]) -> Any:
    """The sum over all combinations of places along the axes, each with its weight."""
    out: Any = None
    for chosen in itertools.product(*ends):
        weight = math.prod([w for _, w in chosen[1:]], start=chosen[0][1])
        part = _corner(image, [at for at, _ in chosen], weight)
        out = part if out is None else out + part
    return out


def _inside(place: Any, m: int, padding: str, aligned: bool) -> Any:
    """Places along an axis of m elements with those outside put inside, unless zeros are there."""
    if padding == "reflection":
        low, span = (0.0, float(m - 1)) if aligned else (-0.5, float(m))
        if span == 0:
            return place * 0.0
        place = (place - low).abs()
        turns = (place * (1 / span)).floor()
        rest = place - turns * span
        even = turns - (turns * 0.5).floor() * 2.0 == 0.0
        place = pr.select(even, rest, span - rest) + low
    return place if padding == "zeros" else place.clamp(0.0, float(m - 1))


def _corner(image: Any, places: Sequence[Any], weight: Any) -> Any:
    """The elements `(n, c, ..)` at whole places, zero outside, times a weight."""
    n, c, *space = shape_of(image)
    shape = shape_of(places[0])
    flat, inside = pr.counter(shape, 0), None
    for place, m in zip(places, space, strict=True):
        here = (place >= 0.0) & (place <= float(m - 1))
        inside = here if inside is None else inside & here
        flat = flat * m + pr.cast(place.clamp(0.0, float(m - 1)), dt.int64)
    last = tuple(range(2, 2 + len(space)))
    pixels = pr.shaped(pr.ordered(image, (0, *last, 1)), (n * math.prod(space), c))
    taken = pr.taken(pixels, pr.shaped(flat, (math.prod(shape),)), 0)
    out = pr.ordered(pr.shaped(taken, (*shape, c)), (0, len(shape), *range(1, len(shape))))
    column = (shape[0], 1, *shape[1:])
    out = pr.select(pr.shaped(inside, column), out, pr.constant(0, image._node.dtype))
    return out if weight is None else out * pr.shaped(weight, column)
