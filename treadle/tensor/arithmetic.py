"""Element-wise functions of tensors: arithmetic, comparisons, logic, elementary functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import DTypeError
from treadle.base.symbolic import Real, Symbolic, real
from treadle.ops import pointwise as ops
from treadle.ops.table import Op
from treadle.tensor.host import operand
from treadle.tensor.promote import as_dtype, floating, get_default_dtype, result_type
from treadle.tensor.record import Lazy, record, record1, record2, record_number

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

Number = float | int | bool
_NUMBERS = frozenset({int, float, Real, Symbolic})


def _binary(op: Op, a: Any, b: Any) -> Any:
    if isinstance(b, Lazy) and isinstance(a, Lazy) and a._node.dtype is b._node.dtype:
        return record2(op, a, b)
    if type(b) in _NUMBERS and a._node.dtype.kind == "f":
        return record_number(op, a, real(b), False)
    if type(a) in _NUMBERS and b._node.dtype.kind == "f":
        return record_number(op, b, real(a), True)
    dtype = result_type(a, b)
    return record2(op, as_dtype(a, dtype), as_dtype(b, dtype))


_PLAIN: Final = (Lazy, int, float)


def operator(function: Callable[..., Any]) -> Callable[..., Any]:
    """A binary function as a method of an operator: unknown operands give `NotImplemented`."""

    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, _PLAIN):
            other = operand(other)
            if other is None:
                return NotImplemented
        return function(self, other)

    method.__doc__ = function.__doc__
    return method


def reflected(function: Callable[..., Any]) -> Callable[..., Any]:
    """A binary function as the method of an operator whose left side is no tensor."""

    def method(self: Any, other: Any) -> Any:
        if not isinstance(other, _PLAIN):
            other = operand(other)
            if other is None:
                return NotImplemented
        return function(other, self)

    method.__doc__ = function.__doc__
    return method


def add(input: Tensor | Number, other: Tensor | Number, *, alpha: Number = 1) -> Tensor:
    """`input + alpha * other`, broadcast."""
    return _binary(ops.ADD, input, other if alpha == 1 else mul(other, alpha))


def sub(input: Tensor | Number, other: Tensor | Number, *, alpha: Number = 1) -> Tensor:
    """`input - alpha * other`, broadcast. Raises `DTypeError` for bool."""
    if result_type(input, other) is dt.bool_:
        raise DTypeError("Subtraction with bool tensors is not supported; hint: use ^ or ~")
    return _binary(ops.SUB, input, other if alpha == 1 else mul(other, alpha))


def mul(input: Tensor | Number, other: Tensor | Number) -> Tensor:
    """`input * other`, broadcast."""
    return _binary(ops.MUL, input, other)


def div(
    input: Tensor | Number, other: Tensor | Number, *, rounding_mode: str | None = None
) -> Tensor:
    """`input / other`, broadcast; integers divide as floating point unless a rounding mode
    (`"floor"` or `"trunc"`) is given."""
    if rounding_mode == "floor":
        return floor_divide(input, other)
    dtype = result_type(input, other)
    wide = dtype if dtype.kind == "f" else get_default_dtype()
    if rounding_mode is None:
        return record(ops.DIV, (as_dtype(input, wide), as_dtype(other, wide)))
    if rounding_mode != "trunc":
        raise ValueError(f"rounding_mode is None, 'trunc' or 'floor', not {rounding_mode!r}")
    if dtype.kind == "f":
        return trunc(record(ops.DIV, (as_dtype(input, wide), as_dtype(other, wide))))
    a, b = as_dtype(input, dtype), as_dtype(other, dtype)
    return floor_divide(record(ops.SUB, (a, record(ops.REM, (a, b)))), b)


def floor_divide(input: Tensor | Number, other: Tensor | Number) -> Tensor:
    """`floor(input / other)`, broadcast."""
    return _binary(ops.FLOORDIV, input, other)


def remainder(input: Tensor | Number, other: Tensor | Number) -> Tensor:
    """The remainder with the sign of the divisor, as Python's `%`."""
    return _binary(ops.MOD, input, other)


def fmod(input: Tensor | Number, other: Tensor | Number) -> Tensor:
    """The remainder with the sign of the dividend, as C's `fmod`."""
    return _binary(ops.REM, input, other)


