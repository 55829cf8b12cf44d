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
# (tanh(x)/x - 1) / x^2 in powers of x^2 on [0, 0.625]: absolute error 2e-9.
_TANH_32: Final = (
    -0.3333333317214036,
    0.1333330355691574,
    -0.053959259577204544,
    0.02176891865102821,
    -0.008343945515839153,
    0.002292744816178142,
)
# Where the result is 0 or infinite for sure, and where exp(x) - 1 is -1 to the last digit.
_LEAST: Final = {32: -105.0, 64: -746.0}
_MOST: Final = {32: 89.0, 64: 710.0}
_MINUS_ONE: Final = {32: -18.0, 64: -40.0}


def exp(x: Value) -> Value:
    """`e^x`."""
    n, rest = _reduced(_bounded(x))
    return scaled(1.0 + _minus_one(rest), n)


def exp2(x: Value) -> Value:
    """`2^x`."""
    bits = x.dtype.bits
    x = clamp(x, -152.0 if bits == 32 else -1077.0, 129.0 if bits == 32 else 1025.0)
    power, n = whole(x, 1.0)
    return scaled(1.0 + _minus_one((x - power) * _LN_2), n)


def exp2_normal(x: Value) -> Value:
    """`2^x`, but 0 where that is no normal number: half of the work of `exp2`."""
    least, most = (-126.0, 128.0) if x.dtype.bits == 32 else (-1022.0, 1024.0)
    inside = clamp(x, least, most)
    power, n = whole(inside, 1.0)
    result = (1.0 + _minus_one((inside - power) * _LN_2)) * power_of_two(n, x)
    return (x < least).where(result.like(0.0), result)


def expm1(x: Value) -> Value:
    """`e^x - 1`, exact to the last digits near 0."""
    bits = x.dtype.bits
    bounded = clamp(x, _MINUS_ONE[bits], _MOST[bits])
    n, rest = _reduced(bounded)
    # Half of the result: 2^n itself would overflow a step too early.
    half = power_of_two(n - 1, x)
    result = _minus_one(rest).madd(half, half - 0.5) * 2.0
    # Half of a denormal number, and the sign of -0, would be lost.
    return (x.absolute() < 2.0**-100).where(x, result)


def sigmoid(x: Value) -> Value:
    """`1 / (1 + e^-x)`."""
    n, rest = _reduced(_bounded(-x.absolute()))
    # Adds up 1 + rest + ... with what the first sum loses: half of the error of `exp`.
    first = rest + 1.0
    lost = (1.0 - first) + rest
    small = scaled(first + horner(rest, _TAIL[x.dtype.bits]).madd(rest * rest, lost), n)
    part = small / (small + 1.0)
    return (x < 0).where((-small).madd(part, small), 1.0 - part)


def tanh(x: Value) -> Value:
    """`(e^2x - 1) / (e^2x + 1)`."""
    size = x.absolute()
    if x.dtype.bits == 64:
        grown = expm1(clamp(size, 0.0, 20.0) * 2.0)
        return (grown / (grown + 2.0)).copysign(x)
    square = x * x
    near = (horner(square, _TANH_32) * square).madd(x, x)
    far = 1.0 - 2.0 / (exp(clamp(size, 0.0, 10.0) * 2.0) + 1.0)
    return (size < 0.625).where(near, far).copysign(x)


def _bounded(x: Value) -> Value:
    return clamp(x, _LEAST[x.dtype.bits], _MOST[x.dtype.bits])


def _reduced(x: Value) -> tuple[Value, Value]:
    """`x = n ln 2 + rest` with `|rest| <= ln(2)/2` and n an integer."""
    bits = x.dtype.bits
    power, n = whole(x, _LOG2_E)
    rest = power.madd(-LN2_HIGH[bits], x)
    return n, power.madd(-LN2_LOW[bits], rest)


def _minus_one(rest: Value) -> Value:
    """`e^rest - 1` for a reduced argument."""
    return horner(rest, _TAIL[rest.dtype.bits]).madd(rest * rest, rest)
