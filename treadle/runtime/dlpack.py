"""DLPack: handing host memory to other libraries and taking theirs, without a copy.

Source: https://dmlc.github.io/dlpack/latest/c_api.html (DLPack 1.0, and the unversioned form).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.shape import count, strides
from treadle.runtime.buffer import Buffer, byte_range

CPU: Final = 1
CUDA_HOST: Final = 3
VERSION: Final = (1, 0)
_READ_ONLY: Final = 1
_IS_COPIED: Final = 2
_CODES: Final = {"i": 0, "u": 1, "f": 2}
_BFLOAT: Final = 4
_BOOL: Final = 6


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    _fields_ = (
        ("tensor", _Tensor),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
    )


class _Versioned(ctypes.Structure):
    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("context", ctypes.c_void_p),
        ("deleter", ctypes.c_void_p),
        ("flags", ctypes.c_uint64),
        ("tensor", _Tensor),
    )


class Imported(NamedTuple):
    """Foreign memory as a buffer, and how an array lies in it; strides are in elements."""

    buffer: Buffer
    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int
    writable: bool


def device() -> tuple[int, int]:
    """What `__dlpack_device__` answers for host memory."""
    return CPU, 0


def to_capsule(
    buffer: Buffer,
    dtype: DType,
    shape: Sequence[int],
    *,
    strides: Sequence[int] | None = None,
    offset: int = 0,
    writable: bool = True,
    copied: bool = False,
    max_version: tuple[int, int] | None = None,
) -> Any:
    """A capsule for `__dlpack__`; the buffer lives until its consumer lets go.

    Args:
        buffer: the memory.
        dtype: element type.
        shape: extents.
        strides: in elements; row-major where left out.
        offset: of the first element, in bytes.
        writable: whether the consumer may write.
        copied: whether the memory was copied for this consumer.
        max_version: the newest DLPack that the consumer reads; `None` means the unversioned form.

    Raises:
        BufferError: the memory is read-only and the consumer's version cannot say so.
    """
    versioned = max_version is not None and max_version[0] >= 1
    if not writable and not versioned:
        raise BufferError(
            "read-only memory cannot be exported to a consumer that predates DLPack 1.0; "
            "export a copy"
        )
    managed: _Managed | _Versioned = _Versioned() if versioned else _Managed()
    extents = (ctypes.c_int64 * len(shape))(*shape)
    steps = (ctypes.c_int64 * len(shape))(*_or_row_major(strides, shape))
    _describe(managed.tensor, buffer.address + offset, dtype, extents, steps)
    managed.deleter = _DELETER_ADDRESS
    if isinstance(managed, _Versioned):
        managed.major, managed.minor = VERSION
        managed.flags = (0 if writable else _READ_ONLY) | (_IS_COPIED if copied else 0)
    # The consumer hands the structure's address back, so that is what it is kept under, with all
    # that the structure points to.
    address = ctypes.addressof(managed)
    _exported[address] = (managed, extents, steps, buffer)
    name = _NEW[versioned]
    return _capsule_new(address, name, _DESTRUCTOR_ADDRESS)


def from_dlpack(source: Any) -> Imported:
    """Takes host memory from any object with `__dlpack__`, or from a capsule.

    Raises:
        BufferError: the memory is on another device, or of a newer DLPack.
        TypeError: `source` does not speak DLPack, or holds elements that treadle does not have.
    """
    capsule = source
    if not _is_capsule(source):
        if not hasattr(source, "__dlpack__"):
            raise TypeError(f"{type(source).__name__} has no __dlpack__")
        kind, _ = source.__dlpack_device__()
        if kind not in (CPU, CUDA_HOST):
            raise BufferError(f"the array is on DLPack device {kind}, not in host memory")
        try:
            capsule = source.__dlpack__(max_version=VERSION)
        except TypeError:
            # A producer that predates DLPack 1.0 does not know the argument.
            capsule = source.__dlpack__()
    versioned = next((v for v, name in _NEW.items() if _capsule_is_valid(capsule, name)), None)
    if versioned is None:
        raise TypeError("not a DLPack capsule, or one that was consumed before")
    address = _capsule_pointer(capsule, _NEW[versioned])
    managed = (_Versioned if versioned else _Managed).from_address(address)
    if versioned and managed.major != VERSION[0]:
        raise BufferError(f"DLPack {managed.major}.{managed.minor} is newer than 1.x")
    found = _read(managed.tensor)
    writable = not (versioned and managed.flags & _READ_ONLY)
    _capsule_rename(capsule, _USED[versioned])
    owner = _Foreign(address, managed.deleter)
    return _imported(owner, managed.tensor, *found, writable)


class _Foreign:
    """Owns a structure of another library and gives it back."""

    __slots__ = ("_address", "_delete")

    def __init__(self, address: int, deleter: int | None) -> None:
        self._address: Final = address
        # Without letting go of the interpreter lock: a deleter written in Python expects it.
        self._delete: Final = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(deleter) if deleter else None

    def __del__(self) -> None:
        if self._delete is not None:
            self._delete(self._address)


def _imported(
    owner: _Foreign,
    tensor: _Tensor,
    dtype: DType,
    shape: tuple[int, ...],
    steps: tuple[int, ...],
    writable: bool,
) -> Imported:
    first = (tensor.data or 0) + tensor.byte_offset
    low, high = byte_range(dtype.itemsize, shape, steps, 0)
    buffer = Buffer.adopt(owner, first + low, high - low)
    return Imported(buffer, dtype, shape, steps, -low, writable)


def _read(tensor: _Tensor) -> tuple[DType, tuple[int, ...], tuple[int, ...]]:
    dtype = _TYPES.get((tensor.code, tensor.bits))
    if dtype is None or tensor.lanes != 1:
        raise TypeError(
            f"treadle has no element type for DLPack's code {tensor.code} with {tensor.bits} bits "
            f"and {tensor.lanes} lanes"
        )
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    steps = tuple(tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    return dtype, shape, _or_row_major(steps, shape)


def _or_row_major(steps: Sequence[int] | None, shape: Sequence[int]) -> tuple[int, ...]:
    return strides(shape) if steps is None else tuple(steps)


def _describe(tensor: _Tensor, address: int, dtype: DType, extents: Any, steps: Any) -> None:
    pointer = ctypes.POINTER(ctypes.c_int64)
    # NumPy and PyTorch may look at the pointer even where there is no element.
    tensor.data = address if count(extents) else None
    tensor.device_type, tensor.device_id = device()
    tensor.ndim = len(extents)
    tensor.code, tensor.bits = _code(dtype)
    tensor.lanes = 1
    tensor.shape = ctypes.cast(extents, pointer)
    tensor.strides = ctypes.cast(steps, pointer)
    tensor.byte_offset = 0


def _code(dtype: DType) -> tuple[int, int]:
    if dtype is dt.bfloat16:
        return _BFLOAT, 16
    if dtype is dt.bool_:
        return _BOOL, 8
    return _CODES[dtype.kind], dtype.bits


_TYPES: Final = {_code(dtype): dtype for dtype in dt.ALL}
_NEW: Final = {False: b"dltensor", True: b"dltensor_versioned"}
_USED: Final = {False: b"used_dltensor", True: b"used_dltensor_versioned"}

# What was exported, by the address of the structure, until its deleter is called.
_exported: Final[dict[int, tuple[Any, ...]]] = {}


def _python(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:
    return ctypes.PYFUNCTYPE(result, *arguments)((name, ctypes.pythonapi))


# Capsule names are static: a capsule keeps the pointer, so the bytes above must never move.
_capsule_new = _python(
    "PyCapsule_New", ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p
)
_capsule_is_valid = _python("PyCapsule_IsValid", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
_capsule_pointer = _python(
    "PyCapsule_GetPointer", ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p
)
_capsule_rename = _python("PyCapsule_SetName", ctypes.c_int, ctypes.py_object, ctypes.c_char_p)
# The destructor sees a capsule that is going away: as a plain address, so that nothing counts it.
_dying_is_valid = _python("PyCapsule_IsValid", ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)
_dying_pointer = _python("PyCapsule_GetPointer", ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)


def _is_capsule(value: Any) -> bool:
    return type(value).__name__ == "PyCapsule"


# A consumer may call the deleter without holding the interpreter lock: CFUNCTYPE takes it.
@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _deleter(address: int, exported: dict[int, Any] = _exported) -> None:
    exported.pop(address, None)


@ctypes.PYFUNCTYPE(None, ctypes.c_void_p)
def _destructor(capsule: int) -> None:
    """Frees what a capsule that nobody consumed still holds."""
    for name in _NEW.values():
        if _dying_is_valid(capsule, name):
            _exported.pop(_dying_pointer(capsule, name), None)


# A consumer may come back after this module was torn down at exit: the two never go away.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_deleter))
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_destructor))
_DELETER_ADDRESS: Final = ctypes.cast(_deleter, ctypes.c_void_p).value
_DESTRUCTOR_ADDRESS: Final = ctypes.cast(_destructor, ctypes.c_void_p).value
