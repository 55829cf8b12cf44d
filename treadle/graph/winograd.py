"""Which contractions are convolutions by transformed tiles: see `ir.contraction.Contraction`.

A window of 3 x 3 that slides by single pixels over a result of even extents takes 16 products a
channel for four pixels instead of 36. With many channels these products are all that counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.graph.access import Access, Axis, Classes, Dims
from treadle.graph.index import Atom
from treadle.ir.contraction import WINOGRAD_CHANNELS
from treadle.ops.view import UNSLICE

LEAST_TILES: Final = 32
"""Fewer are not worth the filters' transformation."""
_WINDOW: Final = 3


@dataclass(slots=True)
class Tiled:
    """The operands of a convolution by tiles and its dimensions, class by class."""

    kind: str
    a: Access
    b: Access
    dims: list[Dims]


def suits(
    window: Sequence[int], out: Sequence[int], images: int, channels: int, filters: int
) -> bool:
    """Whether a convolution by single pixels has the extents that tiles need."""
    return (
        tuple(window) == (_WINDOW, _WINDOW)
        and not (channels % WINOGRAD_CHANNELS or filters % WINOGRAD_CHANNELS)
        and not any(n % 2 for n in out)
        and images * sh.count(out) >= 4 * LEAST_TILES
    )


def by_tiles(
    classes: Classes, left: Access, right: Access, ends: Iterable[Access], dtype: DType
) -> Tiled | None:
    """A contraction as a convolution by tiles, if it is one; `ends` are extras and outputs."""
    batch, m, n, k = classes
    same = left.node.dtype is right.node.dtype is dtype
    if batch or not same or dtype.kind != "f" or len(k) not in (2, 3):
        return None
    for image, other, kept, single in ((left, right, m, n), (right, left, n, m)):
        if len(single) == 1 and len(kept) in (2, 3):
            found = _data(image, other, kept, single[0], k)
            found = found or _filter(image, other, kept, single[0], k, ends)
            if found is not None:
                return found
    return None


def _data(image: Access, other: Access, rows: list[Atom], o: Atom, k: list[Atom]) -> Tiled | None:
    """The pixels of a result: the window is summed over."""
    window = _window_of(image, k)
    if window is None:
        return None
    pixels = _pixels_of(image, rows, window)
    if pixels is None or not _fits(pixels, window[2], o):
        return None
    kind = "dilated" if _dilated(image) else "data"
    return Tiled(kind, image, other, [[], _pairs(pixels), [Axis.of(o)], _axes(window)])


def _dilated(image: Access) -> bool:
    """Whether all but the odd rows and columns of an image are zeros."""
    if image.node.op is not UNSLICE or image.offset:
        return False
    _, starts, steps = image.node.attrs
    return steps[1:3] == (2, 2) and starts[1] % 2 == starts[2] % 2 == 1


def _filter(
    image: Access, other: Access, columns: list[Atom], o: Atom, k: list[Atom],
    ends: Iterable[Access],
) -> Tiled | None:  # fmt: skip
    """The gradient of filters: the pixels are summed over."""
    window = _window_of(image, columns)
    if window is None or other.step.get(o) != 1:
        return None
    pixels = _pixels_of(image, k, window)
    if pixels is None or not _fits(pixels, window[2], o):
        return None
    y, x, c = window
    for end in ends:
        step = end.step.get(x, 0)
        if (end.step.get(y, 0), end.step.get(c, 0)) != (_WINDOW * step, _WINDOW**2 * step):
            return None
    return Tiled("filter", other, image, [[], [Axis.of(o)], _axes((c, y, x)), _pairs(pixels)])


def _window_of(image: Access, atoms: list[Atom]) -> tuple[Atom, Atom, Atom] | None:
    """Window row, window column and channel among three variables."""
    if len(atoms) != 3:
        return None
    y, x, c = sorted(atoms, key=lambda t: -image.step.get(t, 0))
    if image.step.get(c) != 1 or y.hi + 1 != _WINDOW or x.hi + 1 != _WINDOW:
        return None
    return y, x, c


def _pixels_of(
    image: Access, atoms: list[Atom], window: tuple[Atom, Atom, Atom]
) -> tuple[Atom | None, Atom, Atom] | None:
    """Image, row and column among variables: those along which the window slides."""
    y, x = (
        next((t for t in atoms if image.step.get(t) == image.step.get(w)), None) for w in window[:2]
    )
    rest = [t for t in atoms if t is not y and t is not x]
    if y is None or x is None or len(rest) > 1:
        return None
    return (rest[0] if rest else None), y, x


def _fits(pixels: tuple[Atom | None, Atom, Atom], c: Atom, o: Atom) -> bool:
    n, y, x = pixels
    images = 1 if n is None else n.hi + 1
    return suits((_WINDOW, _WINDOW), (y.hi + 1, x.hi + 1), images, c.hi + 1, o.hi + 1)


def _pairs(pixels: tuple[Atom | None, Atom, Atom]) -> Dims:
    """Image, row and column of a tile, and of a pixel in it."""
    n, y, x = pixels
    first = Axis(None, 1) if n is None else Axis.of(n)
    tiles = [Axis(t, (t.hi + 1) // 2, 2) for t in (y, x)]
    return [first, *tiles, Axis(y, 2), Axis(x, 2)]


def _axes(atoms: Iterable[Atom]) -> Dims:
    return [Axis.of(t) for t in atoms]
