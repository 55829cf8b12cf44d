"""The grammar of loop nests, checked: what a renderer may take for granted."""

from __future__ import annotations

from typing import Any, Final, NoReturn

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import VerifyError
from treadle.ir.loop import (
    Accumulate,
    Alloc,
    Barrier,
    Binary,
    Block,
    Call,
    Cast,
    Const,
    Expr,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Load,
    Prefetch,
    Select,
    Size,
    Stmt,
    Store,
    Unary,
    Var,
)
from treadle.ir.show import show_expression, show_statement
from treadle.ir.walk import expressions, inside_out, operands

UNARY: Final = frozenset(
    {
        "neg", "abs", "not", "sqrt", "rsqrt", "exp", "exp2", "log", "log2", "log1p", "expm1",
        "sin", "cos", "tan", "tanh", "sigmoid", "erf", "erfc", "erfinv", "lgamma",
        "digamma", "floor", "ceil", "round", "trunc",
        "isnan", "isinf", "isfinite", "sign", "reciprocal",
    }
)  # fmt: skip
BINARY: Final = frozenset(
    {
        "add", "sub", "mul", "div", "floordiv", "mod", "rem", "pow", "max", "min", "atan2",
        "logaddexp", "and", "or", "xor", "shl", "shr", "lt", "le", "gt", "ge", "eq", "ne",
    }
)  # fmt: skip
ACCUMULATE: Final = frozenset({"add", "mul", "max", "min", "logaddexp", "and", "or"})
KINDS: Final = frozenset({"serial", "parallel", "vector", "unroll", "grid", "block"})
SPACES: Final = frozenset({"register", "stack", "scratch"})
MODES: Final = frozenset({"in", "out", "inout"})
LARGEST_STACK: Final = 4096
"""Elements of a `stack` buffer: more belongs into scratch memory."""
DEEPEST: Final = 100
"""Expressions are walked recursively, which Python's stack bounds."""


