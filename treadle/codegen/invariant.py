"""What a loop computes again and again although it does not change."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.ir.loop import Block, Const, Expr, For, If, Intrinsic, Load, Size, Stmt, Var
from treadle.ir.walk import bound, expressions, operands, walk, written


def invariants(loop: For) -> list[Expr]:
    """The largest expressions in a loop that read memory and are the same in every turn.

    LLVM moves arithmetic out of loops by itself, but not loads: a store in the loop might change
    what they read. Nothing under an `If` counts, because it may never be reached.
    """
    names = bound(loop)
    changes = written(loop.body)
    fixed: dict[int, bool] = {}

    def is_fixed(expr: Expr) -> bool:
        known = fixed.get(id(expr))
        if known is None:
            if isinstance(expr, Var):
                known = expr.name not in names
            else:
                moving = isinstance(expr, Load) and expr.buffer in changes
                fault = isinstance(expr, Intrinsic) and expr.name == "check"
                known = not moving and not fault and all(is_fixed(e) for e in operands(expr))
            fixed[id(expr)] = known
        return known

    found: list[Expr] = []
    seen: set[int] = set()
    stack = list(_certain(loop.body))
    while stack:
        expr = stack.pop()
        if id(expr) in seen or isinstance(expr, (Var, Const, Size)):
            continue
        seen.add(id(expr))
        if not is_fixed(expr):
            stack.extend(operands(expr))
        elif any(isinstance(e, Load) for e in walk(expr)):
            found.append(expr)
    return found


def _certain(stmt: Stmt) -> Iterator[Expr]:
    """The expressions that every turn of the loop evaluates."""
    if isinstance(stmt, Block):
        for inner in stmt.body:
            yield from _certain(inner)
    elif isinstance(stmt, If):
        yield stmt.condition
    elif isinstance(stmt, For):
        # An inner loop may run zero times; its extent is always asked for.
        yield stmt.stop
    else:
        yield from expressions(stmt)
