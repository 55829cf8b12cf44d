"""The operators of loop nests on values: the meaning that `ir/loop.py` gives each name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

from treadle.base import dtype as dt
from treadle.base.errors import CompileError
from treadle.codegen import vector_math
from treadle.codegen.convert import cast
from treadle.codegen.helpers import float_remainder
from treadle.codegen.rounding import ceil, floor, nearest, truncate
from treadle.codegen.value import Value


def unary(op: str, x: Value) -> Value:
    """Applies a unary operator; raises `CompileError` where the type has no such operator."""
    if x.dtype.kind == "f":
        function = _FLOAT_UNARY.get(op)
    else:
        function = _INTEGER_UNARY.get(op)
    if function is None:
        raise CompileError(f"no operator {op!r} on {x.dtype.name}")
    return function(x)


def binary(op: str, a: Value, b: Value) -> Value:
    """Applies a binary operator; raises `CompileError` where the type has no such operator."""
    kind = a.dtype.kind
    function = _COMMON.get(op)
    if function is None:
        table = _FLOAT_BINARY if kind == "f" else _BOOL_BINARY if kind == "b" else _INTEGER_BINARY
        function = table.get(op)
    if function is None:
        raise CompileError(f"no operator {op!r} on {a.dtype.name}")
    return function(a, b)


def maximum(a: Value, b: Value) -> Value:
    """The greater; NaN if either is NaN."""
    return _extreme("gt", a, b)


def minimum(a: Value, b: Value) -> Value:
    """The less; NaN if either is NaN."""
    return _extreme("lt", a, b)


def _extreme(op: str, a: Value, b: Value) -> Value:
    if a.dtype.kind != "f":
        return a.compare(op, b).where(a, b)
    if _never_nan(b):
        a, b = b, a
    # `a > b ? a : b` gives b where either is NaN, and is the machine's own maximum.
    chosen = a.compare(op, b).where(a, b)
    return chosen if _never_nan(a) else a.is_nan().where(a, chosen)


def _never_nan(value: Value) -> bool:
    """Whether a constant number."""
    return value.known is not None and value.known == value.known


def _sign(x: Value) -> Value:
    if x.dtype.kind == "u":
        return (x > 0).where(x.like(1), x.like(0))
    below = (x < 0).where(x.like(-1), x.like(0))
    positive = (x > 0).where(x.like(1), below)
    return x.is_nan().where(x, positive) if x.dtype.kind == "f" else positive


def _is_infinite(x: Value) -> Value:
    return x.absolute().equals(float("inf"))


def _is_finite(x: Value) -> Value:
    return x.absolute() < float("inf")


def _never(x: Value) -> Value:
    return x.differs(x)


def _always(x: Value) -> Value:
    return x.equals(x)


def _float_mod(a: Value, b: Value) -> Value:
    """Python's `%`: the sign of the divisor."""
    remainder = float_remainder(a, b)
    wrong = ((remainder < 0) ^ (b < 0)) & remainder.differs(0)
    zero = remainder.equals(0)
    return wrong.where(remainder + b, zero.where(remainder.copysign(b), remainder))


def _float_floordiv(a: Value, b: Value) -> Value:
    """Python's `//`; by zero it divides as `/` does."""
    remainder = float_remainder(a, b)
    quotient = nearest((a - remainder) / b)
    wrong = ((remainder < 0) ^ (b < 0)) & remainder.differs(0)
    quotient = wrong.where(quotient - 1.0, quotient)
    divided = a / b
    quotient = quotient.equals(0).where(quotient.copysign(divided), quotient)
    return b.equals(0).where(divided, quotient)


def _log_sum(a: Value, b: Value) -> Value:
    """`log(exp(a) + exp(b))`, also of infinities, and without overflow."""
    far = -(a - b).absolute()
    small = vector_math.UNARY["log1p"](vector_math.UNARY["exp"](far))
    # Equal infinities have no difference.
    return a.equals(b).where(a + math.log(2), maximum(a, b) + small)


def _quotient(a: Value, b: Value) -> Value:
    """Division towards zero; by zero it gives 0, and the least integer by -1 wraps."""
    known = b.known
    e = a.emit.builder
    if a.dtype.kind == "u":
        divide = e.udiv
    else:
        divide = e.sdiv
    if known == 0:
        return a.like(0)
    if known == -1:
        return -a
    a, b = a.meet(b)
    if known is not None:
        return Value(a.emit, divide(a.raw, b.raw), a.dtype)
    if a.lanes > 1 and a.dtype.bits <= 32:
        return _small_quotient(a, b)
    zero = b.equals(0)
    if a.dtype.kind == "u":
        safe = zero.where(b.like(1), b)
        return zero.where(a.like(0), Value(a.emit, divide(a.raw, safe.raw), a.dtype))
    # The processor traps on zero, and on the least integer by -1.
    negated = b.equals(-1)
    safe = (zero | negated).where(b.like(1), b)
    plain = Value(a.emit, divide(a.raw, safe.raw), a.dtype)
    return zero.where(a.like(0), negated.where(-a, plain))


