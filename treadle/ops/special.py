"""Special functions: the error function's relatives, and the gamma function's."""

from __future__ import annotations

import math
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.lazy import LazyModule
from treadle.ir.loop import Expr, Unary
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops.table import (
    Arg,
    Index,
    Op,
    Read,
    Sample,
    make,
    no_lowering,
    per_input,
    require_float,
)

np = LazyModule("numpy")
_special = LazyModule("scipy.special")


def _function(name: str, doc: str, reference: str, gradient: Any, low: float, high: float) -> Op:
    def lower(node: Node, index: Index, read: Read) -> Expr:
        return Unary(name, read(0, index))

    def ref(x: Any) -> Any:
        return getattr(_special, reference)(x.astype(np.float64)).astype(x.dtype)

    return Op(
        name=name, kind="pointwise", attr_names=(),
        infer=lambda x: (x.shape, require_float(name, x)), vjp=per_input(gradient), lower=lower,
        ref=ref, doc=doc, cost=60,
        samples=tuple(Sample((Arg((3, 5), d, low, high),)) for d in (dt.float32, dt.float64)),
    )  # fmt: skip


def _gaussian(x: Node, factor: float) -> Node:
    return pw.mul(pw.like(factor, x), pw.exp(pw.neg(pw.mul(x, x))))


ERFC: Final = _function(
    "erfc", "1 - erf(x), exact where erf is nearly 1", "erfc",
    lambda n, g: pw.neg(pw.mul(g, _gaussian(n.inputs[0], 2 / math.sqrt(math.pi)))), -2.0, 2.0,
)  # fmt: skip
ERFINV: Final = _function(
    "erfinv", "the inverse of the error function", "erfinv",
    lambda n, g: pw.mul(g, pw.mul(pw.like(math.sqrt(math.pi) / 2, n), pw.exp(pw.mul(n, n)))),
    -0.9, 0.9,
)  # fmt: skip
LGAMMA: Final = _function(
    "lgamma", "logarithm of the absolute value of the gamma function", "gammaln",
    lambda n, g: pw.mul(g, make(DIGAMMA, n.inputs)), 0.3, 4.0,
)  # fmt: skip
DIGAMMA: Final[Op] = _function(
    "digamma", "the derivative of the logarithm of the gamma function", "digamma",
    lambda n, g: pw.mul(g, make(POLYGAMMA, n.inputs, (1,))), 0.3, 4.0,
)  # fmt: skip


# --- further derivatives, on the host -----------------------------------------------------------

_BERNOULLI: Final = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6)
_FAR: Final = 20.0
"""From here on the asymptotic series holds."""


def _polygamma(x: Any, n: int) -> Any:
    """The n-th derivative of digamma, n >= 1: shifted up, then the asymptotic series.

    Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 6.4.6 and 6.4.11; below 1/2
    of the first derivative the reflection 6.4.7.
    """
    at = np.asarray(x, np.float64)
    below = (at < 0.5) if n == 1 else np.zeros(at.shape, bool)
    up = np.where(below, 1 - at, at)
    sign, factorial = (-1) ** (n + 1), math.factorial(n)
    total = np.zeros(at.shape)
    while (near := up < _FAR).any():
        total += np.where(near, sign * factorial / up ** (n + 1), 0)
        up = np.where(near, up + 1, up)
    series = math.factorial(n - 1) / up**n + factorial / (2 * up ** (n + 1))
    for k, b in enumerate(_BERNOULLI, 1):
        series += b * math.factorial(2 * k + n - 1) / (math.factorial(2 * k) * up ** (2 * k + n))
    total += sign * series
    if n == 1:
        total = np.where(below, -total + (np.pi / np.sin(np.pi * at)) ** 2, total)
    poles = (at <= 0) & (at == np.floor(at))
    return np.where(poles, np.inf, total).astype(x.dtype)


POLYGAMMA: Final[Op] = Op(
    name="polygamma", kind="host", attr_names=("n",),
    infer=lambda x, n: (x.shape, require_float("polygamma", x)),
    vjp=per_input(
        lambda n, g: pw.mul(g, make(POLYGAMMA, n.inputs, (n.attrs[0] + 1,)))
    ),
    lower=no_lowering, ref=_polygamma,
    samples=tuple(
        Sample((Arg((3, 5), d, 0.3, 4.0),), (n,))
        for d in (dt.float32, dt.float64) for n in (1, 2)
    ),
    doc="a further derivative of the logarithm of the gamma function: the n-th of digamma",
)  # fmt: skip
