"""Loop nests and contractions as text, for people.

    kernel scale(in x: float32, out y: float32), 1 size
        parallel t in 0..$0
            y[t] = x[t] * 2.0:float32

`$0` is the launch's size number 0, `%0` a sub-expression that a statement uses more than once, and
a constant that is no int64 carries its dtype.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from treadle.base import dtype as dt
from treadle.ir.attention import Attention
from treadle.ir.contraction import Contraction, Operand
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
from treadle.ir.walk import expressions, inside_out, operands, walk

_INFIX: Final = {
    "add": "+", "sub": "-", "mul": "*", "div": "/", "floordiv": "//", "mod": "%",
    "and": "&", "or": "|", "xor": "^", "shl": "<<", "shr": ">>",
    "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!=",
}  # fmt: skip


def show(pattern: Kernel | Contraction | Attention) -> str:
    """A pattern as indented text, under its own names."""
    return _Text().pattern(pattern)


def show_statement(stmt: Stmt) -> str:
    """One statement with what is inside of it."""
    text = _Text()
    text.statement(stmt, 0)
    return "\n".join(text.lines)


def show_expression(expr: Expr) -> str:
    """One expression, shared parts written out where they first occur."""
    text = _Text()
    text.statement(Let("_", expr), 0)
    return "\n".join(text.lines)


class _Text:
    def __init__(self) -> None:
        self.lines: list[str] = []
        self.shared: dict[int, str] = {}

    def pattern(self, pattern: Kernel | Contraction | Attention) -> str:
        if isinstance(pattern, Contraction):
            self._contraction(pattern)
        elif isinstance(pattern, Attention):
            self.lines.append(pattern.text())
        else:
            self._kernel(pattern)
        return "\n".join(self.lines) + "\n"

    def _kernel(self, kernel: Kernel) -> None:
        params = ", ".join(f"{p.mode} {p.name}: {p.dtype.name}" for p in kernel.params)
        self.lines.append(
            f"kernel {kernel.name}({params}), {kernel.sizes} size{'s' * (kernel.sizes != 1)}"
        )
        self.statement(kernel.body, 1)

    def _contraction(self, c: Contraction) -> None:
        def operand(o: Operand) -> str:
            return f"{o.dtype.name}/{o.unit or '-'}"

        extras = " ".join(operand(o) for o in c.extras) or "none"
        self.lines.append(
            f"contraction {c.name} dims {c.dims} a {operand(c.a)} b {operand(c.b)} extras {extras} "
            f"accumulator {c.accumulator.name}{f' winograd {c.winograd}' * bool(c.winograd)}"
        )
        for out, value in zip(c.out, c.outputs, strict=True):
            self.lines.append(f"    out {operand(out)}")
            self.statement(Let("value", value), 1)

    def statement(self, stmt: Stmt, depth: int) -> None:
        if isinstance(stmt, Block):
            for inner in stmt.body:
                self.statement(inner, depth)
            return
        self._share(stmt, depth)
        if isinstance(stmt, For):
            self._loop(stmt, depth)
        elif isinstance(stmt, If):
            self._line(depth, f"if {self.expr(stmt.condition)}")
            self.statement(stmt.then, depth + 1)
            if stmt.otherwise is not None:
                self._line(depth, "else")
                self.statement(stmt.otherwise, depth + 1)
        else:
            self._line(depth, self._simple(stmt))

    def _loop(self, stmt: For, depth: int) -> None:
        stop = self.expr(stmt.stop)
        self._line(depth, f"{stmt.kind} {stmt.var} in 0..{stop}")
        self.statement(stmt.body, depth + 1)

    def _simple(self, stmt: Stmt) -> str:
        if isinstance(stmt, Let):
            value = self.expr(stmt.value)
            return f"let {stmt.var}: {stmt.value.dtype.name} = {value}"
        if isinstance(stmt, Alloc):
            size = self.expr(stmt.size)
            return f"{stmt.space} {stmt.name}: {stmt.dtype.name}[{size}]"
        if isinstance(stmt, Store):
            past = " streaming" * stmt.streaming
            return f"{stmt.buffer}[{self.expr(stmt.index)}] ={past} {self.expr(stmt.value)}"
        if isinstance(stmt, Accumulate):
            into = f"{stmt.buffer}[{self.expr(stmt.index)}]"
            return f"{into} {stmt.op}= {self.expr(stmt.value)}"
        if isinstance(stmt, Prefetch):
            return f"prefetch {stmt.buffer}[{self.expr(stmt.index)}]"
        if isinstance(stmt, Call):
            return f"call {stmt.name}({', '.join(map(self.expr, stmt.args))})"
        return "barrier" if isinstance(stmt, Barrier) else f"unknown {type(stmt).__name__}"

    def _line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text)

    def _share(self, stmt: Stmt, depth: int) -> None:
        """Gives every sub-expression with several uses a line of its own."""
        roots = expressions(stmt)
        uses = Counter(id(e) for e in roots)
        for expr in walk(*roots):
            uses.update(id(e) for e in operands(expr))
        self.shared = {}
        for expr in inside_out(*roots):
            if uses[id(expr)] > 1 and operands(expr):
                text = self.expr(expr)
                self._line(depth, f"%{len(self.shared)} = {text}")
                self.shared[id(expr)] = f"%{len(self.shared)}"

    def expr(self, expr: Expr) -> str:
        """An expression on one line."""
        found = self.shared.get(id(expr))
        if found is not None:
            return found
        if isinstance(expr, Var):
            return expr.name
        if isinstance(expr, Const):
            plain = expr.dtype is dt.int64
            return f"{int(expr.value)}" if plain else f"{expr.value!r}:{expr.dtype.name}"
        if isinstance(expr, Size):
            return f"${expr.index}"
        if isinstance(expr, Load):
            return f"{expr.buffer}[{self.expr(expr.index)}]"
        if isinstance(expr, Binary) and expr.op in _INFIX:
            return f"({self.expr(expr.a)} {_INFIX[expr.op]} {self.expr(expr.b)})"
        inside = ", ".join(self.expr(e) for e in operands(expr))
        if isinstance(expr, (Unary, Binary)):
            return f"{expr.op}({inside})"
        if isinstance(expr, Select):
            return f"select({inside})"
        if isinstance(expr, Cast):
            return f"{expr.dtype.name}({inside})"
        if isinstance(expr, Intrinsic):
            return f"{expr.name}.{expr.dtype.name}({inside})"
        return f"unknown {type(expr).__name__}"
