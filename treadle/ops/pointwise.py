"""Element-wise primitives: each element of the result depends on one element of each input."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.errors import DTypeError, IndexBoundsError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.loop import Binary, Cast, Const, Expr, Intrinsic, Select, Unary
from treadle.ir.node import Node
from treadle.ops.reduce import sum_to
from treadle.ops.source import constant, full
from treadle.ops.table import (
    NO_GRADIENT,
    Arg,
    Index,
    Op,
    Read,
    Sample,
    broadcast_index,
    make,
    per_input,
    require_float,
    require_same_dtype,
)

np = LazyModule("numpy")
_special = LazyModule("scipy.special")

Rule = Callable[[Node, Node], Node | None]
One = Callable[[Node], Node]
Two = Callable[[Node, Node], Node]


def operand(node: Node, i: int, index: Index, read: Read) -> Expr:
    """Input `i` at the index that broadcasting gives it."""
    return read(i, broadcast_index(node.inputs[i].shape, index))


# --- unary -----------------------------------------------------------------------------------


def _unary(
    name: str,
    doc: str,
    ref: Callable[[Any], Any],
    gradient: Rule | None,
    low: float = -2.0,
    high: float = 2.0,
    floating: bool = True,
    cost: int = 1,
    result: DType | None = None,
    dtypes: tuple[DType, ...] = (dt.float32, dt.float64),
) -> Op:
    def infer(x: Any) -> tuple[Shape, DType]:
        dtype = require_float(name, x) if floating else x.dtype
        return x.shape, result or dtype

    def lower(node: Node, index: Index, read: Read) -> Expr:
        return Unary(name, operand(node, 0, index, read))

    return Op(
        name=name,
        kind="pointwise",
        attr_names=(),
        infer=infer,
        vjp=per_input(gradient) if gradient else NO_GRADIENT,
        lower=lower,
        ref=ref,
        samples=tuple(Sample((Arg((3, 5), d, low, high),)) for d in dtypes),
        doc=doc,
        cost=cost,
    )


def _erf_ref(x: Any) -> Any:
    return _special.erf(x)


def _sigmoid_ref(x: Any) -> Any:
    return _special.expit(x)


def _x(node: Node) -> Node:
    return node.inputs[0]


def _flat(node: Node, g: Node) -> Node:
    """The gradient of steps: zeros, as PyTorch has it, rather than none."""
    return full(node.shape, 0, node.dtype)


_all = (dt.float32, dt.float64, dt.int32, dt.int64)

NEG: Final = _unary("neg", "-x", lambda x: -x, lambda n, g: neg(g), floating=False, dtypes=_all)
ABS: Final = _unary(
    "abs", "|x|", lambda x: np.abs(x), lambda n, g: mul(g, sign(_x(n))), floating=False, dtypes=_all
)
SIGN: Final = _unary("sign", "-1, 0 or 1", lambda x: np.sign(x), _flat, floating=False, dtypes=_all)
NOT: Final = _unary(
    "not", "logical (bool) or bitwise (integer) complement", lambda x: ~x, None,
    floating=False, dtypes=(dt.bool_, dt.int32),
)  # fmt: skip
SQRT: Final = _unary(
    "sqrt", "square root", lambda x: np.sqrt(x),
    lambda n, g: div(g, mul(n, like(2, n))), low=0.1, cost=4,
)  # fmt: skip
RSQRT: Final = _unary(
    "rsqrt", "1 / sqrt(x)", lambda x: 1 / np.sqrt(x),
    lambda n, g: mul(g, mul(like(-0.5, n), mul(n, mul(n, n)))), low=0.1, cost=6,
)  # fmt: skip
EXP: Final = _unary("exp", "e to the x", lambda x: np.exp(x), lambda n, g: mul(g, n), cost=12)
EXPM1: Final = _unary(
    "expm1", "exp(x) - 1, exact near 0", lambda x: np.expm1(x),
    lambda n, g: mul(g, add(n, like(1, n))), cost=14,
)  # fmt: skip
LOG: Final = _unary(
    "log", "natural logarithm", lambda x: np.log(x), lambda n, g: div(g, _x(n)), low=0.1, cost=12
)
LOG1P: Final = _unary(
    "log1p", "log(1 + x), exact near 0", lambda x: np.log1p(x),
    lambda n, g: div(g, add(_x(n), like(1, n))), low=-0.9, cost=14,
)  # fmt: skip
LOG2: Final = _unary(
    "log2", "logarithm to base 2", lambda x: np.log2(x),
    lambda n, g: div(g, mul(_x(n), like(math.log(2), n))), low=0.1, cost=12,
)  # fmt: skip
EXP2: Final = _unary(
    "exp2", "2 to the x", lambda x: np.exp2(x),
    lambda n, g: mul(g, mul(n, like(math.log(2), n))), cost=12,
)  # fmt: skip
SIN: Final = _unary(
    "sin", "sine (radians)", lambda x: np.sin(x), lambda n, g: mul(g, cos(_x(n))), cost=16
)
COS: Final = _unary(
    "cos", "cosine (radians)", lambda x: np.cos(x), lambda n, g: neg(mul(g, sin(_x(n)))), cost=16
)
TAN: Final = _unary(
    "tan", "tangent (radians)", lambda x: np.tan(x),
    lambda n, g: mul(g, add(mul(n, n), like(1, n))), low=-1.2, high=1.2, cost=20,
)  # fmt: skip
TANH: Final = _unary(
    "tanh", "hyperbolic tangent", lambda x: np.tanh(x),
    lambda n, g: mul(g, sub(like(1, n), mul(n, n))), cost=14,
)  # fmt: skip
SIGMOID: Final = _unary(
    "sigmoid", "1 / (1 + exp(-x))", _sigmoid_ref,
    lambda n, g: mul(g, mul(n, sub(like(1, n), n))), cost=14,
)  # fmt: skip
ERF: Final = _unary(
    "erf", "error function", _erf_ref,
    lambda n, g: mul(g, mul(like(2 / math.sqrt(math.pi), n), exp(neg(mul(_x(n), _x(n)))))),
    cost=20,
)  # fmt: skip
RECIPROCAL: Final = _unary(
    "reciprocal", "1 / x", lambda x: 1 / x, lambda n, g: neg(mul(g, mul(n, n))), low=0.3, cost=4
)
FLOOR: Final = _unary("floor", "largest integer not above x", lambda x: np.floor(x), _flat)
CEIL: Final = _unary("ceil", "smallest integer not below x", lambda x: np.ceil(x), _flat)
ROUND: Final = _unary("round", "nearest integer, ties to even", lambda x: np.round(x), _flat)
TRUNC: Final = _unary("trunc", "integer part", lambda x: np.trunc(x), _flat)
ISNAN: Final = _unary(
    "isnan", "whether x is not a number", lambda x: np.isnan(x), None, result=dt.bool_
)
ISINF: Final = _unary(
    "isinf", "whether x is infinite", lambda x: np.isinf(x), None, result=dt.bool_
)
ISFINITE: Final = _unary(
    "isfinite", "whether x is a finite number", lambda x: np.isfinite(x), None, result=dt.bool_
)


# --- binary ----------------------------------------------------------------------------------


def _binary(
    name: str,
    doc: str,
    ref: Callable[[Any, Any], Any],
    gradients: tuple[Rule, Rule] | None,
    dtypes: tuple[DType, ...] = (dt.float32, dt.float64, dt.int64),
    low: float = -2.0,
    cost: int = 1,
    result: DType | None = None,
    floating: bool = False,
) -> Op:
    def infer(a: Any, b: Any) -> tuple[Shape, DType]:
        dtype = require_same_dtype(name, a, b)
        if floating:
            require_float(name, a)
        shape = a.shape if sh.same(a.shape, b.shape) else sh.broadcast(a.shape, b.shape)
        return shape, result or dtype

    def lower(node: Node, index: Index, read: Read) -> Expr:
        return Binary(name, operand(node, 0, index, read), operand(node, 1, index, read))

    def vjp(node: Node, g: Node, i: int) -> Node | None:
        if gradients is None:
            return None
        partial = gradients[i](node, g)
        return None if partial is None else sum_to(partial, node.inputs[i].shape)

    shapes = (((3, 5), (3, 5)), ((3, 5), (5,)), ((2, 1, 5), (3, 1)), ((4,), ()))
    return Op(
        name=name,
        kind="pointwise",
        attr_names=(),
        infer=infer,
        vjp=vjp,
        lower=lower,
        ref=ref,
        samples=tuple(
            Sample((Arg(a, d, low, 2.0), Arg(b, d, low, 2.0))) for d in dtypes for a, b in shapes
        ),
        doc=doc,
        cost=cost,
    )


def _b(node: Node) -> Node:
    return node.inputs[1]


_floats = (dt.float32, dt.float64)
_bits = (dt.bool_, dt.int32)

ADD: Final = _binary("add", "a + b", lambda a, b: a + b, (lambda n, g: g, lambda n, g: g))
SUB: Final = _binary("sub", "a - b", lambda a, b: a - b, (lambda n, g: g, lambda n, g: neg(g)))
MUL: Final = _binary(
    "mul", "a * b", lambda a, b: a * b,
    (lambda n, g: mul(g, _b(n)), lambda n, g: mul(g, _x(n))),
)  # fmt: skip
DIV: Final = _binary(
    "div", "a / b on floating point", lambda a, b: a / b,
    (lambda n, g: div(g, _b(n)), lambda n, g: neg(div(mul(g, n), _b(n)))),
    dtypes=_floats, low=0.5, cost=4, floating=True,
)  # fmt: skip
FLOORDIV: Final = _binary(
    "floordiv", "floor(a / b)", lambda a, b: np.floor_divide(a, b), (_flat, _flat), low=1.0, cost=8
)
MOD: Final = _binary(
    "mod", "a - b * floor(a / b), with the sign of b", lambda a, b: np.mod(a, b),
    (lambda n, g: g, lambda n, g: neg(mul(g, floordiv(_x(n), _b(n))))), low=1.0, cost=8,
)  # fmt: skip
REM: Final = _binary(
    "rem", "a - b * trunc(a / b), with the sign of a", lambda a, b: np.fmod(a, b),
    (lambda n, g: g, lambda n, g: neg(mul(g, trunc(div(_x(n), _b(n)))))), low=1.0, cost=8,
)  # fmt: skip


def _pow_base(node: Node, g: Node) -> Node:
    a, b = node.inputs
    return mul(g, mul(b, power(a, sub(b, like(1, b)))))


def _pow_exponent(node: Node, g: Node) -> Node:
    a = _x(node)
    # 0 ** b has slope 0 for b >= 0: log(0) must not turn it into NaN.
    safe = where(eq(a, like(0, a)), like(1, a), a)
    return mul(g, mul(node, log(safe)))


POW: Final = _binary(
    "pow", "a to the power b", lambda a, b: np.power(a, b), (_pow_base, _pow_exponent),
    dtypes=_floats, low=0.3, cost=24,
)  # fmt: skip
ATAN2: Final = _binary(
    "atan2", "angle of the point (b, a) in radians", lambda a, b: np.arctan2(a, b),
    (
        lambda n, g: div(mul(g, _b(n)), _square_sum(n)),
        lambda n, g: neg(div(mul(g, _x(n)), _square_sum(n))),
    ),
    dtypes=_floats, low=0.3, cost=24, floating=True,
)  # fmt: skip


def _square_sum(node: Node) -> Node:
    a, b = node.inputs
    return add(mul(a, a), mul(b, b))


def _share(node: Node, g: Node, mine: Node, other: Node, test: Callable[..., Node]) -> Node:
    """The gradient of an extremum: all of it to the winner, half to each side of a tie."""
    half = mul(g, like(0.5, g))
    zero = like(0, g)
    return where(eq(mine, other), half, where(test(mine, other), g, zero))


MAX: Final = _binary(
    "max", "the larger, NaN if either is", lambda a, b: np.maximum(a, b),
    (
        lambda n, g: _share(n, g, _x(n), _b(n), gt),
        lambda n, g: _share(n, g, _b(n), _x(n), gt),
    ),
)  # fmt: skip
MIN: Final = _binary(
    "min", "the smaller, NaN if either is", lambda a, b: np.minimum(a, b),
    (
        lambda n, g: _share(n, g, _x(n), _b(n), lt),
        lambda n, g: _share(n, g, _b(n), _x(n), lt),
    ),
)  # fmt: skip
AND: Final = _binary("and", "a & b", lambda a, b: a & b, None, dtypes=_bits)
OR: Final = _binary("or", "a | b", lambda a, b: a | b, None, dtypes=_bits)
XOR: Final = _binary("xor", "a ^ b", lambda a, b: a ^ b, None, dtypes=_bits)
SHL: Final = _binary("shl", "a << b", lambda a, b: a << b, None, dtypes=(dt.int64,), low=0.0)
SHR: Final = _binary("shr", "a >> b", lambda a, b: a >> b, None, dtypes=(dt.int64,), low=0.0)


def _comparison(name: str, symbol: str, ref: Callable[[Any, Any], Any]) -> Op:
    return _binary(name, f"a {symbol} b", ref, None, result=dt.bool_)


EQ: Final = _comparison("eq", "==", lambda a, b: a == b)
NE: Final = _comparison("ne", "!=", lambda a, b: a != b)
LT: Final = _comparison("lt", "<", lambda a, b: a < b)
LE: Final = _comparison("le", "<=", lambda a, b: a <= b)
GT: Final = _comparison("gt", ">", lambda a, b: a > b)
GE: Final = _comparison("ge", ">=", lambda a, b: a >= b)


# --- select, cast, check ---------------------------------------------------------------------


def _where_infer(c: Any, a: Any, b: Any) -> tuple[Shape, DType]:
    if c.dtype is not dt.bool_:
        raise DTypeError(f"where: the condition must be bool, got {c.dtype.name}")
    return sh.broadcast(c.shape, a.shape, b.shape), require_same_dtype("where", a, b)


def _where_lower(node: Node, index: Index, read: Read) -> Expr:
    return Select(*(operand(node, i, index, read) for i in range(3)))


def _where_vjp(node: Node, g: Node, i: int) -> Node | None:
    if i == 0:
        return None
    zero = like(0, g)
    c = node.inputs[0]
    part = where(c, g, zero) if i == 1 else where(c, zero, g)
    return sum_to(part, node.inputs[i].shape)


WHERE: Final = Op(
    name="where", kind="pointwise", attr_names=(), infer=_where_infer, vjp=_where_vjp,
    lower=_where_lower, ref=lambda c, a, b: np.where(c, a, b),
    samples=(
        Sample((Arg((3, 5), dt.bool_), Arg((3, 5)), Arg((3, 5)))),
        Sample((Arg((3, 1), dt.bool_), Arg((5,), dt.float64), Arg((), dt.float64))),
    ),
    doc="a where the condition holds, else b",
)  # fmt: skip


def _cast_lower(node: Node, index: Index, read: Read) -> Expr:
    return Cast(read(0, index), node.dtype)


def _cast_vjp(node: Node, g: Node, i: int) -> Node | None:
    x = node.inputs[0]
    return cast(g, x.dtype) if x.dtype.is_floating_point and g.dtype.is_floating_point else None


CAST: Final = Op(
    name="cast", kind="pointwise", attr_names=("dtype",), infer=lambda x, dtype: (x.shape, dtype),
    vjp=_cast_vjp, lower=_cast_lower, ref=lambda x, dtype: x.astype(dtype.numpy),
    samples=tuple(
        Sample((Arg((3, 5), a, -3.0, 3.0),), (b,))
        for a, b in (
            (dt.float32, dt.float64), (dt.float64, dt.float32), (dt.float32, dt.int32),
            (dt.int64, dt.float32), (dt.float32, dt.bool_), (dt.bool_, dt.float32),
            (dt.uint8, dt.float32), (dt.float32, dt.float16), (dt.float32, dt.bfloat16),
        )
    ),
    doc="x in another dtype: floating point to integer truncates, to bool compares with 0",
)  # fmt: skip


def _check_infer(x: Any, ok: Any, message: str) -> tuple[Shape, DType]:
    sh.broadcast(x.shape, ok.shape)
    return x.shape, x.dtype


def _check_lower(node: Node, index: Index, read: Read) -> Expr:
    x, ok = operand(node, 0, index, read), operand(node, 1, index, read)
    # The lowering pass numbers the faults of a kernel: the message stands in for the code.
    return Intrinsic("check", (x, ok, Const(node.attrs[0], dt.int64)), node.dtype)


def _check_ref(x: Any, ok: Any, message: str) -> Any:
    if not np.all(ok):
        raise IndexBoundsError(message)
    return x


CHECK: Final = Op(
    name="check", kind="pointwise", attr_names=("message",), infer=_check_infer,
    vjp=per_input(lambda n, g: g, lambda n, g: None), lower=_check_lower,
    ref=_check_ref,
    samples=(Sample((Arg((3,)), Arg((3,), dt.bool_, 1.0, 1.0)), ("x",)),),
    doc="x, and the run fails with the message where ok is false",
)  # fmt: skip


def _bitcast_infer(x: Any, dtype: DType) -> tuple[Shape, DType]:
    if x.dtype.bits != dtype.bits or dt.bool_ in (x.dtype, dtype):
        raise DTypeError(
            f"view: elements of {x.dtype.name} and {dtype.name} differ in size; hint: .to(...) "
            f"converts the values"
        )
    return x.shape, dtype


def _bitcast_lower(node: Node, index: Index, read: Read) -> Expr:
    return Intrinsic("bitcast", (read(0, index),), node.dtype)


BITCAST: Final = Op(
    name="bitcast", kind="pointwise", attr_names=("dtype",), infer=_bitcast_infer,
    vjp=NO_GRADIENT, lower=_bitcast_lower,
    ref=lambda x, dtype: np.ascontiguousarray(x).view(dtype.numpy),
    samples=(
        Sample((Arg((3, 4)),), (dt.int32,)), Sample((Arg((3, 4), dt.int64),), (dt.float64,)),
    ),
    doc="the bits of x as another dtype of the same size",
)  # fmt: skip


# --- rectifier -------------------------------------------------------------------------------


def _relu_lower(node: Node, index: Index, read: Read) -> Expr:
    return Binary("max", read(0, index), Const(0, node.dtype))


def _relu_gradient(node: Node, g: Node) -> Node:
    # By the result, not the input: a matmul need not keep what was there before the rectifier.
    # Where it is NaN the gradient passes, as in PyTorch.
    return where(le(node, like(0, node)), like(0, g), g)


RELU: Final = Op(
    name="relu",
    kind="pointwise",
    attr_names=(),
    infer=lambda x: (x.shape, x.dtype),
    vjp=per_input(_relu_gradient),
    lower=_relu_lower,
    ref=lambda x: np.maximum(x, x.dtype.type(0)),
    samples=(Sample((Arg((3, 5)),)), Sample((Arg((3, 5), dt.float64),))),
    doc="max(x, 0)",
)


# --- node constructors: what gradient rules and graph passes write with ------------------------


def like(value: float, node: Node) -> Node:
    """A constant of a node's dtype."""
    return constant(value, node.dtype)


