"""Expressions of a loop nest as values: each shared sub-expression is made once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import CompileError
from treadle.codegen.convert import cast, from_memory, memory_type, to_memory
from treadle.codegen.operators import binary, unary
from treadle.codegen.random import philox
from treadle.codegen.target import Target
from treadle.codegen.value import Emit, Value
from treadle.ir.loop import (
    Binary,
    Cast,
    Const,
    Expr,
    Intrinsic,
    Load,
    Select,
    Size,
    Unary,
    Var,
)
from treadle.ir.walk import walk

NONE: frozenset[str] = frozenset()


class Expressions:
    """Turns expressions into values where the builder stands.

    `names` gives the values of variables, `sizes` those of the launch's sizes. `load` and `check`
    come from whoever knows about memory and faults; `compare` may know a shorter way.
    """

    def __init__(
        self,
        emit: Emit,
        names: dict[str, Value],
        sizes: list[Value],
        load: Callable[[Load], Value],
        check: Callable[[Value, Value, int], Value],
        compare: Callable[[Binary], Value | None] | None = None,
    ) -> None:
        self.emit = emit
        self.names = names
        self.sizes = sizes
        self.load = load
        self.check = check
        self.compare = compare
        # By identity: expressions are graphs, not trees. The expression is kept so that its
        # identity stays taken, and what it reads so that a store can forget it.
        self.made: dict[int, tuple[Expr, Value, frozenset[str]]] = {}

    def value(self, expr: Expr) -> Value:
        """The value of an expression, from an earlier use where there was one."""
        return self._visit(expr)[0]

    def forget(self, buffers: frozenset[str]) -> None:
        """Forgets what was computed from any of these buffers, because they changed."""
        stale = [key for key, (_, _, reads) in self.made.items() if reads & buffers]
        for key in stale:
            del self.made[key]

    def product_sum(self, product: Expr, rest: Value) -> Value | None:
        """`product + rest` with one rounding where `product` is a product of floats."""
        if not (isinstance(product, Binary) and product.op == "mul" and product.dtype.kind == "f"):
            return None
        return self.value(product.a).madd(self.value(product.b), rest)

    def _visit(self, expr: Expr) -> tuple[Value, frozenset[str]]:
        if isinstance(expr, Var):
            try:
                return self.names[expr.name], NONE
            except KeyError:
                raise CompileError(f"the variable {expr.name!r} has no value here") from None
        if isinstance(expr, Const):
            return self.emit.const(expr.value, expr.dtype), NONE
        if isinstance(expr, Size):
            return self.sizes[expr.index], NONE
        found = self.made.get(id(expr))
        if found is None:
            value, reads = _VISITORS[type(expr)](self, expr)
            found = self.made[id(expr)] = (expr, value, reads)
        return found[1], found[2]

    def _unary(self, expr: Unary) -> tuple[Value, frozenset[str]]:
        x, reads = self._visit(expr.x)
        return unary(expr.op, x), reads

    def _binary(self, expr: Binary) -> tuple[Value, frozenset[str]]:
        if expr.dtype.kind == "f" and expr.op in ("add", "sub"):
            fused = self._fused(expr)
            if fused is not None:
                return fused
        if self.compare is not None:
            known = self.compare(expr)
            if known is not None:
                return known, _reads(expr)
        a, reads_a = self._visit(expr.a)
        b, reads_b = self._visit(expr.b)
        return binary(expr.op, a, b), reads_a | reads_b

    def _fused(self, expr: Binary) -> tuple[Value, frozenset[str]] | None:
        """Sums with a product as one fused multiply-add; the left product wins."""
        a, b = expr.a, expr.b
        minus = expr.op == "sub"
        if isinstance(a, Binary) and a.op == "mul":
            (x, reads_x), (y, reads_y), (z, reads_z) = map(self._visit, (a.a, a.b, b))
            return x.madd(y, -z if minus else z), reads_x | reads_y | reads_z
        if isinstance(b, Binary) and b.op == "mul":
            (x, reads_x), (y, reads_y), (z, reads_z) = map(self._visit, (b.a, b.b, a))
            return (-x if minus else x).madd(y, z), reads_x | reads_y | reads_z
        return None

    def _select(self, expr: Select) -> tuple[Value, frozenset[str]]:
        condition, reads_c = self._visit(expr.condition)
        a, reads_a = self._visit(expr.a)
        b, reads_b = self._visit(expr.b)
        return condition.where(a, b), reads_c | reads_a | reads_b

    def _cast(self, expr: Cast) -> tuple[Value, frozenset[str]]:
        x, reads = self._visit(expr.x)
        return cast(x, expr.dtype), reads

    def _load(self, expr: Load) -> tuple[Value, frozenset[str]]:
        return self.load(expr), _reads(expr)

    def _intrinsic(self, expr: Intrinsic) -> tuple[Value, frozenset[str]]:
        visited = [self._visit(argument) for argument in expr.args]
        values = [value for value, _ in visited]
        reads = NONE.union(*(r for _, r in visited))
        if expr.name == "philox":
            return philox(values[0], values[1]), reads
        if expr.name == "check":
            code = expr.args[2]
            if not isinstance(code, Const):
                raise CompileError("the code of a check must be a constant")
            return self.check(values[0], values[1], code.value), reads
        if expr.name == "bitcast":
            source = expr.args[0].dtype
            raw = to_memory(values[0], source)
            return _from_bits(self.emit, raw, expr), reads
        raise CompileError(f"no intrinsic {expr.name!r}")


def _reads(expr: Expr) -> frozenset[str]:
    """The buffers that an expression reads."""
    return frozenset(part.buffer for part in walk(expr) if isinstance(part, Load))


def _from_bits(emit: Emit, raw: Any, expr: Intrinsic) -> Value:
    from_dtype = expr.args[0].dtype
    if from_dtype.bits != expr.dtype.bits or dt.bool_ in (from_dtype, expr.dtype):
        raise CompileError(f"no bitcast from {from_dtype.name} to {expr.dtype.name}")
    from_lanes = getattr(raw.type, "count", 1)
    return from_memory(
        emit, emit.builder.bitcast(raw, memory_type(expr.dtype, from_lanes)), expr.dtype
    )


def render_value(
    builder: Any, expr: Expr, env: Mapping[str, Any], lanes: int, target: Target
) -> Any:
    """An expression over the LLVM values in `env`, as one LLVM value.

    `env` maps each name to a scalar or to `lanes` lanes, of the type that `llvm_type` gives for
    the `Var`'s dtype (float16 and bfloat16 as float32). Buffers and sizes are not in reach.
    """
    emit = Emit(builder, target)
    names: dict[str, Value] = {}
    for part in walk(expr):
        if isinstance(part, Var):
            names[part.name] = emit.value(env[part.name], part.dtype)
    return Expressions(emit, names, [], _no_load, _no_check).value(expr).spread(lanes).raw


def _no_load(expr: Load) -> Value:
    raise CompileError(f"the buffer {expr.buffer!r} is out of reach here")


def _no_check(value: Value, ok: Value, code: int) -> Value:
    raise CompileError("a check is out of reach here")


_VISITORS: dict[type, Callable[[Expressions, Any], tuple[Value, frozenset[str]]]] = {
    Unary: Expressions._unary,
    Binary: Expressions._binary,
    Select: Expressions._select,
    Cast: Expressions._cast,
    Load: Expressions._load,
    Intrinsic: Expressions._intrinsic,
}
