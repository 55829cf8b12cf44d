"""The exponential and what is made of it."""

from __future__ import annotations

from typing import Final

from treadle.codegen.polynomial import (
    LN2_HIGH,
    LN2_LOW,
    clamp,
    halves,
    horner,
    power,
)
from treadle.codegen.value import Value

_LOG2_E: Final = 1.4426950408889634
_LN_2: Final = 0.6931471805599453

# (exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2: fits of the least error of exp(r) - 1.
_TAIL: Final = {
    32: (
        0.5,
        0.16666541993618011,
        0.04166628047823906,
        0.00836664903908968,
        0.0013946563703939319,
    ),
    64: (
        0.5,
        0.1666666666666667,
        0.04166666666666667,
        0.008333333333325544,
        0.0013888888888883327,
        0.00019841269876864356,
        2.4801587327007187e-05,
        2.755725283351691e-06,
        2.75572718102198e-07,
        2.5106274733573296e-08,
        2.0915442297780116e-09,
    ),
}
# Where the result is 0 or infinite for sure, and where exp(x) - 1 is -1 to the last digit.
_LEAST: Final = {32: -105.0, 64: -746.0}
_MOST: Final = {32: 89.0, 64: 710.0}
_MINUS_ONE: Final = {32: -18.0, 64: -40.0}


def exp(x: Value) -> Value:
    """`e^x`."""
    first, second, tail = _parts(clamp(x, _LEAST[x.dtype.bits], _MOST[x.dtype.bits]))
    return tail.madd(first, first) * second


def exp2(x: Value) -> Value:
    """`2^x`."""
    bits = x.dtype.bits
    x = clamp(x, -152.0 if bits == 32 else -1077.0, 129.0 if bits == 32 else 1025.0)
    n, first, second = halves(x, 1.0)
    return _minus_one((x - n) * _LN_2).madd(first, first) * second


def exp2_normal(x: Value) -> Value:
    """`2^x`, but 0 where that is no normal number: less work than `exp2`."""
    least, most = (-126.0, 128.0) if x.dtype.bits == 32 else (-1022.0, 1024.0)
    inside = clamp(x, least, most)
    n, scale = power(inside, 1.0)
    result = _minus_one((inside - n) * _LN_2).madd(scale, scale)
    return (x < least).where(result.like(0.0), result)


def expm1(x: Value) -> Value:
    """`e^x - 1`, exact to the last digits near 0."""
    bits = x.dtype.bits
    bounded = clamp(x, _MINUS_ONE[bits], _MOST[bits])
    # Half of the result: 2^n itself would overflow a step too early.
    first, second, tail = _parts(bounded)
    half = first * (second * 0.5)
    result = tail.madd(half, half - 0.5) * 2.0
    # Half of a denormal number, and the sign of -0, would be lost.
    return (x.absolute() < 2.0**-100).where(x, result)


def decay(x: Value) -> tuple[Value, Value]:
    """`1 - e^x`, exact to the last digits near 0, and `1 + e^x`, for `x` from -40 to 0."""
    bits = x.dtype.bits
    n, scale = power(x, _LOG2_E)
    # What ln 2 in one float32 is off by counts for nothing: there is little left of `e^x`.
    rest = n.madd(-_LN_2, x) if bits == 32 else _rest(n, x)
    tail = _minus_one(rest)
    return tail.madd(-scale, 1.0 - scale), tail.madd(scale, scale + 1.0)


def sigmoid(x: Value) -> Value:
    """`1 / (1 + e^-x)`."""
    small = exp(-x.absolute())
    part = small / (small + 1.0)
    return (x < 0).where((-small).madd(part, small), 1.0 - part)


def tanh(x: Value) -> Value:
    """`(1 - e^-2x) / (1 + e^-2x)`."""
    size = clamp(x.absolute(), 0.0, 10.0 if x.dtype.bits == 32 else 20.0)
    lost, kept = decay(size * -2.0)
    return (lost / kept).copysign(x)


def _parts(x: Value) -> tuple[Value, Value, Value]:
    """`e^x = first * second * (1 + tail)`."""
    n, first, second = halves(x, _LOG2_E)
    return first, second, _minus_one(_rest(n, x))


def _rest(n: Value, x: Value) -> Value:
    """`x - n ln 2`."""
    bits = x.dtype.bits
    return n.madd(-LN2_LOW[bits], n.madd(-LN2_HIGH[bits], x))


def _minus_one(rest: Value) -> Value:
    """`e^rest - 1` for a reduced argument."""
    return horner(rest, _TAIL[rest.dtype.bits]).madd(rest * rest, rest)
