"""The memory of tensors that a data set reads again and again, as NumPy arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base.lazy import LazyModule
from treadle.tensor import Tensor

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


class ArrayView:
    """The values of a tensor or an array as an array; remembers the last tensor's.

    Asking a tensor for its array takes several microseconds, which every batch would pay.
    """

    __slots__ = ("_array", "_tensor", "_version")

    def __init__(self) -> None:
        self._tensor: Tensor | None = None
        self._version = -1
        self._array: np.ndarray | None = None

    def __reduce__(self) -> Any:
        # A copy, or one in another process, finds out for itself.
        return ArrayView, ()

    def of(self, values: Any) -> np.ndarray:
        """The current values, without a copy where they lie in memory."""
        if not isinstance(values, Tensor):
            return np.asarray(values)
        if values is self._tensor and values._version == self._version:
            assert self._array is not None
            return self._array
        array: np.ndarray = values.numpy()
        if values._base is None:
            # A view's version says nothing about writes to its base.
            self._tensor, self._version, self._array = values, values._version, array
        return array
