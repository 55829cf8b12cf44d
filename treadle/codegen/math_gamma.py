"""The logarithm of the gamma function, and its derivative; in float64 for every dtype."""

from __future__ import annotations

import math
from typing import Final

from treadle.base import dtype as dt
from treadle.codegen.convert import cast
from treadle.codegen.math_log import log
from treadle.codegen.math_trig import sin, tan
from treadle.codegen.polynomial import horner
from treadle.codegen.rounding import nearest
from treadle.codegen.value import Value

# log(gamma(2 + z)) / z in powers of z: 1 - Euler's constant, then (zeta(k) - 1) (-1)^k / k.
_AROUND_TWO: Final = (
    0.42278433509846713,
    0.3224670334241132,
    -0.0673523010531981,
    0.020580808427784546,
    -0.007385551028673986,
    0.0028905103307415234,
    -0.001192753911703261,
    0.0005096695247430425,
    -0.00022315475845357939,
    9.945751278180853e-05,
    -4.492623673813314e-05,
    2.050721277567069e-05,
    -9.439488275268397e-06,
    4.374866789907488e-06,
    -2.039215753801366e-06,
    9.55141213040742e-07,
    -4.492469198764566e-07,
    2.1207184805554665e-07,
    -1.0043224823968099e-07,
    4.7698101693639804e-08,
    -2.2711094608943164e-08,
    1.0838659214896955e-08,
    -5.183475041970047e-09,
    2.4836745438024785e-09,
    -1.1921401405860912e-09,
    5.731367241678862e-10,
    -2.7595228851242334e-10,
    1.330476437424449e-10,
    -6.4229645638381e-11,
)
# Stirling's series and its derivative in powers of 1 / x^2: the Bernoulli numbers
# B_2k / (2k (2k - 1)) and B_2k / 2k (Abramowitz and Stegun, 1964, 6.1.40 and 6.3.18).
_BERNOULLI: Final = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
_STIRLING: Final = tuple(b / (2 * k * (2 * k - 1)) for k, b in enumerate(_BERNOULLI, 1))
_SERIES: Final = tuple(-b / (2 * k) for k, b in enumerate(_BERNOULLI, 1))
_FAR: Final = 10.5
"""From here on the series hold."""


def lgamma(x: Value) -> Value:
    """`log |gamma(x)|`; infinite at 0 and the negative integers."""
    wide = cast(x, dt.float64)
    # gamma(x) gamma(1 - x) = pi / sin(pi x).
    below = wide < 0.0
    result = _log_gamma(below.where(1.0 - wide, wide))
    turn = sin((wide - nearest(wide)) * math.pi).absolute()
    result = below.where(log(math.pi / turn) - result, result)
    infinite = wide.absolute().equals(float("inf"))
    return cast(infinite.where(float("inf"), result), x.dtype)


def _log_gamma(x: Value) -> Value:
    """For `x >= 0`: steps of 1 lead from `x` to `2 + z` with z in [-1/2, 1/2], or `x` is large."""
    near, product = x, x.like(1.0)
    for _ in range(int(_FAR) - 2):
        step = near > 2.5
        near = step.where(near - 1.0, near)
        product = step.where(product * near, product)
    low = near < 0.5
    up = near < 1.5
    steps = low.where(near * (near + 1.0), up.where(near, product))
    z = low.where(near, up.where(near - 1.0, near - 2.0))
    far = x > _FAR
    logarithm = log(far.where(x, steps))
    central = z * _even_and_odd(z) + up.where(-logarithm, logarithm)
    inverse = 1.0 / x
    series = horner(inverse * inverse, _STIRLING) * inverse + 0.5 * math.log(2 * math.pi)
    return far.where((x - 0.5) * (logarithm - 1.0) + (series - 0.5), central)


def _even_and_odd(z: Value) -> Value:
    """The long series in two halves side by side."""
    square = z * z
    return horner(square, _AROUND_TWO[1::2]).madd(z, horner(square, _AROUND_TWO[::2]))


def digamma(x: Value) -> Value:
    """The derivative of `log(gamma(x))`; NaN at the negative integers."""
    wide = cast(x, dt.float64)
    # psi(1 - x) - psi(x) = pi / tan(pi x).
    below = wide < 0.0
    at = below.where(1.0 - wide, wide)
    near = at < _FAR
    total = at.like(0.0)
    for step in range(0, int(_FAR), 2):
        # Two terms 1 / (x + step) in one division.
        first, second = at + float(step), at + float(step + 1)
        total = total + (first + second) / (first * second)
    far = near.where(at + float(int(_FAR)), at)
    inverse = 1.0 / far
    square = inverse * inverse
    series = horner(square, _SERIES).madd(square, -0.5 * inverse) + log(far)
    result = near.where(series - total, series)
    part = wide - nearest(wide)
    reflected = result - math.pi / tan(part * math.pi)
    result = below.where(part.equals(0).where(float("nan"), reflected), result)
    pole = -wide.like(float("inf")).copysign(wide)
    return cast(wide.equals(0).where(pole, result), x.dtype)
