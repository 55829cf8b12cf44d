"""The operators of loop nests on NumPy scalars: what the interpreter computes with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule

_np: Any = LazyModule("numpy")
_special: Any = LazyModule("scipy.special")


def carried_type(dtype: DType) -> DType:
    """The dtype in which values of a dtype are computed."""
    return dt.float32 if dtype.kind == "f" and dtype.itemsize == 2 else dtype


def convert(value: Any, dtype: DType) -> Any:
    """A value as a scalar of `dtype`: to bool by `!= 0`, float to integer towards zero."""
    wanted = dtype.numpy
    if dtype is dt.bool_:
        return _np.bool_(value != 0)
    if dtype.kind in "iu" and value.dtype.kind == "f":
        # What does not fit is unspecified; here it wraps.
        return _wrapped(int(value), wanted) if math.isfinite(value) else wanted.type(0)
    return _np.asarray(value).astype(wanted)[()]


def _float(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A function computed in float64 and rounded to the operand's dtype."""

    def apply(x: Any) -> Any:
        return x.dtype.type(function(_np.float64(x)))

    return apply


def _erf(x: Any) -> Any:
    return math.erf(x)


def _sigmoid(x: Any) -> Any:
    small = _np.exp(-abs(x))
    return (1.0 if x >= 0 else small) / (1.0 + small) if not math.isnan(x) else x


def _whole(name: str) -> Callable[[Any], Any]:
    """Rounding: integers are whole already."""

    def apply(x: Any) -> Any:
        return getattr(_np, name)(x) if x.dtype.kind == "f" else x

    return apply


def _predicate(name: str) -> Callable[[Any], Any]:
    def apply(x: Any) -> Any:
        return getattr(_np, name)(x) if x.dtype.kind == "f" else _np.bool_(name == "isfinite")

    return apply


def _divide(a: Any, b: Any) -> Any:
    return a / b if a.dtype.kind == "f" else _truncated(a, b)[0]


def _remainder(a: Any, b: Any) -> Any:
    return _np.fmod(a, b) if a.dtype.kind == "f" else _truncated(a, b)[1]


def _truncated(a: Any, b: Any) -> tuple[Any, Any]:
    """Division towards zero and its remainder; by zero both are 0."""
    if b == 0:
        return a.dtype.type(0), a.dtype.type(0)
    x, y = int(a), int(b)
    quotient = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
    return _wrapped(quotient, a.dtype), _wrapped(x - quotient * y, a.dtype)


