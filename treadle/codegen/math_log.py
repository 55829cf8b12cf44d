"""Logarithms."""

from __future__ import annotations

from typing import Final

from treadle.base import dtype as dt
from treadle.codegen.convert import cast
from treadle.codegen.polynomial import LN2_HIGH, LN2_LOW, horner, integer
from treadle.codegen.value import Value

_LOG2_E: Final = 1.4426950408889634

# (log((1+s)/(1-s)) / s - 2) / s^2 in powers of s^2, for m in [sqrt(1/2), sqrt(2)].
_TAIL: Final = {
    32: (0.6666666655404201, 0.4000012221181065, 0.28550778633191964, 0.23331614471843498),
    64: (
        0.6666666666666666,
        0.40000000000000885,
        0.28571428570799784,
        0.22222222392581045,
        0.18181795547521137,
        0.15386244737621665,
        0.13268638369266825,
        0.13088034850927555,
    ),
}
_LEAST_NORMAL: Final = {32: 2.0**-126, 64: 2.0**-1022}
_ROOT_HALF: Final = {32: 0x3F3504F3, 64: 0x3FE6A09E667F3BCD}
_MANTISSA: Final = {32: 23, 64: 52}


def log(x: Value) -> Value:
    """The natural logarithm; -inf at 0, NaN below."""
    bits = x.dtype.bits
    exponent, f = decomposed(x)
    correction = exponent * LN2_LOW[bits]
    result = exponent.madd(LN2_HIGH[bits], _log_near_one(f, correction))
    return _at_the_edges(x, result)


def log2(x: Value) -> Value:
    """The logarithm to base 2."""
    exponent, f = decomposed(x)
    return _at_the_edges(x, _log_near_one(f, f.like(0.0)).madd(_LOG2_E, exponent))


def log1p(x: Value) -> Value:
    """`log(1 + x)`, exact to the last digits near 0."""
    bits = x.dtype.bits
    total = x + 1.0
    # What the sum lost, relative to it; the larger summand goes first.
    lost = (x > 1.0).where(1.0 - (total - x), x - (total - 1.0)) / total
    exponent, f = decomposed(total)
    correction = exponent.madd(LN2_LOW[bits], lost)
    result = exponent.madd(LN2_HIGH[bits], _log_near_one(f, correction))
    result = _at_the_edges(total, result)
    return x.equals(0).where(x, result)


def decomposed(x: Value) -> tuple[Value, Value]:
    """`x = 2^exponent (1 + f)` with `1 + f` in [sqrt(1/2), sqrt(2)), for positive finite `x`."""
    bits = x.dtype.bits
    digits = _MANTISSA[bits]
    small = x < _LEAST_NORMAL[bits]
    x = small.where(x * 2.0**digits, x)
    # Positive numbers compare as their bits do, so this counts octaves from sqrt(1/2).
    above = x.bits(integer(x)) - _ROOT_HALF[bits]
    exponent = cast(_octave(above), x.dtype)
    exponent = small.where(exponent - float(digits), exponent)
    mantissa = ((above & ((1 << digits) - 1)) + _ROOT_HALF[bits]).bits(x.dtype)
    return exponent, mantissa - 1.0


def _octave(above: Value) -> Value:
    """The exponent bits, signed; of 64 bits the upper half, since vectors shift 32 well."""
    if above.dtype is dt.int32:
        return above >> 23
    return cast(above >> 32, dt.int32) >> 20


def _log_near_one(f: Value, correction: Value) -> Value:
    """`log(1 + f) + correction` for a reduced argument (after FreeBSD's `k_log`)."""
    s = f / (f + 2.0)
    z = s * s
    tail = horner(z, _TAIL[f.dtype.bits]) * z
    half = f * f * 0.5
    return f - (half - s.madd(half + tail, correction))


def _at_the_edges(x: Value, result: Value) -> Value:
    result = (x < float("inf")).where(result, x)
    result = (x < 0).where(float("nan"), result)
    return x.equals(0).where(float("-inf"), result)