def _small_quotient(a: Value, b: Value) -> Value:
    """In float64, which no processor lacks in lanes; cut to a whole number it is exact."""
    zero = b.equals(0)
    divided = cast(a, dt.float64) / cast(zero.where(b.like(1), b), dt.float64)
    if a.dtype is dt.uint32:
        # Vectors convert to int32 only, so the range is moved there and back.
        moved = cast(truncate(divided) - 2.0**31, dt.int32)
        return zero.where(a.like(0), cast(moved, dt.uint32) ^ 0x80000000)
    quotient = cast(cast(divided, dt.int32), a.dtype)
    if a.dtype is dt.int32:
        # The one quotient that does not fit is that of the least integer.
        quotient = b.equals(-1).where(-a, quotient)
    return zero.where(a.like(0), quotient)


def _power_of_two(b: Value) -> int | None:
    known = b.known
    return known if isinstance(known, int) and known > 0 and known & (known - 1) == 0 else None


def _floordiv(a: Value, b: Value) -> Value:
    power = _power_of_two(b)
    if power is not None:
        return a >> (power.bit_length() - 1)
    quotient = _quotient(a, b)
    if a.dtype.kind == "u":
        return quotient
    remainder = a - quotient * b
    wrong = ((remainder < 0) ^ (b < 0)) & remainder.differs(0) & b.differs(0)
    return wrong.where(quotient - 1, quotient)


def _remainder(a: Value, b: Value) -> Value:
    result = a - _quotient(a, b) * b
    return b.equals(0).where(a.like(0), result) if not b.known else result


def _mod(a: Value, b: Value) -> Value:
    power = _power_of_two(b)
    if power is not None:
        return a & (power - 1)
    remainder = _remainder(a, b)
    if a.dtype.kind == "u":
        return remainder
    wrong = ((remainder < 0) ^ (b < 0)) & remainder.differs(0)
    return wrong.where(remainder + b, remainder)


def _integer_power(a: Value, b: Value) -> Value:
    """Wraps; a negative exponent gives 0, but for the bases 1 and -1."""
    known = b.known if isinstance(b.known, int) else None
    result, square = a.like(1), a
    bits = b.dtype.bits if known is None or known < 0 else known.bit_length()
    for i in range(bits):
        odd = ((b >> i) & 1).differs(0)
        result = odd.where(result * square, result)
        square = square * square
    if b.dtype.kind == "u" or (known is not None and known >= 0):
        return result
    parity = ((b & 1).equals(0)).where(a.like(1), a)
    unit = a.equals(1) | a.equals(-1)
    return (b < 0).where(unit.where(parity, a.like(0)), result)


def _bounded(shift: Callable[[Value, Value], Value]) -> Callable[[Value, Value], Value]:
    """A shift by the number of bits or more moves everything out, as in NumPy."""

    def shifted(a: Value, b: Value) -> Value:
        a, b = a.meet(b)
        bits = a.dtype.bits
        outside = (b >= bits) | (b < 0) if b.dtype.kind == "i" else b >= bits
        inside = shift(a, outside.where(b.like(0), b))
        gone = a >> (bits - 1) if shift is _shr and a.dtype.kind == "i" else a.like(0)
        return outside.where(gone, inside)

    return shifted


def _shl(a: Value, b: Value) -> Value:
    return a << b


def _shr(a: Value, b: Value) -> Value:
    return a >> b


_Unary = Callable[[Value], Value]
_Binary = Callable[[Value, Value], Value]

_FLOAT_UNARY: Final[dict[str, _Unary]] = {
    "neg": lambda x: -x,
    "abs": Value.absolute,
    "sqrt": lambda x: x.unary("sqrt"),
    "rsqrt": lambda x: 1.0 / x.unary("sqrt"),
    "reciprocal": lambda x: 1.0 / x,
    "floor": floor,
    "ceil": ceil,
    "round": nearest,
    "trunc": truncate,
    "isnan": Value.is_nan,
    "isinf": _is_infinite,
    "isfinite": _is_finite,
    "sign": _sign,
    **vector_math.UNARY,
}
_INTEGER_UNARY: Final[dict[str, _Unary]] = {
    "neg": lambda x: -x,
    "abs": Value.absolute,
    "not": lambda x: ~x,
    "floor": lambda x: x,
    "ceil": lambda x: x,
    "round": lambda x: x,
    "trunc": lambda x: x,
    "isnan": _never,
    "isinf": _never,
    "isfinite": _always,
    "sign": _sign,
}
_COMMON: Final[dict[str, _Binary]] = {
    "lt": Value.__lt__,
    "le": Value.__le__,
    "gt": Value.__gt__,
    "ge": Value.__ge__,
    "eq": Value.equals,
    "ne": Value.differs,
    "max": maximum,
    "min": minimum,
}
_FLOAT_BINARY: Final[dict[str, _Binary]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "floordiv": _float_floordiv,
    "mod": _float_mod,
    "rem": float_remainder,
    "pow": vector_math.power,
    "atan2": vector_math.atan2,
    "logaddexp": _log_sum,
}
_INTEGER_BINARY: Final[dict[str, _Binary]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": _quotient,
    "floordiv": _floordiv,
    "mod": _mod,
    "rem": _remainder,
    "pow": _integer_power,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "shl": _bounded(_shl),
    "shr": _bounded(_shr),
}
_BOOL_BINARY: Final[dict[str, _Binary]] = {
    "add": lambda a, b: a | b,
    "mul": lambda a, b: a & b,
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
}