def _floordiv(a: Any, b: Any) -> Any:
    if a.dtype.kind == "f":
        return _np.floor_divide(a, b)
    return _wrapped(int(a) // int(b), a.dtype) if b != 0 else a.dtype.type(0)


def _mod(a: Any, b: Any) -> Any:
    if a.dtype.kind == "f":
        return _np.mod(a, b)
    return _wrapped(int(a) % int(b), a.dtype) if b != 0 else a.dtype.type(0)


def _power(a: Any, b: Any) -> Any:
    if a.dtype.kind == "f":
        return a.dtype.type(_np.power(_np.float64(a), _np.float64(b)))
    if b < 0:
        base = int(a)
        return a.dtype.type({1: 1, -1: -1 if int(b) % 2 else 1}.get(base, 0))
    return _wrapped(pow(int(a), int(b), 1 << a.dtype.itemsize * 8), a.dtype)


def _wrapped(number: int, dtype: Any) -> Any:
    bits = dtype.itemsize * 8
    number %= 1 << bits
    if dtype.kind == "i" and number >> (bits - 1):
        number -= 1 << bits
    return dtype.type(number)


def _atan2(a: Any, b: Any) -> Any:
    return a.dtype.type(_np.arctan2(_np.float64(a), _np.float64(b)))


def _logaddexp(a: Any, b: Any) -> Any:
    return a.dtype.type(_np.logaddexp(_np.float64(a), _np.float64(b)))


def _shl(a: Any, b: Any) -> Any:
    bits = a.dtype.itemsize * 8
    return _wrapped(int(a) << int(b), a.dtype) if 0 <= b < bits else a.dtype.type(0)


def _shr(a: Any, b: Any) -> Any:
    bits = a.dtype.itemsize * 8
    return _wrapped(int(a) >> (int(b) if 0 <= b < bits else bits), a.dtype)


def _integers(function: Callable[[int, int], int]) -> Callable[[Any, Any], Any]:
    """Integer arithmetic that wraps; on bool the sum is `or` and the product `and`."""

    def apply(a: Any, b: Any) -> Any:
        return _wrapped(function(int(a), int(b)), a.dtype)

    return apply


def _arithmetic(
    integer: Callable[[int, int], int], floating: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Any]:
    wrap = _integers(integer)

    def apply(a: Any, b: Any) -> Any:
        if a.dtype.kind == "b":
            return _np.bool_(integer(int(a), int(b)) != 0)
        return floating(a, b) if a.dtype.kind == "f" else wrap(a, b)

    return apply


UNARY: Final[dict[str, Callable[[Any], Any]]] = {
    "neg": lambda x: -x if x.dtype.kind == "f" else _wrapped(-int(x), x.dtype),
    "abs": lambda x: abs(x) if x.dtype.kind == "f" else _wrapped(abs(int(x)), x.dtype),
    "not": lambda x: ~x,
    "sign": lambda x: _np.sign(x),
    "sqrt": _float(lambda x: _np.sqrt(x)),
    "rsqrt": _float(lambda x: 1.0 / _np.sqrt(x)),
    "reciprocal": _float(lambda x: 1.0 / x),
    "exp": _float(lambda x: _np.exp(x)),
    "exp2": _float(lambda x: _np.exp2(x)),
    "expm1": _float(lambda x: _np.expm1(x)),
    "log": _float(lambda x: _np.log(x)),
    "log2": _float(lambda x: _np.log2(x)),
    "log1p": _float(lambda x: _np.log1p(x)),
    "sin": _float(lambda x: _np.sin(x)),
    "cos": _float(lambda x: _np.cos(x)),
    "tan": _float(lambda x: _np.tan(x)),
    "tanh": _float(lambda x: _np.tanh(x)),
    "sigmoid": _float(_sigmoid),
    "erf": _float(_erf),
    "erfc": _float(lambda x: math.erfc(x)),
    "erfinv": _float(lambda x: _special.erfinv(x)),
    "lgamma": _float(lambda x: _special.gammaln(x)),
    "digamma": _float(lambda x: _special.digamma(x)),
    "floor": _whole("floor"),
    "ceil": _whole("ceil"),
    "round": _whole("rint"),
    "trunc": _whole("trunc"),
    "isnan": _predicate("isnan"),
    "isinf": _predicate("isinf"),
    "isfinite": _predicate("isfinite"),
}
BINARY: Final[dict[str, Callable[[Any, Any], Any]]] = {
    "add": _arithmetic(lambda a, b: a + b, lambda a, b: a + b),
    "sub": _arithmetic(lambda a, b: a - b, lambda a, b: a - b),
    "mul": _arithmetic(lambda a, b: a * b, lambda a, b: a * b),
    "div": _divide,
    "floordiv": _floordiv,
    "mod": _mod,
    "rem": _remainder,
    "pow": _power,
    "atan2": _atan2,
    "logaddexp": _logaddexp,
    "max": lambda a, b: _np.maximum(a, b),
    "min": lambda a, b: _np.minimum(a, b),
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": _shl,
    "shr": _shr,
    "lt": lambda a, b: a < b,
    "le": lambda a, b: a <= b,
    "gt": lambda a, b: a > b,
    "ge": lambda a, b: a >= b,
    "eq": lambda a, b: a == b,
    "ne": lambda a, b: a != b,
}
