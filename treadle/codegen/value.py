"""Values in the code being made: arithmetic on them reads like arithmetic.

A `Value` is a scalar or a row of lanes; every operation works on both, and a scalar or a Python
number that meets lanes is spread over them. Two rules give the tail of a loop the bits of its
lanes, and a plan the bits of its last run: no fast-math flag is ever set, and a fused
multiply-add happens only where `madd` says so.

float16 and bfloat16 are carried as float32 and rounded where they are stored or cast.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.codegen.target import Target

ir = LazyModule("llvmlite.ir")

Number = int | float | bool

_FLOAT_COMPARE: Final = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}


def carried(dtype: DType) -> DType:
    """The type in which values of `dtype` are computed."""
    return dt.float32 if dtype.kind == "f" and dtype.itemsize == 2 else dtype


@functools.cache
def llvm_type(dtype: DType, lanes: int = 1) -> Any:
    """The LLVM type of computed values: bool is one bit."""
    if dtype.kind == "f":
        element = ir.DoubleType() if dtype.itemsize == 8 else ir.FloatType()
    else:
        element = ir.IntType(1 if dtype is dt.bool_ else dtype.bits)
    return ir.VectorType(element, lanes) if lanes > 1 else element


class Emit:
    """Where values are made: LLVM's builder, standing in a function, and the target."""

    __slots__ = ("_constants", "builder", "module", "target")

    def __init__(self, builder: Any, target: Target) -> None:
        self.builder = builder
        self.module = builder.module
        self.target = target
        self._constants: dict[tuple[str, DType, int], Value] = {}

    def value(self, raw: Any, dtype: DType) -> Value:
        """Wraps an LLVM value that holds numbers of `dtype`."""
        return Value(self, raw, carried(dtype))

    def const(self, number: Number, dtype: DType, lanes: int = 1) -> Value:
        """A constant, in every lane."""
        # By spelling: 0.0 and -0.0 are equal, NaN is not.
        key = (repr(number), dtype, lanes)
        found = self._constants.get(key)
        if found is None:
            found = self._constants[key] = self._const(number, carried(dtype), lanes)
        return found

    def _const(self, number: Number, dtype: DType, lanes: int) -> Value:
        plain = float(number) if dtype.kind == "f" else int(number)
        scalar = ir.Constant(llvm_type(dtype), plain)
        if lanes == 1:
            return Value(self, scalar, dtype, plain)
        text = f"splat ({scalar.type} {scalar.get_reference()})"
        return Value(self, literal(llvm_type(dtype, lanes), text), dtype, plain)

    def iota(self, dtype: DType, lanes: int) -> Value:
        """0, 1, 2, ... along the lanes."""
        return Value(self, ir.Constant(llvm_type(dtype, lanes), list(range(lanes))), dtype)

    def intrinsic(self, name: str, result: Any, *arguments: Any) -> Any:
        """Calls `llvm.<name>`, overloaded on its result type."""
        return self.call(f"llvm.{name}.{mangled(result)}", result, *arguments)

    def call(self, name: str, result: Any, *arguments: Any) -> Any:
        """Calls the function `name`, declared at its first use."""
        function = self.module.globals.get(name)
        if function is None:
            kind = ir.FunctionType(result, [a.type for a in arguments])
            function = ir.Function(self.module, kind, name)
        return self.builder.call(function, arguments)


def literal(kind: Any, text: str) -> Any:
    """A constant spelled out: llvmlite itself would repeat the number for every lane."""
    constant = ir.FormattedConstant(ir.IntType(1), text)
    constant.type = kind
    return constant


def shuffle(builder: Any, row: Any, chosen: Sequence[int], other: Any = None) -> Any:
    """A row of the chosen lanes of another, or of two: those of `other` count on."""
    kind = ir.VectorType(ir.IntType(32), len(chosen))
    if other is None:
        other = literal(row.type, "poison")
    made = builder.shuffle_vector(row, other, ir.Constant(kind, [0] * len(chosen)))
    text = ", ".join(f"i32 {i}" for i in chosen) if any(chosen) else ""
    made.operands[2] = literal(kind, f"<{text}>" if text else "zeroinitializer")
    return made


