"""Elementary and special functions made of the primitive ones, with care for their accuracy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from treadle.base import dtype as dt
from treadle.base.errors import DTypeError
from treadle.ops import special as ops
from treadle.ops.integers import GCD
from treadle.ops.table import Op
from treadle.tensor import arithmetic as ar
from treadle.tensor import movement as mv
from treadle.tensor import reduction as red
from treadle.tensor.promote import as_dtype, floating, result_type
from treadle.tensor.record import Lazy, record

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

Number = float | int | bool


def _on_floats(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose integer input is taken in the default floating-point dtype."""

    def wrapped(input: Tensor) -> Tensor:
        return function(floating(input))

    wrapped.__name__ = function.__name__
    wrapped.__doc__ = function.__doc__
    return wrapped


# --- hyperbolic and inverse functions ----------------------------------------------------------


@_on_floats
def sinh(input: Any) -> Any:
    """Hyperbolic sine, element by element."""
    size = ar.abs(input)
    e = ar.expm1(ar.clamp(size, max=1))
    # exp(x / 2) twice instead of exp(x): it overflows where the result does.
    t = ar.exp(ar.mul(size, 0.5))
    large = ar.sub(ar.mul(ar.mul(t, 0.5), t), ar.div(ar.div(0.5, t), t))
    small = ar.mul(ar.add(e, ar.div(e, ar.add(e, 1))), 0.5)
    return ar.mul(ar.where(ar.lt(size, 1), small, large), ar.sign(input))


@_on_floats
def cosh(input: Any) -> Any:
    """Hyperbolic cosine, element by element."""
    t = ar.exp(ar.mul(ar.abs(input), 0.5))
    return ar.add(ar.mul(ar.mul(t, 0.5), t), ar.div(ar.div(0.5, t), t))


def _inverse_of_growth(size: Any, near: Callable[[Any], Any]) -> Any:
    """`near` up to where the square is safe and 1 no longer counts, `log(2 x)` beyond."""
    edge = 1e8 if size._node.dtype is dt.float64 else 1e4
    if size._node.dtype is dt.float16:
        edge = 128.0
    far = ar.add(ar.log(ar.clamp(size, min=1)), math.log(2))
    return ar.where(ar.lt(size, edge), near(ar.clamp(size, max=edge)), far)


@_on_floats
def asinh(input: Any) -> Any:
    """Inverse hyperbolic sine, element by element."""

    def near(x: Any) -> Any:
        square = ar.mul(x, x)
        root = ar.sqrt(ar.add(square, 1))
        return ar.log1p(ar.add(x, ar.div(square, ar.add(root, 1))))

    return ar.mul(_inverse_of_growth(ar.abs(input), near), ar.sign(input))


@_on_floats
def acosh(input: Any) -> Any:
    """Inverse hyperbolic cosine, element by element; NaN below 1."""

    def near(x: Any) -> Any:
        t = ar.sub(x, 1)
        return ar.log1p(ar.add(t, ar.sqrt(ar.mul(t, ar.add(t, 2)))))

    return _inverse_of_growth(input, near)


@_on_floats
def atanh(input: Any) -> Any:
    """Inverse hyperbolic tangent, element by element; NaN outside of [-1, 1]."""
    return ar.mul(ar.sub(ar.log1p(input), ar.log1p(ar.neg(input))), 0.5)


@_on_floats
def atan(input: Any) -> Any:
    """Inverse tangent in radians, element by element."""
    return ar.atan2(input, as_dtype(1, input._node.dtype))


def _cathetus(x: Any) -> Any:
    return ar.sqrt(ar.mul(ar.sub(1, x), ar.add(x, 1)))


@_on_floats
def asin(input: Any) -> Any:
    """Inverse sine in radians, element by element; NaN outside of [-1, 1]."""
    return ar.atan2(input, _cathetus(input))


@_on_floats
def acos(input: Any) -> Any:
    """Inverse cosine in radians, element by element; NaN outside of [-1, 1]."""
    return ar.atan2(_cathetus(input), input)


arcsinh, arccosh, arctanh, arcsin, arccos, arctan = asinh, acosh, atanh, asin, acos, atan
arctan2 = ar.atan2


# --- of two values -----------------------------------------------------------------------------


