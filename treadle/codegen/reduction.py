"""Angles of any size modulo a quarter turn (Payne and Hanek, 1983), one at a time."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.codegen.convert import cast
from treadle.codegen.helpers import by_lane
from treadle.codegen.polynomial import UINT64, quick_two_sum, two_product
from treadle.codegen.value import Emit, Value, ir, llvm_type

# The binary digits of 2/pi after 64 zeros: enough for the largest float64.
_TWO_OVER_PI: Final = (
    0x0,
    0xA2F9836E4E441529,
    0xFC2757D1F534DDC0,
    0xDB6295993C439041,
    0xFE5163ABDEBBC561,
    0xB7246E3A424DD2E0,
    0x06492EEA09D1921C,
    0xFE1DEB1CB129A73E,
    0xE88235F52EBB4484,
    0xE99C7026B45F7E41,
    0x3991D639835339F4,
    0x9C845F8BBDF9283B,
    0x1FF897FFDE05980F,
    0xEF2F118B5A0A6D1F,
    0x6D367ECF27CB09B7,
    0x4F463F669E5FEA2D,
    0x7527BAC7EBE5F17B,
    0x3D0739F78A5292EA,
    0x6BFB5FB11F8D5D08,
    0x56033046FC7B6BAB,
    0xF0CFBC209AF4361D,
)
_HALF_PI_HIGH: Final = 1.5707963267948966
_HALF_PI_LOW: Final = 6.123233995736766e-17


def reduce_large(x: Value) -> tuple[Value, Value, Value]:
    """`x = n pi/2 + high + low` for finite float64 `|x| > 2^19`: n (wrapping), high, low."""
    quadrant, high, low = by_lane("treadle.reduce", _define, [x], 3)
    return quadrant.bits(UINT64), high, low


def _define(outer: Emit) -> Any:
    double = llvm_type(dt.float64)
    result = ir.LiteralStructType([double, double, double])
    function = ir.Function(outer.module, ir.FunctionType(result, [double]), "treadle.reduce")
    function.linkage = "internal"
    function.attributes.add("nounwind")
    e = Emit(ir.IRBuilder(function.append_basic_block()), outer.target)
    quadrant, high, low = _reduced(Value(e, function.args[0], dt.float64))
    parts = ir.Constant(result, ir.Undefined)
    for index, part in enumerate((quadrant.bits(dt.float64), high, low)):
        parts = e.builder.insert_value(parts, part.raw, index)
    e.builder.ret(parts)
    return function


def _reduced(x: Value) -> tuple[Value, Value, Value]:
    bits = x.bits(UINT64)
    digits = (bits & ((1 << 52) - 1)) | (1 << 52)
    exponent = (bits >> 52) & 0x7FF
    # x = digits * 2^(exponent - 1075). Digits of 2/pi above this place make whole turns.
    place = exponent - (1075 - 62)
    window = _window(x.emit, place >> 6, place & 63)
    turns = _times(digits, window)
    # The two leading bits count quarter turns; the rest is a signed fraction of one.
    high, low = _funnel(turns[0], turns[1], 2), _funnel(turns[1], turns[2], 2)
    quadrant = (turns[0] >> 62) + (high >> 63)
    flip = 0 - (high >> 63)
    fraction, error = _to_float(high ^ flip, low ^ flip)
    angle, lost = two_product(fraction, fraction.like(_HALF_PI_HIGH))
    lost = lost + fraction * _HALF_PI_LOW + error * _HALF_PI_HIGH
    angle, lost = quick_two_sum(angle, lost)
    below = flip.differs(0) ^ (x < 0)
    quadrant = (x < 0).where(0 - quadrant, quadrant)
    return quadrant, below.where(-angle, angle), below.where(-lost, lost)


def _window(e: Emit, word: Value, shift: Value) -> list[Value]:
    """192 bits of 2/pi from bit `64 * word + shift` on."""
    table = _table(e)
    kind = ir.IntType(64)
    loaded = []
    for i in range(4):
        address = e.builder.gep(table, [(word + i).raw], source_etype=kind)
        loaded.append(Value(e, e.builder.load(address, typ=kind, align=8), UINT64))
    return [_funnel(loaded[i], loaded[i + 1], shift) for i in range(3)]


def _table(e: Emit) -> Any:
    name = "treadle.two_over_pi"
    table = e.module.globals.get(name)
    if table is None:
        kind = ir.ArrayType(ir.IntType(64), len(_TWO_OVER_PI))
        table = ir.GlobalVariable(e.module, kind, name)
        table.linkage = "internal"
        table.global_constant = True
        table.initializer = ir.Constant(kind, list(_TWO_OVER_PI))
        table.type = ir.PointerType()
    return table


def _funnel(high: Value, low: Value, shift: Value | int) -> Value:
    """The upper 64 bits of `high:low` shifted left."""
    moved = high.like(shift) if isinstance(shift, int) else shift
    raw = high.emit.intrinsic("fshl", high.raw.type, high.raw, low.raw, moved.raw)
    return Value(high.emit, raw, UINT64)


def _times(digits: Value, window: list[Value]) -> list[Value]:
    """The lower 192 bits of a product of 64 and 192 bits."""
    high_1, low_1 = _product(digits, window[1])
    high_2, low_2 = _product(digits, window[2])
    middle = low_1 + high_2
    carry = cast(middle < low_1, UINT64)
    return [digits * window[0] + high_1 + carry, middle, low_2]


def _product(a: Value, b: Value) -> tuple[Value, Value]:
    wide = ir.IntType(128)
    build = a.emit.builder
    product = build.mul(build.zext(a.raw, wide), build.zext(b.raw, wide))
    high = build.trunc(build.lshr(product, ir.Constant(wide, 64)), a.raw.type)
    return Value(a.emit, high, UINT64), Value(a.emit, build.trunc(product, a.raw.type), UINT64)


def _to_float(high: Value, low: Value) -> tuple[Value, Value]:
    """`high:low / 2^128` as the sum of two float64."""
    e = high.emit
    false = ir.Constant(ir.IntType(1), 0)
    zeros = Value(e, e.intrinsic("ctlz", high.raw.type, high.raw, false), UINT64)
    top, rest = _funnel(high, low, zeros), low << zeros
    leading = cast(top & (2**64 - 2**11), dt.float64)
    trailing = cast(((top & 0x7FF) << 53) | (rest >> 11), dt.float64)
    unit = ((1023 - 64 - zeros) << 52).bits(dt.float64)
    return leading * unit, trailing * unit * 2.0**-53
