"""The names that a PyTorch checkpoint uses, and the plain data behind each of them."""

from __future__ import annotations

from typing import Final, NamedTuple

from treadle.base import dtype as dtypes
from treadle.base.dtype import DType


class Name(NamedTuple):
    """A global that a pickle refers to, as text: it stands for a thing and can do nothing."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


TENSOR_V1: Final = Name("torch._utils", "_rebuild_tensor")
TENSOR: Final = Name("torch._utils", "_rebuild_tensor_v2")
PARAMETER: Final = Name("torch._utils", "_rebuild_parameter")
SIZE: Final = Name("torch", "Size")
DEVICE: Final = Name("torch", "device")
ORDERED_DICT: Final = Name("collections", "OrderedDict")
COUNTER: Final = Name("collections", "Counter")
ENCODE: Final = Name("_codecs", "encode")
SET: Final = Name("__builtin__", "set")
FROZENSET: Final = Name("__builtin__", "frozenset")
BYTEARRAY: Final = Name("__builtin__", "bytearray")
BYTES: Final = Name("__builtin__", "bytes")
COMPLEX: Final = Name("__builtin__", "complex")

CONSTRUCTORS: Final = frozenset(
    {
        TENSOR_V1, TENSOR, PARAMETER, SIZE, DEVICE, ORDERED_DICT, COUNTER, ENCODE,
        SET, FROZENSET, BYTEARRAY, BYTES, COMPLEX,
    }
)  # fmt: skip

STORAGE_OF: Final[dict[DType, Name]] = {
    dtypes.float64: Name("torch", "DoubleStorage"),
    dtypes.float32: Name("torch", "FloatStorage"),
    dtypes.float16: Name("torch", "HalfStorage"),
    dtypes.bfloat16: Name("torch", "BFloat16Storage"),
    dtypes.int64: Name("torch", "LongStorage"),
    dtypes.int32: Name("torch", "IntStorage"),
    dtypes.int16: Name("torch", "ShortStorage"),
    dtypes.int8: Name("torch", "CharStorage"),
    dtypes.uint8: Name("torch", "ByteStorage"),
    dtypes.bool_: Name("torch", "BoolStorage"),
}
DTYPE_OF_STORAGE: Final = {name: dtype for dtype, name in STORAGE_OF.items()}
DTYPE_NAMED: Final = {Name("torch", dtype.name): dtype for dtype in dtypes.ALL}

_UNKNOWN_TYPES: Final = frozenset(
    {
        "ComplexFloatStorage", "ComplexDoubleStorage", "QInt8Storage", "QUInt8Storage",
        "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage", "UntypedStorage",
    }
)  # fmt: skip


def normalised(module: str, name: str) -> Name:
    """The name as PyTorch writes it: protocol 2 calls `builtins` by the name of Python 2."""
    return Name("__builtin__" if module == "builtins" else module, name)


def is_foreign(name: Name) -> bool:
    """Whether a name is a kind of tensor or element of PyTorch that treadle does not have."""
    if name.module == "torch._utils":
        return name.name.startswith("_rebuild_")
    return name.module in ("torch", "torch.storage") and (
        name.name in _UNKNOWN_TYPES
        or name.name.startswith(("float8", "float4", "complex", "uint", "quint", "qint", "bits"))
    )