def hypot(input: Tensor, other: Tensor) -> Tensor:
    """`sqrt(input^2 + other^2)` without overflow on the way."""
    dtype = result_type(input, other)
    a, b = as_dtype(input, dtype), as_dtype(other, dtype)
    scale = ar.maximum(ar.abs(a), ar.abs(b)).detach()
    odd = ar.logical_or(ar.eq(scale, 0), ar.logical_not(ar.isfinite(scale)))
    one = ar.where(odd, as_dtype(1, dtype), scale)
    p, q = ar.div(a, one), ar.div(b, one)
    root = red.root(ar.add(ar.mul(p, p), ar.mul(q, q)))
    return ar.where(ar.isfinite(scale), ar.mul(root, one), scale)


def _logaddexp(a: Any, b: Any, grow: Callable[[Any], Any]) -> Any:
    # Two equal infinities have no difference.
    same = ar.logical_and(ar.eq(a, b), ar.isinf(a))
    gap = ar.where(same, as_dtype(0, a._node.dtype), ar.sub(a, b))
    grown = ar.add(ar.maximum(a, b), grow(ar.neg(ar.abs(gap))))
    return ar.where(same, a, grown)


def logaddexp(input: Tensor, other: Tensor) -> Tensor:
    """`log(exp(input) + exp(other))` without overflow."""
    return _logaddexp(input, other, lambda x: ar.log1p(ar.exp(x)))


def logaddexp2(input: Tensor, other: Tensor) -> Tensor:
    """`log2(2^input + 2^other)` without overflow."""
    return _logaddexp(input, other, lambda x: ar.mul(ar.log1p(ar.exp2(x)), 1 / math.log(2)))


def xlogy(input: Any, other: Any) -> Tensor:
    """`input * log(other)`, 0 where `input` is 0, NaN where `other` is."""
    dtype = result_type(input, other)
    if dtype.kind != "f":
        dtype = dt.float32
    x, y = as_dtype(input, dtype), as_dtype(other, dtype)
    nothing = ar.logical_and(ar.eq(x, 0), ar.logical_not(ar.isnan(y)))
    safe = ar.where(nothing, as_dtype(1, dtype), y)
    return ar.mul(x, ar.log(safe))


def copysign(input: Any, other: Any) -> Tensor:
    """The size of `input` with the sign of `other`, that of -0 included."""
    dtype = result_type(input, other)
    if dtype.kind != "f":
        dtype = dt.float32
    size = ar.abs(as_dtype(input, dtype))
    return ar.where(signbit(as_dtype(other, dtype)), ar.neg(size), size)


def heaviside(input: Tensor, values: Tensor) -> Tensor:
    """0 below 0, 1 above, `values` at 0."""
    step: Any = as_dtype(ar.gt(input, 0), input._node.dtype)
    return ar.where(ar.eq(input, 0), values, step)


def float_power(input: Any, exponent: Any) -> Tensor:
    """`input` to the power `exponent` in float64."""
    return ar.pow(as_dtype(input, dt.float64), _double(exponent))


def _double(value: Any) -> Any:
    return as_dtype(value, dt.float64) if isinstance(value, Lazy) else float(value)


def ldexp(input: Tensor, other: Tensor) -> Tensor:
    """`input * 2^other`."""
    return ar.mul(input, ar.exp2(floating(other)))


def rsub(input: Tensor, other: Any, *, alpha: Number = 1) -> Tensor:
    """`other - alpha * input`."""
    return ar.sub(other, input, alpha=alpha)


