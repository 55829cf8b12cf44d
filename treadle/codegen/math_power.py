"""Powers of floating-point numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from treadle.base import dtype as dt
from treadle.codegen.convert import cast
from treadle.codegen.math_exp import exp
from treadle.codegen.math_log import decomposed, log
from treadle.codegen.polynomial import (
    LN2_HIGH,
    LN2_LOW,
    horner,
    quick_two_sum,
    two_product,
    two_sum,
)
from treadle.codegen.rounding import truncate
from treadle.codegen.value import Value

_TWO_THIRDS: Final = (0.6666666666666666, 3.700743415417188e-17)
# The series of log((1+s)/(1-s)) after 2s + 2/3 s^3, over s^5, in powers of s^2.
_TAIL: Final = (
    0.4,
    0.2857142857142937,
    0.22222222221652765,
    0.18181818336099848,
    0.1538459488700718,
    0.1333480879881234,
    0.11706126464563398,
    0.11724327060846747,
)


def power(a: Value, b: Value) -> Value:
    """`a^b`, with the special cases of C; a few constant exponents are plain arithmetic."""
    simple = _SIMPLE.get(b.known)
    if simple is not None:
        return simple(a)
    a, b = a.meet(b)
    if a.dtype is dt.float32:
        x, y = cast(a, dt.float64), cast(b, dt.float64)
        # Rounding to float32 at the end hides what float64 alone does not get right.
        size = exp(y * log(x.absolute()))
    else:
        x, y = a, b
        size = _exact_power(x.absolute(), y)
    return cast(_with_sign(x, y, size), a.dtype)


def _exact_power(x: Value, y: Value) -> Value:
    high, low = _log(x)
    product, lost = two_product(y, high)
    lost = y.madd(low, lost)
    # Infinite and zero operands make NaN here; the leading part alone is right for them.
    lost = (lost.absolute() < 1.0).where(lost, 0.0)
    plain = y * log(x)
    edge = ~(plain.absolute() < 1000.0) | (product.absolute() > 1e300)
    result = exp(edge.where(plain, product))
    edge = edge | result.equals(float("inf"))
    return edge.where(result, result.madd(lost, result))


def _with_sign(x: Value, y: Value, size: Value) -> Value:
    unit = y.equals(0) | x.absolute().equals(1.0)
    size = unit.where(1.0, size)
    even = truncate(y * 0.5).equals(y * 0.5)
    integral = truncate(y).equals(y)
    negative = x.bits(dt.int64) < 0
    signed = (negative & integral & ~even).where(-size, size)
    # 0 and infinity to a power that is not whole have no sign and are no error.
    real = integral | ~negative | x.equals(0) | x.equals(float("-inf"))
    result = real.where(signed, float("nan"))
    # 1 to any power and anything to the power 0 is 1, NaN included.
    one = y.equals(0) | x.equals(1.0)
    return one.where(1.0, (x.is_nan() | y.is_nan()).where(x + y, result))


def _log(x: Value) -> tuple[Value, Value]:
    """The logarithm as a sum of two float64, for positive finite `x`."""
    exponent, f = decomposed(x)
    over = f + 2.0
    s = f / over
    product, lost = two_product(s, over)
    # f - s * (2 + f), whose second factor was rounded to `over`.
    s_low = (((f - product) - lost) - s * (f - (over - 2.0))) / over
    z, z_low = two_product(s, s)
    z_low = z_low + 2.0 * (s * s_low)
    cube, cube_low = two_product(z, s)
    cube_low = cube_low + z * s_low + z_low * s
    third, third_low = two_product(cube, cube.like(_TWO_THIRDS[0]))
    third_low = third_low + cube * _TWO_THIRDS[1] + cube_low * _TWO_THIRDS[0]
    tail = horner(z, _TAIL) * (cube * z)
    first, lost_1 = two_sum(exponent * LN2_HIGH[64], s * 2.0)
    second, lost_2 = two_sum(first, third)
    rest = lost_1 + (lost_2 + (s_low * 2.0 + (third_low + tail + exponent * LN2_LOW[64])))
    return quick_two_sum(second, rest)


_SIMPLE: Final[dict[float | None, Callable[[Value], Value]]] = {
    1.0: lambda a: a,
    2.0: lambda a: a * a,
    3.0: lambda a: a * a * a,
    4.0: lambda a: (a * a) * (a * a),
    -1.0: lambda a: 1.0 / a,
    -2.0: lambda a: 1.0 / (a * a),
    0.5: lambda a: a.unary("sqrt"),
    -0.5: lambda a: 1.0 / a.unary("sqrt"),
}