def _whole_power(x: Any, n: int) -> Any:
    """x to a small whole power by repeated squaring: exact signs, no logarithm."""
    result = None
    square = x
    while n:
        if n & 1:
            result = square if result is None else record(ops.MUL, (result, square))
        n >>= 1
        if n:
            square = record(ops.MUL, (square, square))
    return result


def pow(input: Tensor | Number, exponent: Tensor | Number) -> Tensor:
    """`input` to the power `exponent`, broadcast."""
    if not isinstance(exponent, Lazy) and isinstance(input, Lazy):
        if not isinstance(exponent, (int, float)):
            raise TypeError(f"pow: the exponent is a {type(exponent).__name__}")
        kind = input._node.dtype.kind
        if kind != "f" and isinstance(exponent, int) and exponent < 0:
            raise DTypeError("Integers to negative integer powers are not allowed.")
        if exponent == 0.5 and kind == "f":
            return sqrt(input)
        if exponent == -1 and kind == "f":
            return reciprocal(input)
        whole = -(2**31) < exponent < 2**31 and exponent == int(exponent)
        if whole and 1 <= exponent <= 8 and (kind == "f" or isinstance(exponent, int)):
            return _whole_power(as_dtype(input, result_type(input, exponent)), int(exponent))
    return _binary(ops.POW, input, exponent)


def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The larger of two, NaN if either is."""
    return _binary(ops.MAX, input, other)


def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The smaller of two, NaN if either is."""
    return _binary(ops.MIN, input, other)


def atan2(input: Tensor, other: Tensor) -> Tensor:
    """The angle of the point (other, input), in radians."""
    dtype = result_type(input, other)
    wide = dtype if dtype.kind == "f" else get_default_dtype()
    return record2(ops.ATAN2, as_dtype(input, wide), as_dtype(other, wide))


def clamp(
    input: Tensor, min: Tensor | Number | None = None, max: Tensor | Number | None = None
) -> Tensor:
    """`input` limited to `[min, max]`."""
    if min is None and max is None:
        raise ValueError("clamp: at least one of min and max must be given")
    out: Any = input
    if min is not None:
        out = _binary(ops.MAX, out, min)
    return out if max is None else _binary(ops.MIN, out, max)


def where(condition: Tensor, input: Tensor | Number, other: Tensor | Number) -> Tensor:
    """`input` where the condition holds, else `other`, broadcast."""
    dtype = result_type(input, other)
    return record(ops.WHERE, (condition, as_dtype(input, dtype), as_dtype(other, dtype)))


def lerp(input: Tensor, end: Tensor, weight: Tensor | Number) -> Tensor:
    """`input + weight * (end - input)`."""
    return add(input, mul(sub(end, input), weight))