def fmax(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two; where one is NaN the other."""
    larger = ar.where(ar.isnan(input), other, ar.maximum(input, other))
    return ar.where(ar.isnan(other), input, larger)


def fmin(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two; where one is NaN the other."""
    smaller = ar.where(ar.isnan(input), other, ar.minimum(input, other))
    return ar.where(ar.isnan(other), input, smaller)


def gcd(input: Tensor, other: Tensor) -> Tensor:
    """The greatest common divisor of integers, 0 of two zeros."""
    dtype = result_type(input, other)
    return record(GCD, (as_dtype(input, dtype), as_dtype(other, dtype)))


def lcm(input: Tensor, other: Tensor) -> Tensor:
    """The least common multiple of integers, 0 where one is 0."""
    common: Any = gcd(input, other)
    parts = ar.floor_divide(input, ar.clamp(common, min=1))
    return ar.abs(ar.mul(parts, other))


# --- of one value ------------------------------------------------------------------------------


def frac(input: Tensor) -> Tensor:
    """What is behind the point, with the sign of the whole."""
    return ar.sub(input, ar.trunc(input))


def signbit(input: Tensor) -> Tensor:
    """Whether the sign is negative, that of -0 included."""
    below = ar.lt(input, 0)
    if input._node.dtype.kind != "f":
        return below
    return ar.logical_or(below, ar.logical_and(ar.eq(input, 0), ar.lt(ar.reciprocal(input), 0)))


def isposinf(input: Tensor) -> Tensor:
    """Whether an element is positive infinity."""
    return ar.logical_and(ar.isinf(input), ar.gt(input, 0))


def isneginf(input: Tensor) -> Tensor:
    """Whether an element is negative infinity."""
    return ar.logical_and(ar.isinf(input), ar.lt(input, 0))


def isreal(input: Tensor) -> Tensor:
    """True everywhere: treadle has no complex numbers."""
    return ar.eq(as_dtype(input, dt.bool_), as_dtype(input, dt.bool_))


def deg2rad(input: Tensor) -> Tensor:
    """Degrees as radians."""
    return ar.mul(input, math.pi / 180)


def rad2deg(input: Tensor) -> Tensor:
    """Radians as degrees."""
    return ar.mul(input, 180 / math.pi)


@_on_floats
def sinc(input: Any) -> Any:
    """`sin(pi x) / (pi x)`, 1 at 0."""
    zero = ar.eq(input, 0)
    x = ar.mul(ar.where(zero, as_dtype(1, input._node.dtype), input), math.pi)
    return ar.where(zero, as_dtype(1, input._node.dtype), ar.div(ar.sin(x), x))


def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """`log(p / (1 - p))`, of `p` limited to `[eps, 1 - eps]` where `eps` is given."""
    p = floating(input) if eps is None else ar.clamp(floating(input), eps, 1 - eps)
    return ar.sub(ar.log(p), ar.log1p(ar.neg(p)))


def positive(input: Tensor) -> Tensor:
    """The tensor itself; raises `DTypeError` for bool."""
    if input._node.dtype is dt.bool_:
        raise DTypeError("The `+` operator, on a bool tensor is not supported.")
    return input


def _special(op: Op) -> Callable[[Any], Any]:
    def function(input: Tensor) -> Tensor:
        return record(op, (floating(input),))

    function.__name__ = op.name
    function.__doc__ = f"{op.doc[0].upper()}{op.doc[1:]}, element by element."
    return function


erfc, erfinv, lgamma, digamma = map(_special, (ops.ERFC, ops.ERFINV, ops.LGAMMA, ops.DIGAMMA))


def polygamma(n: int, input: Tensor) -> Tensor:
    """The `n`-th derivative of `digamma`, element by element."""
    if n < 0:
        raise ValueError(f"polygamma(n, x) does not support negative n, got {n}")
    if n == 0:
        return record(ops.DIGAMMA, (floating(input),))
    return record(ops.POLYGAMMA, (floating(input),), (n,))


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0, compute_mode: str | None = None) -> Tensor:
    """The p-norm of the difference of every row of `(.., m, k)` to every row of `(.., n, k)`.

    Args:
        compute_mode: accepted; differences are always taken one by one.

    Returns:
        `(.., m, n)`.
    """
    gap = ar.sub(mv.unsqueeze(x1, -2), mv.unsqueeze(x2, -3))
    return red.norm(gap, p, -1)


def dist(input: Tensor, other: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm of the difference."""
    return red.norm(ar.sub(input, other), p)


def clamp_min(input: Tensor, min: Any) -> Tensor:
    """`input`, but at least `min`."""
    return ar.clamp(input, min)


def clamp_max(input: Tensor, max: Any) -> Tensor:
    """`input`, but at most `max`."""
    return ar.clamp(input, None, max)


def cross(input: Tensor, other: Tensor, dim: int = -1) -> Tensor:
    """The cross product of vectors of three along `dim`."""
    a = [mv.narrow(input, dim, i, 1) for i in range(3)]
    b = [mv.narrow(other, dim, i, 1) for i in range(3)]
    parts = [ar.sub(ar.mul(a[i], b[j]), ar.mul(a[j], b[i])) for i, j in ((1, 2), (2, 0), (0, 1))]
    return mv.cat(parts, dim)


# --- other names -------------------------------------------------------------------------------

absolute, negative, sgn, fix, clip = ar.abs, ar.neg, ar.sign, ar.trunc, ar.clamp
divide = true_divide = ar.div
multiply, subtract = ar.mul, ar.sub
greater, greater_equal, less, less_equal, not_equal = ar.gt, ar.ge, ar.lt, ar.le, ar.ne
expit = ar.sigmoid

OTHER_NAMES: Final = (
    "absolute negative sgn fix clip divide true_divide multiply subtract greater greater_equal "
    "less less_equal not_equal arcsinh arccosh arctanh arcsin arccos arctan arctan2"
)
