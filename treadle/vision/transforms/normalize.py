"""Shift and scale of each channel."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.tensor import Tensor, block, from_numpy
from treadle.utils.data.draws import loading

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


class Normalize:
    """(x − mean) / std in each channel of a tensor `(…, channels, height, width)`.

    Args:
        mean: one number for each channel, or one for all of them.
        std: the same, none of them zero.
        inplace: accepted for PyTorch's sake; the result is a new tensor.

    Raises:
        TypeError: not a floating-point tensor: use `ToTensor` or `ConvertImageDtype` before.
        ValueError: fewer than three dimensions, numbers that do not fit the channels, or a zero
            std.

    Example:
        >>> import treadle
        >>> Normalize((0.5,), (0.5,))(treadle.ones(1, 2, 2)).max().item()
        1.0
    """

    def __init__(
        self, mean: Sequence[float] | float, std: Sequence[float] | float, inplace: bool = False
    ) -> None:
        self.mean: Final = mean
        self.std: Final = std
        self.inplace: Final = inplace
        self._means, self._stds = _numbers(mean), _numbers(std)

    def __call__(self, tensor: Tensor) -> Tensor:
        _check(tensor, self._means, self._stds)
        if not loading() or tensor.requires_grad:
            return self.on_tensors(tensor)
        # Samples of a loader are many and small: NumPy is quicker than a kernel for each of them.
        mean, std = self._columns(tensor.dtype)
        return from_numpy((tensor.numpy() - mean) / std)

    def on_tensors(self, batch: Tensor) -> Tensor:
        if len(self._means) == len(self._stds) == 1:
            return block(_by_numbers, (batch,), (self._means, self._stds))
        _check(batch, self._means, self._stds)
        return block(_by_tensors, (batch, *map(from_numpy, self._columns(batch.dtype))))

    def _columns(self, dtype: DType) -> tuple[np.ndarray, np.ndarray]:
        return _column(self._means, dtype), _column(self._stds, dtype)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mean={self.mean}, std={self.std})"


def _numbers(values: Sequence[float] | float) -> tuple[float, ...]:
    if isinstance(values, int | float):
        return (float(values),)
    return tuple(map(float, values))


@lru_cache(maxsize=64)
def _column(numbers: tuple[float, ...], dtype: DType) -> np.ndarray:
    """The numbers of all channels as `(channels, 1, 1)`."""
    return np.array(numbers, dtype=dtype.numpy)[:, None, None]


def _check(tensor: Tensor, means: tuple[float, ...], stds: tuple[float, ...]) -> None:
    if not isinstance(tensor, Tensor):
        raise TypeError(f"img should be Tensor Image. Got {type(tensor)}: use ToTensor before")
    if not tensor.dtype.is_floating_point:
        raise TypeError(
            f"Input tensor should be a float tensor. Got {tensor.dtype}: use ToTensor or "
            "ConvertImageDtype before"
        )
    shape = tensor.shape
    if len(shape) < 3:
        raise ValueError(
            "Expected tensor to be a tensor image of size (..., C, H, W). Got tensor.size() = "
            f"{tuple(shape)}"
        )
    for name, numbers in (("mean", means), ("std", stds)):
        if len(numbers) not in (1, shape[-3]):
            raise ValueError(
                f"{name} has {len(numbers)} numbers for an image of {shape[-3]} channels"
            )
    if 0 in stds:
        raise ValueError(f"std evaluated to zero, leading to division by zero: std={stds}")


def _by_numbers(x: Tensor, means: tuple[float], stds: tuple[float]) -> Tensor:
    # Checked here, so only where it is recorded for the first time: a batch more costs nothing.
    _check(x, means, stds)
    return (x - means[0]) / stds[0]


def _by_tensors(x: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    return (x - mean) / std
