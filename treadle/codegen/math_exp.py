"""The exponential and what is made of it."""

from __future__ import annotations

from typing import Final

from treadle.codegen.polynomial import (
    LN2_HIGH,
    LN2_LOW,
    clamp,
    horner,
    power_of_two,
    scaled,
    whole,
)
from treadle.codegen.value import Value

_LOG2_E: Final = 1.4426950408889634
_LN_2: Final = 0.6931471805599453

# (exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2: Chebyshev fits, absolute error 2e-9 and 2e-18.
_TAIL: Final = {
    32: (
        0.5000000014286223,
        0.16666666682534356,
        0.04166645680967788,
        0.008333310024225292,
        0.0013934541928270264,
        0.0001989198131397769,
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
    bits = x.dtype.bits
    x = clamp(x, _LEAST[bits], _MOST[bits])
    n, rest = _reduced(x)
    return scaled(1.0 + _minus_one(rest), n)


def exp2(x: Value) -> Value:
    """`2^x`."""
    bits = x.dtype.bits
    x = clamp(x, -152.0 if bits == 32 else -1077.0, 129.0 if bits == 32 else 1025.0)
    power, n = whole(x, 1.0)
    return scaled(1.0 + _minus_one((x - power) * _LN_2), n)


def expm1(x: Value) -> Value:
    """`e^x - 1`, exact to the last digits near 0."""
    bits = x.dtype.bits
    bounded = clamp(x, _MINUS_ONE[bits], _MOST[bits])
    n, rest = _reduced(bounded)
    # Half of the result: 2^n itself would overflow a step too early.
    half = power_of_two(n - 1, x)
    result = _minus_one(rest).madd(half, half - 0.5) * 2.0
    # The sum above would turn -0 into 0.
    return x.equals(0).where(x, result)


def sigmoid(x: Value) -> Value:
    """`1 / (1 + e^-x)`."""
    small = exp(-x.absolute())
    return (x < 0).where(small, small.like(1.0)) / (small + 1.0)


def tanh(x: Value) -> Value:
    """`(e^2x - 1) / (e^2x + 1)`."""
    size = x.absolute()
    bounded = clamp(size, 0.0, 10.0 if x.dtype.bits == 32 else 20.0)
    grown = expm1(bounded + bounded)
    return (grown / (grown + 2.0)).copysign(x)


def _reduced(x: Value) -> tuple[Value, Value]:
    """`x = n ln 2 + rest` with `|rest| <= ln(2)/2` and n an integer."""
    bits = x.dtype.bits
    power, n = whole(x, _LOG2_E)
    rest = power.madd(-LN2_HIGH[bits], x)
    return n, power.madd(-LN2_LOW[bits], rest)


def _minus_one(rest: Value) -> Value:
    """`e^rest - 1` for a reduced argument."""
    return horner(rest, _TAIL[rest.dtype.bits]).madd(rest * rest, rest)
