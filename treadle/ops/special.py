"""Special functions that have no kernel of their own: the host computes them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.lazy import LazyModule
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops.table import Arg, Op, Sample, make, no_lowering, per_input, require_float

np = LazyModule("numpy")


def _each(function: Callable[[float], float]) -> Callable[[Any], Any]:
    """A function of one number on every element."""

    def apply(x: Any) -> Any:
        flat = np.asarray(x, np.float64).ravel()
        out = np.fromiter((function(v) for v in flat.tolist()), np.float64, flat.size)
        return out.reshape(x.shape).astype(x.dtype)

    return apply


def _lgamma(x: float) -> float:
    if math.isinf(x):
        return math.inf
    return math.inf if x <= 0 and x == math.floor(x) else math.lgamma(x)


def _polygamma(n: int, x: float) -> float:
    """The n-th derivative of digamma: reflected, shifted up to 12, then the asymptotic series.

    Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 6.3.5-6.3.18 and 6.4.
    """
    if n == 0:
        return _digamma(x)
    if x <= 0 and x == math.floor(x):
        return math.inf
    if n == 1 and x < 0.5:
        return -_polygamma(1, 1 - x) + (math.pi / math.sin(math.pi * x)) ** 2
    total, sign, factorial = 0.0, (-1) ** (n + 1), math.factorial(n)
    while x < 20.0:
        total += sign * factorial / x ** (n + 1)
        x += 1
    series = math.factorial(n - 1) / x**n + factorial / (2 * x ** (n + 1))
    for k, bernoulli in enumerate(_BERNOULLI, 1):
        series += (
            bernoulli * math.factorial(2 * k + n - 1) / (math.factorial(2 * k) * x ** (2 * k + n))
        )
    return total + sign * series


_BERNOULLI: Final = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)


def _digamma(x: float) -> float:
    if math.isinf(x) or math.isnan(x):
        return x if x > 0 else math.nan
    if x == 0:
        return math.copysign(math.inf, -x)
    if x <= 0:
        if x == math.floor(x):
            return math.nan
        return _digamma(1 - x) - math.pi / math.tan(math.pi * x)
    total = 0.0
    while x < 12.0:
        total -= 1 / x
        x += 1
    series = math.log(x) - 1 / (2 * x)
    for k, bernoulli in enumerate(_BERNOULLI, 1):
        series -= bernoulli / (2 * k * x ** (2 * k))
    return total + series


def _erfinv(y: float) -> float:
    """Giles, "Approximating the erfinv function" (GPU Computing Gems, 2011), then Halley."""
    if not -1 <= y <= 1:
        return math.nan
    if abs(y) == 1:
        return math.copysign(math.inf, y)
    w = -math.log((1 - y) * (1 + y))
    if w < 5:
        w -= 2.5
        terms = _GILES_CENTRE
    else:
        w = math.sqrt(w) - 3
        terms = _GILES_TAIL
    p = terms[0]
    for c in terms[1:]:
        p = c + p * w
    x = p * y
    for _ in range(3):
        # Where erf is flat the complement keeps the digits.
        error = math.erf(x) - y
        if abs(y) >= 0.5:
            error = math.copysign(1 - abs(y), y) - math.copysign(math.erfc(abs(x)), y)
        step = error / (2 / math.sqrt(math.pi) * math.exp(-x * x))
        x -= step / (1 + x * step)
    return x


_GILES_CENTRE: Final = (
    2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
    -0.00125372503, -0.00417768164, 0.246640727, 1.50140941,
)  # fmt: skip
_GILES_TAIL: Final = (
    -0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
    -0.0076224613, 0.00943887047, 1.00167406, 2.83297682,
)  # fmt: skip


def _host(
    name: str,
    doc: str,
    ref: Callable[..., Any],
    gradient: Callable[[Node, Node], Node],
    low: float,
    high: float,
    attr_names: tuple[str, ...] = (),
    attrs: tuple[Any, ...] = (),
) -> Op:
    return Op(
        name=name, kind="host", attr_names=attr_names,
        infer=lambda x, *a: (x.shape, require_float(name, x)), vjp=per_input(gradient),
        lower=no_lowering, ref=ref,
        samples=tuple(
            Sample((Arg((3, 5), d, low, high),), attrs) for d in (dt.float32, dt.float64)
        ),
        doc=doc,
    )  # fmt: skip


def _gaussian(x: Node, factor: float) -> Node:
    return pw.mul(pw.like(factor, x), pw.exp(pw.neg(pw.mul(x, x))))


ERFC: Final = _host(
    "erfc", "1 - erf(x), exact where erf is nearly 1", _each(math.erfc),
    lambda n, g: pw.neg(pw.mul(g, _gaussian(n.inputs[0], 2 / math.sqrt(math.pi)))), -2.0, 2.0,
)  # fmt: skip
ERFINV: Final = _host(
    "erfinv", "the inverse of the error function", _each(_erfinv),
    lambda n, g: pw.mul(g, pw.mul(pw.like(math.sqrt(math.pi) / 2, n), pw.exp(pw.mul(n, n)))),
    -0.9, 0.9,
)  # fmt: skip
LGAMMA: Final = _host(
    "lgamma", "logarithm of the absolute value of the gamma function", _each(_lgamma),
    lambda n, g: pw.mul(g, make(POLYGAMMA, n.inputs, (0,))), 0.3, 4.0,
)  # fmt: skip


def _polygamma_ref(x: Any, n: int) -> Any:
    return _each(lambda v: _polygamma(n, v))(x)


POLYGAMMA: Final[Op] = _host(
    "polygamma", "the n-th derivative of the logarithmic derivative of the gamma function",
    _polygamma_ref, lambda n, g: pw.mul(g, make(POLYGAMMA, n.inputs, (n.attrs[0] + 1,))),
    0.3, 4.0, ("n",), (0,),
)  # fmt: skip
