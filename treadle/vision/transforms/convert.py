"""Between images and tensors, and between element types."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.tensor import Tensor, block, from_numpy, permute
from treadle.vision.transforms.images import from_pixels, is_pillow, pixels

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


class ToTensor:
    """An image to a float32 tensor `(channels, height, width)`: uint8 pixels p become p / 255.

    Args of the call:
        pic: a PIL image, or an ndarray `(height, width)` or `(height, width, channels)`. Pixels of
            other types than uint8 are not scaled.

    Raises:
        TypeError: neither an image nor an array.
        ValueError: an array that does not have 2 or 3 dimensions.
    """

    def __call__(self, pic: Any) -> Tensor:
        planes = _planes(pic)
        if planes.dtype != np.uint8:
            return from_numpy(planes)
        return from_numpy(planes.astype(np.float32) / np.float32(255))

    def to_tensors(self, images: np.ndarray) -> Tensor:
        batch = _batch_planes(images)
        return block(_unit_range, (batch,)) if images.dtype == np.uint8 else batch

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class PILToTensor:
    """An image to a tensor `(channels, height, width)` of the image's own type, not scaled."""

    def __call__(self, pic: Any) -> Tensor:
        if not is_pillow(pic):
            raise TypeError(f"pic should be PIL Image. Got {type(pic)}")
        return from_numpy(_planes(pic))

    def to_tensors(self, images: np.ndarray) -> Tensor:
        return _batch_planes(images)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ToPILImage:
    """A tensor `(channels, height, width)` or an array `(height, width, channels)` to a PIL image.

    Floating-point values x become the bytes ⌊255 x⌋.

    Args:
        mode: Pillow's name of the colour space (default: by the number of channels).
    """

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode

    def __call__(self, pic: Any) -> Any:
        if isinstance(pic, Tensor):
            array = pic.detach().numpy()
            if array.ndim not in (2, 3):
                raise ValueError(f"pic should be 2/3 dimensional. Got {array.ndim} dimensions.")
            array = array[None] if array.ndim == 2 else array
            if array.dtype.kind == "f" and self.mode != "F":
                array = (array * 255).astype(np.uint8)
            array = np.moveaxis(array, 0, -1)
        elif isinstance(pic, np.ndarray):
            array = pic if pic.ndim == 3 else pic[..., None]
        else:
            raise TypeError(f"pic should be Tensor or ndarray. Got {type(pic)}.")
        if array.shape[-1] > 4:
            raise ValueError(f"pic should not have > 4 channels. Got {array.shape[-1]} channels.")
        image = from_pixels(np.ascontiguousarray(array[..., 0] if array.shape[-1] == 1 else array))
        return image if self.mode in (None, image.mode) else image.convert(self.mode)

    def __repr__(self) -> str:
        shown = f"mode={self.mode}" if self.mode is not None else ""
        return f"{type(self).__name__}({shown})"


class ConvertImageDtype:
    """A tensor image to another type, its values scaled to that type's range.

    Whole numbers span 0 … maximum, floating-point numbers 0 … 1.

    Args:
        dtype: the type wanted.

    Raises:
        RuntimeError: floating-point numbers that cannot be kept in a whole number of that size.
    """

    def __init__(self, dtype: DType) -> None:
        self.dtype = dtype

    def __call__(self, image: Tensor) -> Tensor:
        if not isinstance(image, Tensor):
            raise TypeError(f"Input img should be Tensor Image. Got {type(image)}")
        return self.on_tensors(image)

    def on_tensors(self, batch: Tensor) -> Tensor:
        if batch.dtype is self.dtype:
            return batch
        return block(_converted, (batch,), (self.dtype,))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _planes(pic: Any) -> np.ndarray:
    """An image as `(channels, height, width)`."""
    if is_pillow(pic):
        array = pixels(pic)
    elif isinstance(pic, np.ndarray):
        array = pic
    else:
        raise TypeError(f"pic should be PIL Image or ndarray. Got {type(pic)}")
    if array.ndim not in (2, 3):
        raise ValueError(f"pic should be 2/3 dimensional. Got {array.ndim} dimensions.")
    # A copy where the array is someone else's memory: the tensor may outlive what is in it now.
    return array[None].copy() if array.ndim == 2 else np.moveaxis(array, -1, 0).copy()


def _batch_planes(images: np.ndarray) -> Tensor:
    if images.ndim == 3:
        return from_numpy(images[:, None])
    return permute(from_numpy(images), (0, 3, 1, 2))


def _unit_range(x: Tensor) -> Tensor:
    return x.float() / 255


def _converted(x: Tensor, wanted: DType) -> Tensor:
    if x.dtype.is_floating_point:
        if wanted.is_floating_point:
            return x.to(wanted)
        if wanted is dt.int64 or (wanted is dt.int32 and x.dtype.bits <= 32):
            raise RuntimeError(f"The cast from {x.dtype} to {wanted} cannot be performed safely.")
        # Each whole number gets an interval of the same width (as torchvision does it).
        return (x * (_largest(wanted) + 1.0 - 1e-3)).to(wanted)
    if wanted.is_floating_point:
        return x.to(wanted) / _largest(x.dtype)
    have, want = _largest(x.dtype), _largest(wanted)
    if have > want:
        return (x // ((have + 1) // (want + 1))).to(wanted)
    return x.to(wanted) * ((want + 1) // (have + 1))


def _largest(dtype: DType) -> int:
    if dtype is dt.bool_:
        return 1
    return int((1 << (dtype.bits - (dtype.kind == "i"))) - 1)
