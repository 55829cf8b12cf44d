from typing import Any

import numpy as np

from treadle.base import dtype as dtypes

Tensor = np.ndarray


def array_of(t: Any) -> Any:
    return t


def dtype_of(a: Any) -> Any:
    return dtypes.from_numpy(a.dtype)


def requires_grad(t: Any) -> bool:
    return False


def tensor_of(array: Any, window: Any, requires_grad: bool = False) -> Any:
    st = tuple(s * array.itemsize for s in window.strides)
    return np.lib.stride_tricks.as_strided(array[window.offset :], window.shape, st)


def size_of(size: Any) -> Any:
    return tuple(size)


def from_array(array: Any) -> Any:
    dtypes.from_numpy(array.dtype)
    return array
