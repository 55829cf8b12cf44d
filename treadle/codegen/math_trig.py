"""Trigonometric functions, with arguments of any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from treadle.base import dtype as dt
from treadle.codegen.convert import cast
from treadle.codegen.polynomial import (
    horner,
    quick_two_sum,
    two_sum,
    whole,
)
from treadle.codegen.reduction import reduce_large
from treadle.codegen.value import Value

_TWO_OVER_PI: Final = 0.6366197723675814
# pi/2 in pieces of 33 digits: their multiples by a number of 20 digits are exact.
_HALF_PI: Final = (
    1.5707963267341256,
    6.077100506303966e-11,
    2.0222662487111665e-21,
    8.4784276603689e-32,
)
_LARGE: Final = 2.0**19

# sin(r)/r - 1 over r^2, and (cos(r) - 1 + r^2/2) / r^4, in powers of r^2, for |r| <= pi/4.
_SINE_32: Final = (-1.6666654611e-1, 8.3321608736e-3, -1.9515295891e-4)
_COSINE_32: Final = (4.166664568298827e-2, -1.388731625493765e-3, 2.443315711809948e-5)
# The same in float64, from FreeBSD's `k_sin` and `k_cos`.
_SINE_64: Final = (
    -1.66666666666666324348e-01,
    8.33333333332248946124e-03,
    -1.98412698298579493134e-04,
    2.75573137070700676789e-06,
    -2.50507602534068634195e-08,
    1.58969099521155010221e-10,
)
_COSINE_64: Final = (
    4.16666666666666019037e-02,
    -1.38888888888741095749e-03,
    2.48015872894767294178e-05,
    -2.75573143513906633035e-07,
    2.08757232129817482790e-09,
    -1.13596475577881948265e-11,
)
# (atan(t)/t - 1) / t^2 in powers of t^2, for |t| <= tan(pi/8): absolute error 1e-18.
_ARC: Final = (
    -0.3333333333333333,
    0.199999999999998,
    -0.14285714285659326,
    0.11111111105106705,
    -0.09090908751076636,
    0.0769229630497447,
    -0.06666423628069258,
    0.058789145444006215,
    -0.052303478730160745,
    0.04551108126325172,
    -0.034558092551413795,
    0.01627194475162406,
)
_TAN_PI_8: Final = 0.41421356237309503


def sin(x: Value) -> Value:
    """The sine of an angle in radians."""
    return x.equals(0).where(x, _quarter(x, 0))


def cos(x: Value) -> Value:
    """The cosine of an angle in radians."""
    return _quarter(x, 1)


def tan(x: Value) -> Value:
    """The tangent of an angle in radians; float32 is computed in float64."""
    if x.dtype is dt.float32:
        return cast(tan(cast(x, dt.float64)), dt.float32)
    quadrant, high, low = _with_large(x, _reduced_64)
    sine, cosine = _sine_64(high, low), _cosine_64(high, low)
    odd = (quadrant & 1).differs(0)
    return x.equals(0).where(x, odd.where(-cosine, sine) / odd.where(sine, cosine))


def atan2(y: Value, x: Value) -> Value:
    """The angle of the point `(x, y)`, in (-pi, pi]; float32 is computed in float64."""
    y, x = y.meet(x)
    if x.dtype is dt.float32:
        return cast(atan2(cast(y, dt.float64), cast(x, dt.float64)), dt.float32)
    steep = y.absolute() > x.absolute()
    over = steep.where(x.absolute(), y.absolute())
    under = steep.where(y.absolute(), x.absolute())
    # Two infinities stand for two equal numbers; sums of huge numbers must not overflow.
    both = over.equals(float("inf"))
    over, under = both.where(1.0, over), both.where(1.0, under)
    shrink = (under > 2.0**1000).where(under.like(2.0**-100), under.like(1.0))
    over, under = over * shrink, under * shrink
    middle = over > under * _TAN_PI_8
    t = middle.where(over - under, over) / middle.where(over + under, under)
    t = under.equals(0).where(0.0, t)
    s = t * t
    # Parts of pi are in two pieces: the second is what float64 cannot hold of the first.
    arc = (horner(s, _ARC) * s).madd(t, middle.where(t + 3.061616997868383e-17, t))
    arc = middle.where(arc + 0.7853981633974483, arc)
    arc = steep.where(1.5707963267948966 - (arc - 6.123233995736766e-17), arc)
    # The sign bit, not the comparison: atan2(0, -0) is pi.
    behind = x.bits(dt.int64) < 0
    arc = behind.where(3.141592653589793 - (arc - 1.2246467991473532e-16), arc)
    return (x.is_nan() | y.is_nan()).where(x + y, arc.copysign(y))


def _quarter(x: Value, shift: int) -> Value:
    """The sine, or the sine a quarter turn ahead."""
    if x.dtype is dt.float32:
        quadrant, angle, _ = _with_large(cast(x, dt.float64), _reduced_32)
        turn, angle = cast(quadrant, dt.uint32) + shift, cast(angle, dt.float32)
        sine, cosine = _sine_32(angle), _cosine_32(angle)
    else:
        quadrant, high, low = _with_large(x, _reduced_64)
        turn = quadrant + shift
        sine, cosine = _sine_64(high, low), _cosine_64(high, low)
    chosen = (turn & 1).differs(0).where(cosine, sine)
    return (turn & 2).differs(0).where(-chosen, chosen)


def _sine_32(r: Value) -> Value:
    z = r * r
    return (horner(z, _SINE_32) * z).madd(r, r)


def _cosine_32(r: Value) -> Value:
    z = r * r
    return horner(z, _COSINE_32).madd(z * z, z.madd(-0.5, 1.0))


def _sine_64(r: Value, low: Value) -> Value:
    z = r * r
    cube = z * r
    tail = horner(z, _SINE_64[1:])
    return r - ((z * (low * 0.5 - cube * tail) - low) - cube * _SINE_64[0])


def _cosine_64(r: Value, low: Value) -> Value:
    z = r * r
    half = z * 0.5
    near = 1.0 - half
    return near + (((1.0 - near) - half) + (z * (z * horner(z, _COSINE_64)) - r * low))


_Angle = tuple[Value, Value, Value]
"""`x = n pi/2 + high + low` with the rest at most pi/4: n (as wrapping bits), high, low."""


def _reduced_32(x: Value) -> _Angle:
    """Of a float32 in float64: one number holds the rest."""
    n, quadrant = whole(x, _TWO_OVER_PI)
    rest = n.madd(-_HALF_PI[2], n.madd(-_HALF_PI[1], n.madd(-_HALF_PI[0], x)))
    return quadrant, rest, rest


def _reduced_64(x: Value) -> _Angle:
    n, quadrant = whole(x, _TWO_OVER_PI)
    a = n.madd(-_HALF_PI[0], x)
    b, lost_b = two_sum(a, n * -_HALF_PI[1])
    c, lost_c = two_sum(b, n * -_HALF_PI[2])
    high, low = quick_two_sum(c, n.madd(-_HALF_PI[3], lost_b + lost_c))
    return quadrant, high, low


def _with_large(x: Value, near: Callable[[Value], _Angle]) -> _Angle:
    """Reduces angles by subtraction, and if some lane is large, lane by lane by the long way."""
    close = near(x)
    size = x.absolute()
    large = (size > _LARGE) & (size < float("inf"))
    b = x.emit.builder
    before = b.block
    with b.if_then(large.any().raw, likely=False):
        # The others would look for digits of 2/pi where there are none.
        parts = reduce_large(large.where(x, 2.0 * _LARGE))
        far = [large.where(f, c) for f, c in zip(parts, close, strict=True)]
        inside = b.block
    merged = []
    for there, here in zip(far, close, strict=True):
        phi = b.phi(here.raw.type)
        phi.add_incoming(here.raw, before)
        phi.add_incoming(there.raw, inside)
        merged.append(Value(x.emit, phi, here.dtype))
    return merged[0], merged[1], merged[2]