def addcmul(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """`input + value * tensor1 * tensor2`."""
    return add(input, mul(mul(tensor1, tensor2), value))


def addcdiv(input: Tensor, tensor1: Tensor, tensor2: Tensor, *, value: Number = 1) -> Tensor:
    """`input + value * tensor1 / tensor2`."""
    return add(input, mul(div(tensor1, tensor2), value))


# --- comparisons and logic ---------------------------------------------------------------------


def _comparison(op: Op) -> Callable[[Any, Any], Any]:
    def compare(input: Tensor | Number, other: Tensor | Number) -> Tensor:
        return _binary(op, input, other)

    compare.__name__ = op.name
    compare.__doc__ = f"Whether `{op.doc}`, element by element, as bool."
    return compare


eq, ne, lt, le, gt, ge = map(_comparison, (ops.EQ, ops.NE, ops.LT, ops.LE, ops.GT, ops.GE))


def _bitwise(op: Op) -> Callable[[Any, Any], Any]:
    def combine(input: Tensor | Number, other: Tensor | Number) -> Tensor:
        if result_type(input, other).is_floating_point:
            raise DTypeError(f"bitwise_{op.name} is not defined on floating point")
        return _binary(op, input, other)

    combine.__name__ = f"bitwise_{op.name}"
    combine.__doc__ = f"`{op.doc}` of integers or bools."
    return combine


bitwise_and, bitwise_or, bitwise_xor = map(_bitwise, (ops.AND, ops.OR, ops.XOR))
bitwise_left_shift, bitwise_right_shift = map(_bitwise, (ops.SHL, ops.SHR))


def _logical(op: Op) -> Callable[[Any, Any], Any]:
    def combine(input: Tensor, other: Tensor) -> Tensor:
        return record(op, (as_dtype(input, dt.bool_), as_dtype(other, dt.bool_)))

    combine.__name__ = f"logical_{op.name}"
    combine.__doc__ = f"Logical {op.name}: what is not zero is true."
    return combine


logical_and, logical_or, logical_xor = map(_logical, (ops.AND, ops.OR, ops.XOR))


def logical_not(input: Tensor) -> Tensor:
    """Whether an element is zero."""
    return record(ops.NOT, (as_dtype(input, dt.bool_),))


def bitwise_not(input: Tensor) -> Tensor:
    """The complement of integers or bools."""
    if input.dtype.is_floating_point:
        raise DTypeError("bitwise_not is not defined on floating point")
    return record(ops.NOT, (input,))


def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """Whether `|input - other| <= atol + rtol * |other|`."""
    wide = floating(other)
    near = le(abs(sub(input, wide)), add(mul(abs(wide), rtol), atol))
    same = logical_or(eq(input, other), logical_and(near, isfinite(other)))
    return logical_or(same, logical_and(isnan(input), isnan(other))) if equal_nan else same


# --- elementary functions ----------------------------------------------------------------------


def _elementary(op: Op, name: str | None = None) -> Callable[[Any], Any]:
    def function(input: Tensor) -> Tensor:
        return record1(op, input if input._node.dtype.kind == "f" else floating(input))

    function.__name__ = name or op.name
    function.__doc__ = f"{op.doc[0].upper()}{op.doc[1:]}, element by element."
    return function


exp, exp2, expm1 = map(_elementary, (ops.EXP, ops.EXP2, ops.EXPM1))
log, log2, log1p = map(_elementary, (ops.LOG, ops.LOG2, ops.LOG1P))
sqrt, rsqrt, reciprocal = map(_elementary, (ops.SQRT, ops.RSQRT, ops.RECIPROCAL))
sin, cos, tan, tanh = map(_elementary, (ops.SIN, ops.COS, ops.TAN, ops.TANH))
sigmoid, erf = map(_elementary, (ops.SIGMOID, ops.ERF))


def log10(input: Tensor) -> Tensor:
    """Logarithm to base 10, element by element."""
    return mul(log(input), 0.43429448190325176)


def _rounding(op: Op) -> Callable[[Any], Any]:
    def function(input: Tensor) -> Tensor:
        return record(op, (input,)) if input._node.dtype.kind == "f" else input

    function.__name__ = op.name
    function.__doc__ = f"{op.doc[0].upper()}{op.doc[1:]}; integers stay as they are."
    return function


floor, ceil, trunc, _nearest = map(_rounding, (ops.FLOOR, ops.CEIL, ops.TRUNC, ops.ROUND))


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """The nearest number with so many decimals, ties to even; integers stay as they are."""
    if not decimals:
        return _nearest(input)
    if decimals < 0:
        return mul(_nearest(div(input, 10**-decimals)), 10**-decimals)
    return div(_nearest(mul(input, 10**decimals)), 10**decimals)


def _any_dtype(op: Op) -> Callable[[Any], Any]:
    def function(input: Tensor) -> Tensor:
        return record1(op, input)

    function.__name__ = op.name
    function.__doc__ = f"{op.doc[0].upper()}{op.doc[1:]}, element by element."
    return function


abs, sign = map(_any_dtype, (ops.ABS, ops.SIGN))
isnan, isinf, isfinite = map(_elementary, (ops.ISNAN, ops.ISINF, ops.ISFINITE))


def neg(input: Tensor) -> Tensor:
    """-x, element by element. Raises `DTypeError` for bool."""
    if input._node.dtype is dt.bool_:
        raise DTypeError("Negation, the `-` operator, on a bool tensor is not supported; hint: ~")
    return record1(ops.NEG, input)


def square(input: Tensor) -> Tensor:
    """`input * input`; bools as int64."""
    x = as_dtype(input, dt.int64) if input._node.dtype is dt.bool_ else input
    return mul(x, x)


def relu(input: Tensor) -> Tensor:
    """`max(input, 0)`, NaN where the input is; the gradient at 0 is 0."""
    return record1(ops.RELU, input)


def cast(input: Tensor, dtype: DType) -> Tensor:
    """The elements in another dtype."""
    return as_dtype(input, dtype)
