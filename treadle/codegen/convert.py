"""Conversions between element types, in registers and at the edge of memory."""

from __future__ import annotations

import functools
from typing import Any

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.value import Emit, Value, carried, ir, llvm_type


@functools.cache
def memory_type(dtype: DType, lanes: int = 1) -> Any:
    """The LLVM type of elements in memory: bool is a byte, bfloat16 two plain bytes."""
    if dtype is dt.float16:
        element = ir.HalfType()
    elif dtype.kind == "f" and dtype is not dt.bfloat16:
        return llvm_type(dtype, lanes)
    else:
        element = ir.IntType(dtype.bits)
    return ir.VectorType(element, lanes) if lanes > 1 else element


def from_memory(emit: Emit, raw: Any, dtype: DType) -> Value:
    """An element, or a row of them, as loaded, ready to compute with."""
    b = emit.builder
    lanes = raw.type.count if isinstance(raw.type, ir.VectorType) else 1
    if dtype is dt.bool_:
        return Value(emit, raw, dt.uint8).differs(0)
    if dtype is dt.bfloat16:
        wide = b.zext(raw, llvm_type(dt.uint32, lanes))
        return (Value(emit, wide, dt.uint32) << 16).bits(dt.float32)
    if dtype is dt.float16:
        if emit.target.half:
            return Value(emit, b.fpext(raw, llvm_type(dt.float32, lanes)), dt.float32)
        bits = b.bitcast(raw, llvm_type(dt.int16, lanes))
        return _half_to_float(Value(emit, b.zext(bits, llvm_type(dt.uint32, lanes)), dt.uint32))
    return Value(emit, raw, dtype)


def to_memory(value: Value, dtype: DType) -> Any:
    """A computed value as the element of `dtype` that is stored."""
    emit, b = value.emit, value.emit.builder
    if dtype is dt.bool_:
        return b.zext(value.raw, memory_type(dtype, value.lanes))
    if dtype is dt.bfloat16:
        return b.trunc((_brain_bits(value) >> 16).raw, memory_type(dtype, value.lanes))
    if dtype is dt.float16:
        if emit.target.half:
            return b.fptrunc(value.raw, memory_type(dtype, value.lanes))
        narrow = b.trunc(_float_to_half(value).raw, llvm_type(dt.int16, value.lanes))
        return b.bitcast(narrow, memory_type(dtype, value.lanes))
    return value.raw


def cast(value: Value, dtype: DType) -> Value:
    """A value converted to `dtype`.

    To bool by `!= 0`; float to integer towards zero, unspecified where the result does not fit;
    to float16 and bfloat16 by rounding to even, the result being carried as float32.
    """
    if dtype is dt.bool_:
        return value if value.dtype is dt.bool_ else value.differs(0)
    result = carried(dtype)
    if result.kind == "f":
        wide = _to_float(value, result)
        return round_to(wide, dtype) if dtype is not result else wide
    if value.dtype.kind == "f":
        return _to_integer(value, result)
    return _resize(value, result)


def round_to(value: Value, dtype: DType) -> Value:
    """A float32 value rounded to the nearest of a two-byte type."""
    if dtype is dt.bfloat16:
        return (_brain_bits(value) & 0xFFFF0000).bits(dt.float32)
    return from_memory(value.emit, to_memory(value, dtype), dtype)


def _to_float(value: Value, dtype: DType) -> Value:
    emit, b, kind = value.emit, value.emit.builder, llvm_type(dtype, value.lanes)
    source = value.dtype
    if source is dtype:
        return value
    if source.kind == "f":
        convert = b.fpext if dtype.bits > source.bits else b.fptrunc
        return Value(emit, convert(value.raw, kind), dtype)
    if source.kind == "i":
        return Value(emit, b.sitofp(value.raw, kind), dtype)
    if source.bits < 32 or source is dt.bool_:
        # Small unsigned numbers are non-negative int32, for which there is an instruction.
        wide = b.zext(value.raw, llvm_type(dt.int32, value.lanes))
        return Value(emit, b.sitofp(wide, kind), dtype)
    return Value(emit, b.uitofp(value.raw, kind), dtype)


def _to_integer(value: Value, dtype: DType) -> Value:
    emit, b = value.emit, value.emit.builder
    through = dt.int64 if dtype.bits == 64 or dtype is dt.uint32 else dt.int32
    whole = b.fptosi(value.raw, llvm_type(through, value.lanes))
    # Out of range LLVM promises nothing at all; `freeze` makes it some number.
    frozen = ir.instructions.Instruction(emit.builder.block, whole.type, "freeze", [whole])
    b._insert(frozen)
    return _resize(Value(emit, frozen, through), dtype)


def _resize(value: Value, dtype: DType) -> Value:
    emit, b, kind = value.emit, value.emit.builder, llvm_type(dtype, value.lanes)
    source = value.dtype
    bits = 1 if source is dt.bool_ else source.bits
    if dtype.bits == bits:
        return Value(emit, value.raw, dtype)
    if dtype.bits < bits:
        return Value(emit, b.trunc(value.raw, kind), dtype)
    extend = b.sext if source.kind == "i" else b.zext
    return Value(emit, extend(value.raw, kind), dtype)


def _brain_bits(value: Value) -> Value:
    """float32 bits whose upper half is the nearest bfloat16; a NaN stays one."""
    bits = value.bits(dt.uint32)
    rounded = bits + 0x7FFF + ((bits >> 16) & 1)
    return value.is_nan().where(bits | 0x400000, rounded)


def _half_to_float(half: Value) -> Value:
    """float16 bits (in uint32) to float32, without the instruction."""
    sign = (half & 0x8000) << 16
    magnitude = (half & 0x7FFF) << 13
    # Read as float32 the exponent is too small by 112; a multiplication also mends denormals.
    scaled = (magnitude.bits(dt.float32) * 2.0**112).bits(dt.uint32)
    special = magnitude >= (0x7C00 << 13)
    return (special.where(magnitude | 0x7F800000, scaled) | sign).bits(dt.float32)


def _float_to_half(value: Value) -> Value:
    """float32 to float16 bits (in uint32), rounded to even, without the instruction."""
    bits = value.bits(dt.uint32)
    sign = (bits >> 16) & 0x8000
    magnitude = bits & 0x7FFFFFFF
    normal = (magnitude + 0xFFF + ((magnitude >> 13) & 1) - (112 << 23)) >> 13
    # Adding 0.5 leaves a denormal half in the low bits of the sum, rounded by the addition.
    small = (magnitude.bits(dt.float32) + 0.5).bits(dt.uint32) - (126 << 23)
    number = (magnitude < (113 << 23)).where(small, normal)
    infinite = (magnitude >= 0x477FF000).where(0x7C00, number)
    return (magnitude > 0x7F800000).where(0x7E00, infinite) | sign
