"""Images in another size or in grey."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from treadle.base.lazy import LazyModule
from treadle.tensor import Tensor, from_numpy, round, transpose
from treadle.vision.transforms.images import (
    extent,
    from_pixels,
    is_pillow,
    pair,
    pillow,
    pixels,
)

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


class InterpolationMode(Enum):
    """How values between pixels are found."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    BOX = "box"
    HAMMING = "hamming"
    LANCZOS = "lanczos"


class Resize:
    """An image in another size.

    Images are resized by Pillow, which averages over all pixels that fall together. Tensors know
    `NEAREST` and `BILINEAR`, with the same averaging unless `antialias` is false: y = A x Bᵀ with
    the weights of the two axes in A and B.

    Args:
        size: height and width, or one number for the shorter edge, which keeps the proportions.
        interpolation: how values between pixels are found.
        max_size: the most that the longer edge may have; `size` must be one number.
        antialias: whether tensors are averaged when they shrink.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        interpolation: InterpolationMode = InterpolationMode.BILINEAR,
        max_size: int | None = None,
        antialias: bool | None = True,
    ) -> None:
        listed = [size] if isinstance(size, int) else list(size)
        if len(listed) not in (1, 2):
            raise ValueError("If size is a sequence, it should have 1 or 2 values")
        if max_size is not None and len(listed) == 2:
            raise ValueError("max_size should only be passed if size specifies one length")
        self.size = size
        self.interpolation = InterpolationMode(interpolation)
        self.max_size = max_size
        self.antialias = antialias

    def __call__(self, image: Any) -> Any:
        height, width = self._target(*extent(image))
        if is_pillow(image):
            return image.resize((width, height), self._filter())
        return self.on_tensors(image)

    def on_images(self, images: np.ndarray) -> np.ndarray:
        height, width = self._target(*images.shape[1:3])
        method = self._filter()
        return np.stack([pixels(from_pixels(i).resize((width, height), method)) for i in images])

    def on_tensors(self, batch: Tensor) -> Tensor:
        height, width = batch.shape[-2:]
        target = self._target(height, width)
        if target == (height, width):
            return batch
        kind = batch.dtype
        wide = batch if kind.is_floating_point else batch.float()
        rows, columns = (
            from_numpy(self._weights(have, want).astype(wide.dtype.numpy))
            for have, want in zip((height, width), target, strict=True)
        )
        out = rows @ wide @ transpose(columns, 0, 1)
        return out if kind.is_floating_point else round(out).to(kind)

    def _filter(self) -> Any:
        return pillow().Resampling[self.interpolation.name]

    def _weights(self, have: int, want: int) -> np.ndarray:
        if self.interpolation is InterpolationMode.NEAREST:
            return np.eye(have)[(np.arange(want) * have) // want]
        if self.interpolation is InterpolationMode.BILINEAR:
            return _triangle_weights(have, want, bool(self.antialias))
        raise ValueError(
            f"tensors are resized by NEAREST or BILINEAR, not by {self.interpolation.name}: "
            "resize the PIL image, before ToTensor"
        )

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if not isinstance(self.size, int) and len(self.size) == 2:
            return pair(self.size)
        wanted = pair(self.size)[0]
        short, long = sorted((height, width))
        other = int(wanted * long / short)
        if self.max_size is not None:
            if self.max_size <= wanted:
                raise ValueError(
                    f"max_size = {self.max_size} must be strictly greater than the requested size "
                    f"for the smaller edge size = {self.size}"
                )
            if other > self.max_size:
                wanted, other = int(self.max_size * wanted / other), self.max_size
        return (wanted, other) if height <= width else (other, wanted)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(size={self.size}, interpolation={self.interpolation.value}, "
            f"max_size={self.max_size}, antialias={self.antialias})"
        )


class Grayscale:
    """A PIL image in grey, by luma 0.299 R + 0.587 G + 0.114 B.

    Args:
        num_output_channels: 1, or 3 with the same grey in each.
    """

    def __init__(self, num_output_channels: int = 1) -> None:
        if num_output_channels not in (1, 3):
            raise ValueError("num_output_channels should be either 1 or 3")
        self.num_output_channels = num_output_channels

    def __call__(self, image: Any) -> Any:
        if not is_pillow(image):
            raise TypeError(f"Grayscale takes a PIL image, before ToTensor; got {type(image)}")
        grey = image.convert("L")
        return grey if self.num_output_channels == 1 else pillow().merge("RGB", (grey,) * 3)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_output_channels={self.num_output_channels})"


@lru_cache(maxsize=64)
def _triangle_weights(have: int, want: int, antialias: bool) -> np.ndarray:
    """What each of `have` pixels gives to each of `want`: a triangle around its centre.

    The triangle is one source pixel wide on each side, or as wide as a target pixel where that is
    more and `antialias` is true; weights of a row sum to one.
    """
    scale = have / want
    radius = max(scale, 1.0) if antialias else 1.0
    centres = (np.arange(want) + 0.5) * scale
    if not antialias:
        # Without averaging, places beyond the first and last centre take those pixels' values.
        centres = np.clip(centres, 0.5, have - 0.5)
    distance = np.abs(np.arange(have)[None] + 0.5 - centres[:, None]) / radius
    weights = np.clip(1 - distance, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)
