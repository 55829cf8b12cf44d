"""The complement of the error function, and its inverse; in float64 for every dtype."""

from __future__ import annotations

import math
from typing import Final

from treadle.base import dtype as dt
from treadle.codegen.convert import cast
from treadle.codegen.math_error import erf
from treadle.codegen.math_exp import exp
from treadle.codegen.math_log import log
from treadle.codegen.polynomial import clamp, horner, two_product
from treadle.codegen.value import Value

# Rational approximations of exp(x^2) erfc(x) on [0.46875, 4], and beyond in powers of 1 / x^2:
# W. J. Cody, Mathematics of Computation 23 (1969).
_MIDDLE: Final = (
    (1.23033935479799725e3, 2.05107837782607147e3, 1.71204761263407058e3, 8.81952221241769090e2,
     2.98635138197400131e2, 6.61191906371416295e1, 8.88314979438837594e0, 5.64188496988670089e-1,
     2.15311535474403846e-8),
    (1.23033935480374942e3, 3.43936767414372164e3, 4.36261909014324716e3, 3.29079923573345963e3,
     1.62138957456669019e3, 5.37181101862009858e2, 1.17693950891312499e2, 1.57449261107098347e1,
     1.0),
)  # fmt: skip
_FAR: Final = (
    (6.58749161529837803e-4, 1.60837851487422766e-2, 1.25781726111229246e-1,
     3.60344899949804439e-1, 3.05326634961232344e-1, 1.63153871373020978e-2),
    (2.33520497626869185e-3, 6.05183413124413191e-2, 5.27905102951428412e-1,
     1.87295284992346725e0, 2.56852019228982242e0, 1.0),
)  # fmt: skip
# The normal distribution's quantiles: M. J. Wichura, Algorithm AS 241, Applied Statistics 37
# (1988), numerators and denominators.
_CENTRE: Final = (
    (3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3,
     1.3731693765509461125e4, 4.5921953931549871457e4, 6.7265770927008700853e4,
     3.3430575583588128105e4, 2.5090809287301226727e3),
    (1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
     2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4,
     5.2264952788528545610e3),
)  # fmt: skip
_SIDE: Final = (
    (1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0,
     3.64784832476320460504e0, 1.27045825245236838258e0, 2.41780725177450611770e-1,
     2.27238449892691845833e-2, 7.74545014278341407640e-4),
    (1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
     1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4,
     1.05075007164441684324e-9),
)  # fmt: skip
_TAIL: Final = (
    (6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0,
     2.96560571828504891230e-1, 2.65321895265761230930e-2, 1.24266094738807843860e-3,
     2.71155556874348757815e-5, 2.01033439929228813265e-7),
    (1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
     7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7,
     2.04426310338993978564e-15),
)  # fmt: skip


def _ratio(x: Value, parts: tuple[tuple[float, ...], tuple[float, ...]]) -> Value:
    return horner(x, parts[0]) / horner(x, parts[1])


def erfc(x: Value) -> Value:
    """`1 - erf(x)`, to its own last digits where it is small."""
    wide = cast(x, dt.float64)
    size = clamp(wide.absolute(), 0.0, 30.0)
    square, lost = two_product(size, size)
    gauss = exp(-square)
    gauss = gauss - gauss * lost
    inverse = 1.0 / (size > 4.0).where(size, 4.0)
    beyond = inverse * inverse
    tail = (1 / math.sqrt(math.pi) - beyond * _ratio(beyond, _FAR)) * inverse
    scaled = (size > 4.0).where(tail, _ratio(clamp(size, 0.0, 4.0), _MIDDLE))
    complement = gauss * scaled
    outer = (wide < 0.0).where(2.0 - complement, complement)
    return cast((size > 0.46875).where(outer, 1.0 - erf(wide)), x.dtype)


def erfinv(x: Value) -> Value:
    """The number whose error function is `x`; infinite at 1 and -1, NaN beyond."""
    wide = cast(x, dt.float64)
    half = wide * 0.5
    centre = half * _ratio(0.180625 - half * half, _CENTRE)
    tail = (1.0 - wide.absolute()) * 0.5
    distance = (-log(tail)).unary("sqrt")
    side = _ratio(distance - 1.6, _SIDE)
    outer = (distance > 5.0).where(_ratio(distance - 5.0, _TAIL), side).copysign(wide)
    quantile = (half.absolute() > 0.425).where(outer, centre)
    result = quantile * math.sqrt(0.5)
    ends = wide.like(float("inf")).copysign(wide)
    return cast(wide.absolute().equals(1.0).where(ends, result), x.dtype)