def verify(kernel: Kernel) -> None:
    """Raises `VerifyError`, with the offending line, where a kernel breaks the grammar."""
    names = [p.name for p in kernel.params]
    if len(set(names)) != len(names):
        raise VerifyError(f"kernel {kernel.name}: two parameters share a name in {names}")
    for p in kernel.params:
        if p.mode not in MODES:
            raise VerifyError(f"kernel {kernel.name}: parameter {p.name} has mode {p.mode!r}")
    _Verifier(kernel).statement(kernel.body, frozenset())


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.buffers: dict[str, tuple[DType, bool]] = {
            p.name: (p.dtype, p.mode != "in") for p in kernel.params
        }
        self.variables: dict[str, DType] = {}
        self.parallel = 0
        self.at: Stmt = kernel.body

    def fail(self, why: str, expr: Expr | None = None) -> NoReturn:
        shown = show_expression(expr) if expr is not None else show_statement(self.at)
        raise VerifyError(f"kernel {self.kernel.name}: {why}, at\n{shown}")

    def statement(self, stmt: Stmt, loops: frozenset[str]) -> None:
        """Checks a statement inside of loops of these kinds."""
        if isinstance(stmt, Block):
            buffers, variables = dict(self.buffers), dict(self.variables)
            for inner in stmt.body:
                self.statement(inner, loops)
            self.buffers, self.variables = buffers, variables
            return
        self.at = stmt
        for expr in expressions(stmt):
            self.expression(expr)
        checker = _STATEMENTS.get(type(stmt))
        if checker is None:
            self.fail(f"{type(stmt).__name__} is no statement")
        checker(self, stmt, loops)

    def _for(self, stmt: For, loops: frozenset[str]) -> None:
        if stmt.kind not in KINDS:
            self.fail(f"no kind of loop is called {stmt.kind!r}")
        self.expect(stmt.stop, dt.int64, "the extent of a loop")
        if stmt.kind == "parallel":
            self.parallel += 1
            if loops or self.parallel > 1:
                self.fail("only one loop is parallel, and it is outermost")
        if stmt.kind == "vector" and "vector" in loops:
            self.fail("a vector loop holds no vector loop")
        if stmt.kind == "unroll" and not isinstance(stmt.stop, Const):
            self.fail("an unrolled loop has a constant extent")
        self.new_variable(stmt.var)
        self.variables[stmt.var] = dt.int64
        buffers = dict(self.buffers)
        self.statement(stmt.body, loops | {stmt.kind})
        self.buffers = buffers
        del self.variables[stmt.var]

    def _if(self, stmt: If, loops: frozenset[str]) -> None:
        self.expect(stmt.condition, dt.bool_, "a condition")
        self.statement(Block((stmt.then,)), loops)
        if stmt.otherwise is not None:
            self.statement(Block((stmt.otherwise,)), loops)

    def _let(self, stmt: Let, loops: frozenset[str]) -> None:
        self.new_variable(stmt.var)
        self.variables[stmt.var] = stmt.value.dtype

    def _alloc(self, stmt: Alloc, loops: frozenset[str]) -> None:
        self.expect(stmt.size, dt.int64, "the size of a buffer")
        if stmt.name in self.buffers:
            self.fail(f"the buffer {stmt.name!r} exists already")
        if stmt.space not in SPACES:
            self.fail(f"no space is called {stmt.space!r}")
        size = stmt.size.value if isinstance(stmt.size, Const) else None
        if stmt.space == "register" and size != 1:
            self.fail("a register holds one element")
        if stmt.space == "stack" and (size is None or not 0 < size <= LARGEST_STACK):
            self.fail(f"a stack buffer has a constant size up to {LARGEST_STACK}")
        self.buffers[stmt.name] = (stmt.dtype, True)

    def _write(self, stmt: Store | Accumulate, loops: frozenset[str]) -> None:
        dtype, writable = self.buffer(stmt.buffer)
        if not writable:
            self.fail(f"{stmt.buffer!r} is an `in` buffer")
        self.expect(stmt.index, dt.int64, "an index")
        self.expect(stmt.value, dtype, f"an element of {stmt.buffer!r}")
        if isinstance(stmt, Accumulate) and stmt.op not in ACCUMULATE:
            self.fail(f"nothing accumulates by {stmt.op!r}")

    def _prefetch(self, stmt: Prefetch, loops: frozenset[str]) -> None:
        self.buffer(stmt.buffer)
        self.expect(stmt.index, dt.int64, "an index")

    def _free(self, stmt: Stmt, loops: frozenset[str]) -> None:
        """A statement of which nothing is asked."""

    def new_variable(self, name: str) -> None:
        """Checks that a name is not taken: a shadowed name would be read wrongly by people."""
        if name in self.variables:
            self.fail(f"the variable {name!r} exists already")

    def buffer(self, name: str) -> tuple[DType, bool]:
        """The dtype of a buffer and whether it may be written."""
        if name not in self.buffers:
            self.fail(f"no buffer is called {name!r} here")
        return self.buffers[name]

    def expect(self, expr: Expr, dtype: DType, what: str) -> None:
        """Checks the dtype of an expression."""
        if expr.dtype is not dtype:
            self.fail(f"{what} must be {dtype.name}, not {expr.dtype.name}", expr)

    def expression(self, root: Expr) -> None:
        """Checks every node of an expression, and how deep they nest."""
        depth: dict[int, int] = {}
        for expr in inside_out(root):
            depth[id(expr)] = 1 + max((depth[id(e)] for e in operands(expr)), default=0)
            if depth[id(expr)] > DEEPEST:
                self.fail(f"an expression nests deeper than {DEEPEST}: bind parts of it by `Let`")
            checker = _EXPRESSIONS.get(type(expr))
            if checker is None:
                self.fail(f"{type(expr).__name__} is no expression")
            checker(self, expr)

    def _var(self, expr: Var) -> None:
        dtype = self.variables.get(expr.name)
        if dtype is None:
            self.fail(f"the variable {expr.name!r} has no value here")
        if dtype is not expr.dtype:
            self.fail(f"the variable {expr.name!r} is {dtype.name}, not {expr.dtype.name}")

    def _size(self, expr: Size) -> None:
        if not 0 <= expr.index < self.kernel.sizes:
            self.fail(f"there are {self.kernel.sizes} sizes, none has number {expr.index}")

    def _load(self, expr: Load) -> None:
        dtype, _ = self.buffer(expr.buffer)
        if dtype is not expr.dtype:
            self.fail(f"{expr.buffer!r} holds {dtype.name}, not {expr.dtype.name}", expr)
        self.expect(expr.index, dt.int64, "an index")

    def _unary(self, expr: Unary) -> None:
        if expr.op not in UNARY:
            self.fail(f"no unary operator is called {expr.op!r}", expr)

    def _binary(self, expr: Binary) -> None:
        if expr.op not in BINARY:
            self.fail(f"no binary operator is called {expr.op!r}", expr)
        if expr.a.dtype is not expr.b.dtype:
            self.fail(f"{expr.op} of {expr.a.dtype.name} and {expr.b.dtype.name}", expr)

    def _select(self, expr: Select) -> None:
        self.expect(expr.condition, dt.bool_, "a condition")
        if expr.a.dtype is not expr.b.dtype:
            self.fail(f"a choice between {expr.a.dtype.name} and {expr.b.dtype.name}", expr)

    def _intrinsic(self, expr: Intrinsic) -> None:
        given = tuple(a.dtype for a in expr.args)
        if expr.name == "philox":
            if given != (dt.int64, dt.int64) or expr.dtype is not dt.uint32:
                self.fail("philox takes two int64 and gives uint32", expr)
        elif expr.name == "check":
            fits = len(given) == 3 and given[1] is dt.bool_ and given[0] is expr.dtype
            code = expr.args[2] if fits else None
            if not isinstance(code, Const) or not code.value > 0:
                self.fail("check takes a value, a bool and a constant code above 0", expr)
        elif expr.name == "bitcast":
            if len(given) != 1 or given[0].bits != expr.dtype.bits:
                self.fail("bitcast takes one value of the same size", expr)
        else:
            self.fail(f"no intrinsic is called {expr.name!r}", expr)

    def _leaf(self, expr: Expr) -> None:
        """An expression of which nothing is asked."""


_STATEMENTS: Final[dict[type, Any]] = {
    For: _Verifier._for,
    If: _Verifier._if,
    Let: _Verifier._let,
    Alloc: _Verifier._alloc,
    Store: _Verifier._write,
    Accumulate: _Verifier._write,
    Prefetch: _Verifier._prefetch,
    Barrier: _Verifier._free,
    Call: _Verifier._free,
}
_EXPRESSIONS: Final[dict[type, Any]] = {
    Var: _Verifier._var,
    Const: _Verifier._leaf,
    Size: _Verifier._size,
    Load: _Verifier._load,
    Unary: _Verifier._unary,
    Binary: _Verifier._binary,
    Select: _Verifier._select,
    Cast: _Verifier._leaf,
    Intrinsic: _Verifier._intrinsic,
}
