"""The error function."""

from __future__ import annotations

from typing import Final

from treadle.codegen.math_exp import decay, exp
from treadle.codegen.polynomial import clamp, horner
from treadle.codegen.value import Value

# float32: (log(1 - erf(x)) + x) / x on [0, 3.95], a fit of the least error of erf.
_LOG_32: Final = (
    -0.12837916612625122,
    -0.6366193890571594,
    -0.10277783870697021,
    0.019153092056512833,
    0.00016034924192354083,
    -0.0016669835895299911,
    0.0006328141316771507,
    -0.0001176352016045712,
    9.255613804270979e-06,
)
# float64: erf(x)/x - 1 in powers of x^2 on [0, 1], and exp(x^2) erfc(x) in powers of
# (x - 3) / (x + 3) on [1, 6]: Chebyshev fits, absolute errors 1e-19 and 5e-18.
_SMALL_64: Final = (
    0.1283791670955126,
    -0.3761263890318375,
    0.11283791670954879,
    -0.026866170645076792,
    0.0052239776248180145,
    -0.000854832698083379,
    0.0001205533111164271,
    -1.4925595266831182e-05,
    1.6461000484121368e-06,
    -1.6350312701054695e-07,
    1.4659775274047436e-08,
    -1.1372848856791674e-09,
    5.957176147748911e-11,
)
_LARGE_64: Final = (
    0.17900115118138996,
    -0.3262335600430372,
    0.24560380171233487,
    -0.15011593650077898,
    0.07166583719747308,
    -0.024392499318915004,
    0.004269136356961225,
    0.0007077464666941425,
    -0.0005970624964924544,
    4.525434558991009e-05,
    6.406279226046039e-05,
    -1.2845780030775907e-05,
    -8.00978093907608e-06,
    2.0135111426447427e-06,
    1.2755818949624478e-06,
    3.381355142042904e-09,
)


def erf(x: Value) -> Value:
    """`2 / sqrt(pi)` times the integral of `exp(-t^2)` from 0 to `x`."""
    size = x.absolute()
    if x.dtype.bits == 32:
        # One path for all: beyond the bound the result is 1.
        size = clamp(size, 0.0, 4.0)
        return decay(horner(size, _LOG_32).madd(size, -size))[0].copysign(x)
    small, large = horner(x * x, _SMALL_64), _large_64(size)
    return (size > 1.0).where(large.copysign(x), small.madd(x, x))


def _large_64(size: Value) -> Value:
    size = clamp(size, 0.0, 6.0)
    scaled = horner((size - 3.0) / (size + 3.0), _LARGE_64)
    return 1.0 - exp(-(size * size)) * scaled
