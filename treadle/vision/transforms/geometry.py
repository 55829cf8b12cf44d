"""Crops, borders and flips. On a tensor they read its values: use them on data, not inside of a
model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base.lazy import LazyModule
from treadle.tensor import Tensor, block, flip, from_numpy, reshape, where
from treadle.utils.data.draws import draws
from treadle.vision.transforms.images import extent, on_array, pair

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

_PADDING_MODES = ("constant", "edge", "reflect", "symmetric")


class CenterCrop:
    """The middle of an image; an image that is smaller gets a border of zeros first.

    Args:
        size: height and width of the result, or one number for both.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = pair(size)

    def __call__(self, image: Any) -> Any:
        return on_array(image, lambda planes: self._crop(planes, -2))

    def on_images(self, images: np.ndarray) -> np.ndarray:
        return self._crop(images, 1)

    def on_tensors(self, batch: Tensor) -> Tensor:
        if all(have >= want for have, want in zip(batch.shape[-2:], self.size, strict=True)):
            return self._middle(batch, -2)
        return self(batch)

    def _crop(self, array: np.ndarray, axis: int) -> np.ndarray:
        height, width = array.shape[axis], array.shape[axis + 1]
        short = max(self.size[0] - height, 0), max(self.size[1] - width, 0)
        if any(short):
            border = [(n // 2, (n + 1) // 2) for n in short]
            array = _bordered(array, axis, border[0], border[1], "constant", 0)
        return self._middle(array, axis)

    def _middle(self, array: Any, axis: int) -> Any:
        top, left = (
            round((have - want) / 2)
            for have, want in zip(array.shape[axis:][:2], self.size, strict=True)
        )
        rows, columns = slice(top, top + self.size[0]), slice(left, left + self.size[1])
        return array[:, rows, columns] if axis == 1 else array[..., rows, columns]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"


class Pad:
    """A border around an image.

    Args:
        padding: width of the border: one number, (left and right, top and bottom), or (left, top,
            right, bottom).
        fill: the value of the border in mode `constant`.
        padding_mode: `constant`, `edge` (repeats the last pixel), `reflect` (mirrors without it) or
            `symmetric` (mirrors with it).
    """

    def __init__(
        self, padding: int | Sequence[int], fill: float = 0, padding_mode: str = "constant"
    ) -> None:
        if padding_mode not in _PADDING_MODES:
            raise ValueError(
                f"Padding mode should be one of {_PADDING_MODES}, but got {padding_mode!r}"
            )
        sides = [padding] if isinstance(padding, int) else list(padding)
        if len(sides) not in (1, 2, 4):
            raise ValueError(
                f"Padding must be an int or a 1, 2, or 4 element tuple, not {len(sides)} elements"
            )
        self.padding = padding
        self.fill = fill
        self.padding_mode = padding_mode
        left, top, right, bottom = sides * (4 // len(sides))
        self._rows, self._columns = (top, bottom), (left, right)

    def __call__(self, image: Any) -> Any:
        return on_array(image, lambda planes: self._pad(planes, -2))

    def on_images(self, images: np.ndarray) -> np.ndarray:
        return self._pad(images, 1)

    def _pad(self, array: np.ndarray, axis: int) -> np.ndarray:
        return _bordered(array, axis, self._rows, self._columns, self.padding_mode, self.fill)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(padding={self.padding}, fill={self.fill}, "
            f"padding_mode={self.padding_mode})"
        )


class RandomCrop:
    """A part of an image at a random place.

    Args:
        size: height and width of the part, or one number for both.
        padding: a border to add before, as for `Pad`.
        pad_if_needed: whether an image that is still too small gets a wider border.
        fill: the value of the border in mode `constant`.
        padding_mode: as for `Pad`.

    Raises:
        ValueError: the image is smaller than the part, and `pad_if_needed` is false.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: float = 0,
        padding_mode: str = "constant",
    ) -> None:
        self.size = pair(size)
        self.padding = padding
        self.pad_if_needed = pad_if_needed
        self.fill = fill
        self.padding_mode = padding_mode
        self._pad = None if padding is None else Pad(padding, fill, padding_mode)

    def __call__(self, image: Any) -> Any:
        numbers = draws().row(2)

        def crop(planes: np.ndarray) -> np.ndarray:
            planes = self._bordered(planes, -2)
            top, left = self._corners(planes.shape[-2:], numbers[None])[0]
            return planes[..., top : top + self.size[0], left : left + self.size[1]]

        return on_array(image, crop)

    def on_images(self, images: np.ndarray) -> np.ndarray:
        images = self._bordered(images, 1)
        corners = self._corners(images.shape[1:3], draws().table(2))
        windows = np.lib.stride_tricks.sliding_window_view(images, self.size, (1, 2))
        parts = windows[np.arange(len(images)), corners[:, 0], corners[:, 1]]
        return parts if parts.ndim == 3 else np.moveaxis(parts, 1, -1)

    def _bordered(self, array: np.ndarray, axis: int) -> np.ndarray:
        if self._pad is not None:
            array = self._pad._pad(array, axis)
        if not self.pad_if_needed:
            return array
        sides = []
        for i, want in enumerate(self.size):
            short = max(want - array.shape[axis + i], 0)
            sides.append((short, short))
        return _bordered(array, axis, sides[0], sides[1], self.padding_mode, self.fill)

    def _corners(self, shape: tuple[int, ...], numbers: np.ndarray) -> np.ndarray:
        room = np.array(shape) - np.array(self.size)
        if (room < 0).any():
            raise ValueError(
                f"Required crop size {self.size} is larger than input image size {tuple(shape)}"
            )
        return (numbers * (room + 1)).astype(np.int64)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, padding={self.padding})"


class _RandomFlip:
    """An image, mirrored with probability `p`."""

    _axis: int

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"p should be a probability between 0 and 1, but got {p}")
        self.p = p

    def __call__(self, image: Any) -> Any:
        extent(image)
        if draws().row(1)[0] >= self.p:
            return image
        return on_array(image, lambda planes: np.flip(planes, self._axis))

    def on_images(self, images: np.ndarray) -> np.ndarray:
        chosen = draws().table(1)[:, 0] < self.p
        images = images.copy()
        images[chosen] = np.flip(images[chosen], 3 + self._axis)
        return images

    def on_tensors(self, batch: Tensor) -> Tensor:
        chosen = draws().table(1)[:, 0] < self.p
        return block(_flipped, (from_numpy(chosen), batch), (self._axis,))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class RandomHorizontalFlip(_RandomFlip):
    """An image with left and right exchanged with probability `p`.

    Args:
        p: the probability.
    """

    _axis = -1


class RandomVerticalFlip(_RandomFlip):
    """An image with top and bottom exchanged with probability `p`.

    Args:
        p: the probability.
    """

    _axis = -2


def _flipped(chosen: Tensor, batch: Tensor, axis: int) -> Tensor:
    return where(reshape(chosen, (-1, 1, 1, 1)), flip(batch, (axis,)), batch)


def _bordered(
    array: np.ndarray,
    axis: int,
    rows: tuple[int, int],
    columns: tuple[int, int],
    mode: str,
    fill: float,
) -> np.ndarray:
    """A border before and after the two axes that begin at `axis`; negative widths cut off."""
    sides = [(0, 0)] * array.ndim
    first = axis % array.ndim
    sides[first], sides[first + 1] = rows, columns
    cut = tuple(
        slice(max(-before, 0), extent + min(after, 0))
        for (before, after), extent in zip(sides, array.shape, strict=True)
    )
    widths = [(max(before, 0), max(after, 0)) for before, after in sides]
    options: dict[str, Any] = {"constant_values": fill} if mode == "constant" else {}
    return np.pad(array[cut], widths, mode, **options)  # type: ignore[call-overload]