def _constructor1(op: Op) -> One:
    def build(x: Node) -> Node:
        return make(op, (x,))

    return build


def _constructor2(op: Op) -> Two:
    def build(a: Node, b: Node) -> Node:
        return make(op, (a, b))

    return build


neg: One = _constructor1(NEG)
sign: One = _constructor1(SIGN)
exp: One = _constructor1(EXP)
log: One = _constructor1(LOG)
sin: One = _constructor1(SIN)
cos: One = _constructor1(COS)
trunc: One = _constructor1(TRUNC)
bit_not: One = _constructor1(NOT)
add: Two = _constructor2(ADD)
sub: Two = _constructor2(SUB)
mul: Two = _constructor2(MUL)
div: Two = _constructor2(DIV)
power: Two = _constructor2(POW)
floordiv: Two = _constructor2(FLOORDIV)
maximum: Two = _constructor2(MAX)
minimum: Two = _constructor2(MIN)
eq: Two = _constructor2(EQ)
lt: Two = _constructor2(LT)
le: Two = _constructor2(LE)
gt: Two = _constructor2(GT)
ge: Two = _constructor2(GE)
both: Two = _constructor2(AND)
either: Two = _constructor2(OR)


def where(condition: Node, a: Node, b: Node) -> Node:
    """`a` where the condition holds, else `b`."""
    return make(WHERE, (condition, a, b))


def cast(x: Node, dtype: DType) -> Node:
    """`x` in another dtype."""
    return x if x.dtype is dtype else make(CAST, (x,), (dtype,))
