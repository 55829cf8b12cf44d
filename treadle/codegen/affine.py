"""How an index moves from one lane to the next."""

from __future__ import annotations

from collections.abc import Mapping, Set

from treadle.ir.loop import Binary, Cast, Const, Expr, Load, Unary, Var
from treadle.ir.walk import operands

Stride = int | Expr | None
"""A constant step, a step known at run time, or no constant step at all."""


class Strides:
    """The step of expressions when one loop variable goes up by one.

    `lets` are the bindings inside of the loop, seen through; `rows` the buffers that hold one
    value per lane.
    """

    def __init__(self, var: str, lets: Mapping[str, Expr], rows: Set[str]) -> None:
        self.var = var
        self.lets = lets
        self.rows = rows
        # The expression is kept so that its identity stays taken.
        self._known: dict[int, tuple[Expr, Stride]] = {}

    def of(self, expr: Expr) -> Stride:
        """The step of an expression: 0 where it is the same in every lane."""
        if isinstance(expr, Var):
            if expr.name == self.var:
                return 1
            inner = self.lets.get(expr.name)
            return 0 if inner is None else self.of(inner)
        found = self._known.get(id(expr))
        if found is None:
            found = self._known[id(expr)] = (expr, self._find(expr))
        return found[1]

    def uniform(self, expr: Expr) -> bool:
        """Whether an expression has one value for all lanes."""
        return self.of(expr) == 0

    def _find(self, expr: Expr) -> Stride:
        if isinstance(expr, Load) and expr.buffer in self.rows:
            return None
        steps = [self.of(e) for e in operands(expr)]
        if all(s == 0 for s in steps):
            return 0
        if isinstance(expr, Binary) and expr.dtype.name == "int64":
            return self._binary(expr, steps[0], steps[1])
        if isinstance(expr, Unary) and expr.op == "neg" and expr.dtype.name == "int64":
            return _negated(steps[0])
        if isinstance(expr, Cast) and expr.dtype is expr.x.dtype:
            return steps[0]
        return None

    def _binary(self, expr: Binary, a: Stride, b: Stride) -> Stride:
        if a is None or b is None:
            return None
        if expr.op == "add":
            return _sum(a, b)
        if expr.op == "sub":
            return _sum(a, _negated(b))
        if expr.op == "mul" and (a == 0 or b == 0):
            return _scaled(a, expr.b) if b == 0 else _scaled(b, expr.a)
        return None


def _sum(a: Stride, b: Stride) -> Stride:
    if a is None or b is None:
        return None
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if isinstance(a, int) and a == 0:
        return b
    if isinstance(b, int) and b == 0:
        return a
    return Binary("add", _expr(a), _expr(b))


def _negated(a: Stride) -> Stride:
    if a is None or isinstance(a, int):
        return None if a is None else -a
    return Unary("neg", a)


def _scaled(a: Stride, factor: Expr) -> Stride:
    if isinstance(a, int) and isinstance(factor, Const):
        return a * int(factor.value)
    if isinstance(a, int) and a == 1:
        return factor
    return None if a is None else Binary("mul", _expr(a), factor)


def _expr(a: int | Expr) -> Expr:
    return Const(a) if isinstance(a, int) else a