def mangled(kind: Any) -> str:
    """A type as it stands in the name of an overloaded intrinsic."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{mangled(kind.element)}"
    text = str(kind)
    return {"float": "f32", "double": "f64", "half": "f16", "ptr": "p0"}.get(text, text)


class Value:
    """Numbers of one dtype, in one or many lanes; `known` is the number if it is a constant."""

    __slots__ = ("dtype", "emit", "known", "raw")

    def __init__(
        self, emit: Emit, raw: Any, dtype: DType, known: int | float | None = None
    ) -> None:
        self.emit = emit
        self.raw = raw
        self.dtype = dtype
        self.known = known

    @property
    def lanes(self) -> int:
        """The number of lanes; 1 for a scalar."""
        kind = self.raw.type
        return kind.count if isinstance(kind, ir.VectorType) else 1

    def like(self, number: Number) -> Value:
        """The constant `number` of this type, in as many lanes."""
        return self.emit.const(number, self.dtype, self.lanes)

    def spread(self, lanes: int) -> Value:
        """A scalar in every one of `lanes`."""
        if lanes == self.lanes:
            return self
        raw = self.raw
        if self.known is not None:
            return self.emit.const(self.known, self.dtype, lanes)
        b = self.emit.builder
        kind = llvm_type(self.dtype, lanes)
        one = b.insert_element(literal(kind, "poison"), raw, ir.Constant(ir.IntType(32), 0))
        return Value(self.emit, shuffle(b, one, [0] * lanes), self.dtype)

    def meet(self, other: Value | Number) -> tuple[Value, Value]:
        """This value and another, both in the larger number of lanes."""
        if not isinstance(other, Value):
            return self, self.like(other)
        lanes = max(self.lanes, other.lanes)
        return self.spread(lanes), other.spread(lanes)

    def _arithmetic(self, other: Value | Number, integer: str, floating: str) -> Value:
        a, b = self.meet(other)
        name = floating if a.dtype.kind == "f" else integer
        return Value(a.emit, getattr(a.emit.builder, name)(a.raw, b.raw), a.dtype)

    def __add__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "add", "fadd")

    def __sub__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "sub", "fsub")

    def __mul__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "mul", "fmul")

    def __radd__(self, other: Number) -> Value:
        return self.like(other) + self

    def __rsub__(self, other: Number) -> Value:
        return self.like(other) - self

    def __rmul__(self, other: Number) -> Value:
        return self.like(other) * self

    def __truediv__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "sdiv", "fdiv")

    def __rtruediv__(self, other: Number) -> Value:
        return self.like(other) / self

    def __neg__(self) -> Value:
        if self.dtype.kind == "f":
            return Value(self.emit, self.emit.builder.fneg(self.raw), self.dtype)
        return self.like(0) - self

    def __and__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "and_", "and_")

    def __or__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "or_", "or_")

    def __xor__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "xor", "xor")

    def __invert__(self) -> Value:
        return self ^ (1 if self.dtype is dt.bool_ else -1)

    def __lshift__(self, other: Value | Number) -> Value:
        return self._arithmetic(other, "shl", "shl")

    def __rshift__(self, other: Value | Number) -> Value:
        """Keeps the sign of signed integers, fills with zeros for unsigned ones."""
        name = "lshr" if self.dtype.kind == "u" else "ashr"
        return self._arithmetic(other, name, name)

    def compare(self, op: str, other: Value | Number) -> Value:
        """`lt le gt ge eq ne`; a NaN is unequal to everything and in no order."""
        a, b = self.meet(other)
        builder, sign = a.emit.builder, _FLOAT_COMPARE[op]
        if a.dtype.kind == "f":
            compare = builder.fcmp_unordered if op == "ne" else builder.fcmp_ordered
        else:
            compare = builder.icmp_signed if a.dtype.kind == "i" else builder.icmp_unsigned
        return Value(a.emit, compare(sign, a.raw, b.raw), dt.bool_)

    def __lt__(self, other: Value | Number) -> Value:
        return self.compare("lt", other)

    def __le__(self, other: Value | Number) -> Value:
        return self.compare("le", other)

    def __gt__(self, other: Value | Number) -> Value:
        return self.compare("gt", other)

    def __ge__(self, other: Value | Number) -> Value:
        return self.compare("ge", other)

    def equals(self, other: Value | Number) -> Value:
        """Whether equal; `==` itself stays identity, so that values can be dictionary keys."""
        return self.compare("eq", other)

    def differs(self, other: Value | Number) -> Value:
        """Whether not equal; a NaN differs from itself."""
        return self.compare("ne", other)

    def is_nan(self) -> Value:
        """Whether not a number."""
        raw = self.emit.builder.fcmp_unordered("uno", self.raw, self.raw)
        return Value(self.emit, raw, dt.bool_)

    def where(self, a: Value | Number, b: Value | Number) -> Value:
        """`a` where this bool holds, else `b`."""
        if not isinstance(a, Value):
            assert isinstance(b, Value)
            a = b.like(a)
        x, y = a.meet(b)
        lanes = max(x.lanes, self.lanes)
        x, y = x.spread(lanes), y.spread(lanes)
        # One scalar condition may choose between whole rows of lanes.
        return Value(x.emit, x.emit.builder.select(self.raw, x.raw, y.raw), x.dtype)

    def madd(self, b: Value | Number, c: Value | Number) -> Value:
        """`self * b + c`, rounded once where the target has the instruction, else twice."""
        if not self.emit.target.fma:
            return self * b + c
        x, y = self.meet(b)
        y, z = y.meet(c)
        x, y = x.spread(z.lanes), y.spread(z.lanes)
        return Value(x.emit, x.emit.intrinsic("fma", x.raw.type, x.raw, y.raw, z.raw), x.dtype)

    def unary(self, intrinsic: str) -> Value:
        """An LLVM intrinsic from one value to one of the same type."""
        return Value(self.emit, self.emit.intrinsic(intrinsic, self.raw.type, self.raw), self.dtype)

    def absolute(self) -> Value:
        """`|x|`; the least integer stays as it is."""
        if self.dtype.kind == "f":
            return self.unary("fabs")
        return (self < 0).where(-self, self) if self.dtype.kind == "i" else self

    def copysign(self, sign: Value | Number) -> Value:
        """This magnitude with another's sign."""
        a, b = self.meet(sign)
        return Value(a.emit, a.emit.intrinsic("copysign", a.raw.type, a.raw, b.raw), a.dtype)

    def bits(self, dtype: DType) -> Value:
        """The same bits read as another type of the same size."""
        raw = self.emit.builder.bitcast(self.raw, llvm_type(dtype, self.lanes))
        return Value(self.emit, raw, dtype)

    def lane(self, index: int | Value) -> Value:
        """The scalar in one lane."""
        if self.lanes == 1:
            return self
        at = ir.Constant(ir.IntType(32), index) if isinstance(index, int) else index.raw
        return Value(self.emit, self.emit.builder.extract_element(self.raw, at), self.dtype)

    def any(self) -> Value:
        """Whether a bool holds in any lane."""
        if self.lanes == 1:
            return self
        name = f"llvm.vector.reduce.or.{mangled(self.raw.type)}"
        return Value(self.emit, self.emit.call(name, ir.IntType(1), self.raw), dt.bool_)

    def part(self, start: int, count: int) -> Value:
        """`count` neighbouring lanes; one lane gives a scalar."""
        if count == 1:
            return self.lane(start)
        b = self.emit.builder
        return Value(self.emit, shuffle(b, self.raw, range(start, start + count)), self.dtype)

    def every(self, index: int) -> Value:
        """One lane in all lanes."""
        raw = shuffle(self.emit.builder, self.raw, [index] * self.lanes)
        return Value(self.emit, raw, self.dtype)

    def moved_up(self, count: int, filling: Value) -> Value:
        """Each lane from `count` lanes below; the lowest from `filling`."""
        lanes = self.lanes
        chosen = [i + lanes if i < count else i - count for i in range(lanes)]
        raw = shuffle(self.emit.builder, self.raw, chosen, filling.spread(lanes).raw)
        return Value(self.emit, raw, self.dtype)

    def reverse(self) -> Value:
        """The lanes in opposite order."""
        raw = shuffle(self.emit.builder, self.raw, range(self.lanes - 1, -1, -1))
        return Value(self.emit, raw, self.dtype)


def concatenate(rows: Sequence[Value]) -> Value:
    """The lanes of rows, an equal number of each, one after another; a power of two of rows."""
    whole = list(rows)
    while len(whole) > 1:
        pairs = zip(whole[::2], whole[1::2], strict=True)
        whole = [_pair(a, b) for a, b in pairs]
    return whole[0]


def _pair(a: Value, b: Value) -> Value:
    if a.lanes == 1:
        return join([a, b])
    raw = shuffle(a.emit.builder, a.raw, range(2 * a.lanes), b.raw)
    return Value(a.emit, raw, a.dtype)


def join(scalars: list[Value]) -> Value:
    """Scalars as the lanes of one value."""
    emit, dtype = scalars[0].emit, scalars[0].dtype
    if len(scalars) == 1:
        return scalars[0]
    row = literal(llvm_type(dtype, len(scalars)), "poison")
    for i, scalar in enumerate(scalars):
        row = emit.builder.insert_element(row, scalar.raw, ir.Constant(ir.IntType(32), i))
    return Value(emit, row, dtype)
