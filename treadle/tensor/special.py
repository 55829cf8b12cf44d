"""`treadle.special`: special functions, under PyTorch's names."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from treadle.base import dtype as dt
from treadle.ops.bessel import BESSEL
from treadle.tensor import arithmetic as ar
from treadle.tensor import reduction as red
from treadle.tensor.arithmetic import erf, exp2, expm1, log1p, round
from treadle.tensor.arithmetic import sigmoid as expit
from treadle.tensor.creation import arange
from treadle.tensor.elementary import (
    digamma,
    erfc,
    erfinv,
    lgamma,
    logit,
    polygamma,
    sinc,
    xlogy,
)
from treadle.tensor.movement import unsqueeze
from treadle.tensor.promote import as_dtype, floating, result_type
from treadle.tensor.record import record
from treadle.tensor.reduction import logsumexp
from treadle.tensor.softmax_family import log_softmax, softmax

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

psi, gammaln = digamma, lgamma


def _bessel(input: Any, order: int, scaled: bool) -> Any:
    x = floating(input)
    return record(BESSEL, (x,), (order, scaled))


def i0(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind of order 0, element by element."""
    return _bessel(input, 0, False)


def i0e(input: Tensor) -> Tensor:
    """`exp(-|x|) i0(x)`, element by element."""
    return _bessel(input, 0, True)


def i1(input: Tensor) -> Tensor:
    """The modified Bessel function of the first kind of order 1, element by element."""
    return _bessel(input, 1, False)


def i1e(input: Tensor) -> Tensor:
    """`exp(-|x|) i1(x)`, element by element."""
    return _bessel(input, 1, True)


def entr(input: Tensor) -> Tensor:
    """`-x log(x)`, 0 at 0 and minus infinity below."""
    x = floating(input)
    plain = ar.neg(xlogy(x, x))
    return ar.where(ar.lt(x, 0), as_dtype(-math.inf, x._node.dtype), plain)


def ndtr(input: Tensor) -> Tensor:
    """The probability that a standard normal number is at most x."""
    return ar.mul(erfc(ar.mul(floating(input), -math.sqrt(0.5))), 0.5)


def xlog1py(input: Any, other: Any) -> Tensor:
    """`input * log1p(other)`, 0 where `input` is 0, NaN where `other` is."""
    dtype = result_type(input, other)
    dtype = dtype if dtype.kind == "f" else dt.float32
    x, y = as_dtype(input, dtype), as_dtype(other, dtype)
    nothing = ar.logical_and(ar.eq(x, 0), ar.logical_not(ar.isnan(y)))
    return ar.mul(x, ar.log1p(ar.where(nothing, as_dtype(0, dtype), y)))


def multigammaln(input: Tensor, p: int) -> Tensor:
    """The logarithm of the gamma function of `p` dimensions.

    `p (p - 1) / 4 log(pi) + sum_j=1..p lgamma(x - (j - 1) / 2)`

    Raises:
        ValueError: `p` is not positive.
    """
    if p < 1:
        raise ValueError(f"mvlgamma: p has to be greater than or equal to 1, got {p}")
    x: Any = floating(input)
    steps = ar.mul(as_dtype(arange(p), x._node.dtype), -0.5)
    total = red.sum(lgamma(ar.add(unsqueeze(x, -1), steps)), -1)
    return ar.add(total, p * (p - 1) / 4 * math.log(math.pi))


mvlgamma = multigammaln

__all__ = [
    "digamma", "entr", "erf", "erfc", "erfinv", "exp2", "expit", "expm1", "gammaln", "i0", "i0e",
    "i1", "i1e", "log1p", "log_softmax", "logit", "logsumexp", "multigammaln", "ndtr", "polygamma",
    "psi", "round", "sinc", "softmax", "xlog1py", "xlogy",
]  # fmt: skip
