"""NumPy arrays as tensors, on the same memory."""

from __future__ import annotations

from ctypes import addressof, c_char
from typing import TYPE_CHECKING, Any

from treadle.base import dtype as dt
from treadle.base.lazy import LazyModule
from treadle.ops.table import input_node
from treadle.runtime.buffer import Buffer
from treadle.tensor.record import concrete

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

np = LazyModule("numpy")


def from_numpy(array: Any) -> Tensor:
    """A tensor of the elements of a NumPy array, without copying where the layout allows.

    An array that is contiguous and aligned is shared: later writes to it are seen by the tensor
    until that is first written itself.

    Raises:
        TypeError: the array's dtype has no counterpart.
    """
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected a NumPy array, got {type(array).__name__}")
    dtype = dt.from_numpy(array.dtype)
    packed = array if array.flags.c_contiguous else np.ascontiguousarray(array)
    address = _address(packed)
    if address % dtype.itemsize:
        packed = packed.copy()
        address = _address(packed)
    buffer = Buffer.adopt(packed, address, packed.nbytes)
    return concrete(buffer, input_node(array.shape, dtype))


def _address(array: Any) -> int:
    # `array.ctypes` takes a microsecond and more; a loader adopts two arrays for every batch.
    # (bfloat16, which NumPy takes for a record, has no buffer interface.)
    if array.nbytes and array.flags.writeable and array.dtype.kind != "V":
        return addressof(c_char.from_buffer(array))
    address: int = array.ctypes.data
    return address


def operand(value: Any) -> Any:
    """An array as an operand of a tensor, a 0-d one as a number; `None` for what is neither."""
    if not hasattr(value, "__array_interface__"):
        return None
    return from_numpy(np.asarray(value)) if getattr(value, "ndim", 0) else value.item()
