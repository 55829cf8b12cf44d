"""Images as the transforms meet them: Pillow's, NumPy's (height, width, channels), tensors' (…, c,
h, w)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from treadle.base.lazy import LazyModule
from treadle.tensor import Tensor, from_numpy

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


def pillow(name: str = "Image") -> Any:
    """The module `PIL.<name>`; raises `ImportError` with a hint where Pillow is not installed."""
    try:
        return importlib.import_module(f"PIL.{name}")
    except ImportError as error:
        raise ImportError(
            "this needs Pillow, which is not installed: pip install 'treadle[vision]'. "
            "Transforms that begin with ToTensor do without it."
        ) from error


def is_pillow(image: Any) -> bool:
    """Whether `image` is one of Pillow's; does not import it."""
    return any(base.__module__ == "PIL.Image" for base in type(image).__mro__)


def pixels(image: Any) -> np.ndarray:
    """The pixels of a Pillow image: `(height, width)` or `(height, width, channels)`."""
    return np.asarray(image.convert("L") if image.mode == "1" else image)


def from_pixels(array: np.ndarray) -> Any:
    """The Pillow image of an array `(height, width)` or `(height, width, channels)`."""
    return pillow().fromarray(array)


def extent(image: Any) -> tuple[int, int]:
    """Height and width of a Pillow image, an array or a tensor."""
    if is_pillow(image):
        return int(image.height), int(image.width)
    if isinstance(image, Tensor) and len(image.shape) >= 2:
        return int(image.shape[-2]), int(image.shape[-1])
    raise TypeError(f"expected a PIL image or a tensor (…, height, width), got {type(image)}")


def on_array(image: Any, work: Any) -> Any:
    """Apply `work`, a function of an array with height and width last, to any kind of image."""
    if isinstance(image, Tensor):
        return from_numpy(np.ascontiguousarray(work(image.numpy())))
    array = pixels(image)
    if array.ndim == 2:
        return from_pixels(np.ascontiguousarray(work(array)))
    return from_pixels(np.ascontiguousarray(np.moveaxis(work(np.moveaxis(array, -1, 0)), 0, -1)))


def pair(size: Any, name: str = "size") -> tuple[int, int]:
    """`size` as (height, width): a number counts for both."""
    if isinstance(size, int):
        return size, size
    listed = [int(n) for n in size]
    if len(listed) not in (1, 2):
        raise ValueError(f"{name} should be an int or a sequence of 1 or 2 ints, but got {size}")
    return listed[0], listed[-1]
