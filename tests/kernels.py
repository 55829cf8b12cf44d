"""Runs hand-made kernels on NumPy arrays."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.compile import image_of
from treadle.codegen.executable import place
from treadle.codegen.target import Target, host
from treadle.ir.loop import Binary, Const, Expr, For, Kernel, Load, Param, Size, Store, Unary, Var

_SIGNATURE = ctypes.CFUNCTYPE(
    ctypes.c_int64, *[ctypes.c_void_p] * 3, ctypes.c_int64, ctypes.c_int64
)


def compiled(kernel: Kernel, target: Target | None = None) -> int:
    """The address of a kernel's code, made anew without any cache."""
    made = image_of(kernel, target or host())
    return place([made])[0] + made.symbols["kernel"]


def call(
    address: int,
    arrays: Sequence[np.ndarray],
    sizes: Sequence[int] = (),
    begin: int = 0,
    end: int = 1,
    scratch: int = 1 << 16,
) -> int:
    """Runs a kernel on arrays, in the order of its parameters; returns its fault code."""
    slots = np.array([a.ctypes.data for a in arrays] or [0], dtype=np.int64)
    places = [n for i in range(len(arrays)) for n in (i, 0)]
    params = np.array([*places, *sizes, 0], dtype=np.int64)
    memory = np.empty(scratch + 64, dtype=np.uint8)
    start = memory.ctypes.data + -memory.ctypes.data % 64
    return int(_SIGNATURE(address)(slots.ctypes.data, params.ctypes.data, start, begin, end))


def elementwise(value: Expr, *dtypes: DType) -> Kernel:
    """`y[i] = value` for i in 0 .. size-1, in one vector loop."""
    inputs = tuple(Param(f"x{i}", d) for i, d in enumerate(dtypes))
    body = For("i", Size(0), Store("y", Var("i"), value), "vector")
    return Kernel("elementwise", (*inputs, Param("y", value.dtype, "out")), 1, body)


def operand(number: int, dtype: DType) -> Load:
    """The element `i` of the input `number` of an elementwise kernel."""
    return Load(f"x{number}", Var("i"), dtype)


def apply(op: str, dtype: DType, *arrays: np.ndarray, target: Target | None = None) -> np.ndarray:
    """An operator applied to whole arrays by generated code."""
    xs = [operand(i, dtype) for i in range(len(arrays))]
    value: Expr = Unary(op, xs[0]) if len(xs) == 1 else Binary(op, xs[0], xs[1])
    address = compiled(elementwise(value, *[dtype] * len(xs)), target)
    out = np.empty(arrays[0].shape, dtype=value.dtype.numpy)
    assert call(address, [*arrays, out], [out.size]) == 0
    return out


__all__ = ["Const", "apply", "call", "compiled", "dt", "elementwise", "operand"]
