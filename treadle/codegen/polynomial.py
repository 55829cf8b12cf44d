"""What the elementary functions share: polynomials, powers of two, exact sums and products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.value import Value

UINT64: Final = DType("uint64", "u", 8, 5)
"""Bits of float64 that are shifted: only inside of these functions."""

LN2_HIGH: Final = {32: 0.693359375, 64: 6.93147180369123816490e-01}
"""The leading digits of ln 2, so few that multiples by an exponent are exact."""
LN2_LOW: Final = {32: -2.12194440054690583e-4, 64: 1.90821492927058770002e-10}

_MANTISSA: Final = {32: 23, 64: 52}
_BIAS: Final = {32: 127, 64: 1023}
_MAGIC_BITS: Final = {32: 0x4B400000, 64: 0x4338000000000000}


def horner(x: Value, coefficients: Sequence[float]) -> Value:
    """`c0 + c1 x + c2 x^2 + ...`."""
    result = x.like(coefficients[-1])
    for c in reversed(coefficients[:-1]):
        result = result.madd(x, c)
    return result


def integer(x: Value) -> DType:
    """The signed integer type as wide as a float type."""
    return dt.int32 if x.dtype.bits == 32 else dt.int64


def unsigned(x: Value) -> DType:
    """The unsigned integer type as wide as a float type."""
    return dt.uint32 if x.dtype.bits == 32 else UINT64


def whole(x: Value, scale: float) -> tuple[Value, Value]:
    """`x * scale` rounded to a whole number, as a float and as an unsigned integer that wraps.

    Adding 1.5 * 2^(digits - 1) leaves the number in the low bits of the sum. The product may be
    off in its last digit, which moves the rounding point and nothing else.
    """
    number, bits = _shifted(x, scale, 0)
    return number, bits - _MAGIC_BITS[x.dtype.bits]


def power(x: Value, scale: float) -> tuple[Value, Value]:
    """`x * scale` rounded to a whole number n, and `2^n`, which must be a normal number."""
    number, bits = _shifted(x, scale, _BIAS[x.dtype.bits])
    return number, _as_exponent(bits, x)


def halves(x: Value, scale: float) -> tuple[Value, Value, Value]:
    """`x * scale` rounded to a whole number n, and two numbers whose product is `2^n`: they are
    normal where the power is not, or is infinite."""
    number, bits = _shifted(x, scale, 2 * _BIAS[x.dtype.bits])
    half = bits >> 1
    return number, _as_exponent(half, x), _as_exponent(bits - half, x)


def _shifted(x: Value, scale: float, bias: int) -> tuple[Value, Value]:
    magic = 1.5 * 2.0 ** _MANTISSA[x.dtype.bits] + bias
    shifted = x.madd(scale, magic)
    return shifted - magic, shifted.bits(unsigned(x))


def _as_exponent(n: Value, like: Value) -> Value:
    """The lowest bits of an integer as those of an exponent; all others drop out."""
    return (n << _MANTISSA[like.dtype.bits]).bits(like.dtype)


def clamp(x: Value, low: float, high: float) -> Value:
    """`x` within bounds; a NaN stays."""
    x = (x < low).where(low, x)
    return (x > high).where(high, x)


def two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """`a + b` rounded, and what the rounding lost (Knuth)."""
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def quick_two_sum(a: Value, b: Value) -> tuple[Value, Value]:
    """The same for `|a| >= |b|` (Dekker)."""
    total = a + b
    return total, b - (total - a)


def two_product(a: Value, b: Value) -> tuple[Value, Value]:
    """`a * b` rounded, and what the rounding lost; float64, far from overflow."""
    product = a * b
    if a.emit.target.fma:
        return product, a.madd(b, -product)
    a_high, a_low = _split(a)
    b_high, b_low = _split(b)
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, lost


def _split(a: Value) -> tuple[Value, Value]:
    """Halves of 26 digits each, whose products are exact (Veltkamp)."""
    high = (a.bits(UINT64) & (2**64 - 2**27)).bits(a.dtype)
    return high, a - high
