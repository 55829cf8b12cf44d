"""The element types of tensors, and how two of them combine."""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from treadle.base.lazy import LazyModule

_numpy = LazyModule("numpy")
_ml_dtypes = LazyModule("ml_dtypes")


class DType:
    """An element type: its name, its size in bytes and its kind.

    `kind` is one letter: `b` bool, `u` unsigned, `i` signed integer, `f` floating point.
    There is one object per type, so types are compared with `is`.
    """

    __slots__ = ("bits", "itemsize", "kind", "name", "rank")

    def __init__(self, name: str, kind: str, itemsize: int, rank: int) -> None:
        self.name: Final = name
        self.kind: Final = kind
        self.itemsize: Final = itemsize
        self.bits: Final = itemsize * 8
        self.rank: Final = rank

    def __repr__(self) -> str:
        return f"treadle.{self.name}"

    def __reduce__(self) -> str:
        return self.name if self.name != "bool" else "bool_"

    @property
    def is_floating_point(self) -> bool:
        """Whether values are floating-point numbers."""
        return self.kind == "f"

    @property
    def numpy(self) -> Any:
        """The NumPy dtype of the same layout."""
        if self.name == "bfloat16":
            return _numpy.dtype(_ml_dtypes.bfloat16)
        return _numpy.dtype(self.name)


bool_ = DType("bool", "b", 1, 0)
uint8 = DType("uint8", "u", 1, 1)
int8 = DType("int8", "i", 1, 2)
int16 = DType("int16", "i", 2, 3)
int32 = DType("int32", "i", 4, 4)
int64 = DType("int64", "i", 8, 5)
float16 = DType("float16", "f", 2, 6)
bfloat16 = DType("bfloat16", "f", 2, 7)
float32 = DType("float32", "f", 4, 8)
float64 = DType("float64", "f", 8, 9)
# Only inside kernels: random bits and hashes. No tensor has it.
uint32 = DType("uint32", "u", 4, 4)

ALL: Final = (
    bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64,
)  # fmt: skip
_BY_NAME: Final = {d.name: d for d in (*ALL, uint32)}


def from_name(name: str) -> DType:
    """The type called `name`; raises `KeyError` for an unknown one."""
    return _BY_NAME[name]


@cache
def from_numpy(dtype: Any) -> DType:
    """The type with the layout of a NumPy dtype; raises `TypeError` where there is none."""
    found = _BY_NAME.get(_numpy.dtype(dtype).name)
    if found is None or found is uint32:
        raise TypeError(f"treadle has no element type for NumPy's {_numpy.dtype(dtype).name}")
    return found


def promote(a: DType, b: DType) -> DType:
    """The type of `a + b` for two tensors with dimensions, by PyTorch's promotion lattice."""
    if a is b:
        return a
    if a.kind == "f" or b.kind == "f":
        if a.kind != b.kind:
            return a if a.kind == "f" else b
        if {a, b} == {float16, bfloat16}:
            return float32
        return a if a.rank > b.rank else b
    if a is bool_ or b is bool_:
        return b if a is bool_ else a
    if uint8 in (a, b):
        other = b if a is uint8 else a
        return int16 if other is int8 else other
    return a if a.rank > b.rank else b
