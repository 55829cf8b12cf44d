"""The key of a pattern: text that two kernels share if and only if they are the same but for names.

It says what `show` says, in a form that is quick to make: every binding and process asks for it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

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


def pattern_key(pattern: Kernel | Contraction | Attention) -> str:
    """The key of a kernel, contraction or attention."""
    return _Key().pattern(pattern)


class _Key:
    """Names are numbers in the order of their binding; within a statement, an expression that is
    used again is a reference to its line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.names: dict[str, str] = {}
        self.count = 0
        self.made: dict[int, str] = {}

    def pattern(self, pattern: Kernel | Contraction | Attention) -> str:
        if isinstance(pattern, Contraction):
            self._contraction(pattern)
        elif isinstance(pattern, Attention):
            self.lines.append(pattern.text())
        else:
            params = [f"{p.mode} {self._bind(p.name)} {p.dtype.name}" for p in pattern.params]
            self.lines.append(f"kernel {pattern.sizes} {' '.join(params)}")
            self._statement(pattern.body)
        return "\n".join(self.lines)

    def _contraction(self, c: Contraction) -> None:
        # The names of an epilogue's variables have a meaning, so they stay.
        operands = " ".join(map(_operand, (c.a, c.b, *c.extras, *c.out)))
        self.lines.append(
            f"contraction {c.dims} {len(c.extras)} {len(c.out)} {operands} "
            f"{c.accumulator.name} {c.winograd}"
        )
        # Parts that the results have in common are computed once.
        self.lines.append(f"results {' '.join(map(self._expr, c.outputs))}")

    def _bind(self, name: str) -> str:
        shown = self.names[name] = f"_{self.count}"
        self.count += 1
        return shown

    # --- statements ----------------------------------------------------------------------------

    def _statement(self, stmt: Stmt) -> None:
        kind = type(stmt)
        if kind is Block:
            outer = dict(self.names)
            for inner in stmt.body:  # type: ignore[attr-defined]
                self._statement(inner)
            self.names = outer
            # Where a block ends decides where its names do.
            self.lines.append("end")
            return
        self.made = {}
        _STATEMENTS[kind](self, stmt)

    def _for(self, stmt: For) -> None:
        stop = self._expr(stmt.stop)
        outer = dict(self.names)
        self.lines.append(f"{stmt.kind} {self._bind(stmt.var)} {stop}")
        self._statement(stmt.body)
        self.names = outer
        self.lines.append("end")

    def _if(self, stmt: If) -> None:
        self.lines.append(f"if {self._expr(stmt.condition)}")
        self._statement(stmt.then)
        if stmt.otherwise is not None:
            self.lines.append("else")
            self._statement(stmt.otherwise)
        self.lines.append("end")

    def _let(self, stmt: Let) -> None:
        value = self._expr(stmt.value)
        self.lines.append(f"let {self._bind(stmt.var)} {stmt.value.dtype.name} {value}")

    def _alloc(self, stmt: Alloc) -> None:
        size = self._expr(stmt.size)
        self.lines.append(f"{stmt.space} {self._bind(stmt.name)} {stmt.dtype.name} {size}")

    def _store(self, stmt: Store) -> None:
        index, value = self._expr(stmt.index), self._expr(stmt.value)
        kind = "stream" if stmt.streaming else "store"
        self.lines.append(f"{kind} {self._name(stmt.buffer)} {index} {value}")

    def _prefetch(self, stmt: Prefetch) -> None:
        index = self._expr(stmt.index)
        self.lines.append(f"prefetch {self._name(stmt.buffer)} {index}")

    def _accumulate(self, stmt: Accumulate) -> None:
        index, value = self._expr(stmt.index), self._expr(stmt.value)
        self.lines.append(f"{stmt.op}= {self._name(stmt.buffer)} {index} {value}")

    def _call(self, stmt: Call) -> None:
        self.lines.append(f"call {stmt.name} {' '.join(map(self._expr, stmt.args))}")

    def _barrier(self, stmt: Barrier) -> None:
        self.lines.append("barrier")

    # --- expressions ---------------------------------------------------------------------------

    def _name(self, name: str) -> str:
        return self.names.get(name, name)

    def _expr(self, e: Expr) -> str:
        """What stands for an expression: a leaf, or the number of its line."""
        kind = type(e)
        if kind is Var:
            return self.names.get(e.name, e.name)  # type: ignore[attr-defined, return-value]
        if kind is Size:
            return f"${e.index}"  # type: ignore[attr-defined]
        if kind is Const:
            return f"{e.value!r}:{e.dtype.name}"  # type: ignore[attr-defined]
        found = self.made.get(id(e))
        if found is None:
            line = _EXPRESSIONS[kind](self, e)
            found = self.made[id(e)] = f"#{len(self.made)}"
            self.lines.append(line)
        return found

    def _binary(self, e: Binary) -> str:
        return f"{e.op} {self._expr(e.a)} {self._expr(e.b)}"

    def _unary(self, e: Unary) -> str:
        return f"{e.op} {self._expr(e.x)}"

    def _load(self, e: Load) -> str:
        return f"load {self.names.get(e.buffer, e.buffer)} {self._expr(e.index)} {e.dtype.name}"

    def _cast(self, e: Cast) -> str:
        return f"cast {self._expr(e.x)} {e.dtype.name}"

    def _select(self, e: Select) -> str:
        return f"select {self._expr(e.condition)} {self._expr(e.a)} {self._expr(e.b)}"

    def _intrinsic(self, e: Intrinsic) -> str:
        return f"{e.name} {' '.join(map(self._expr, e.args))} {e.dtype.name}"


def _operand(o: Operand) -> str:
    return f"{o.dtype.name}/{o.unit or '-'}"


_STATEMENTS: Final[dict[type, Callable[[_Key, Any], None]]] = {
    For: _Key._for, If: _Key._if, Let: _Key._let, Alloc: _Key._alloc, Store: _Key._store,
    Accumulate: _Key._accumulate, Prefetch: _Key._prefetch, Call: _Key._call,
    Barrier: _Key._barrier,
}  # fmt: skip
_EXPRESSIONS: Final[dict[type, Callable[[_Key, Any], str]]] = {
    Binary: _Key._binary, Unary: _Key._unary, Load: _Key._load, Cast: _Key._cast,
    Select: _Key._select, Intrinsic: _Key._intrinsic,
}  # fmt: skip
