"""Questions about loop nests: what an expression is made of, what a statement writes."""

from __future__ import annotations

from collections.abc import Iterator

from treadle.ir.loop import (
    Accumulate,
    Alloc,
    Binary,
    Block,
    Call,
    Cast,
    Expr,
    For,
    If,
    Intrinsic,
    Let,
    Load,
    Prefetch,
    Select,
    Stmt,
    Store,
    Unary,
)


def operands(expr: Expr) -> tuple[Expr, ...]:
    """The expressions directly below an expression."""
    if isinstance(expr, Binary):
        return (expr.a, expr.b)
    if isinstance(expr, (Unary, Cast)):
        return (expr.x,)
    if isinstance(expr, Load):
        return (expr.index,)
    if isinstance(expr, Select):
        return (expr.condition, expr.a, expr.b)
    return expr.args if isinstance(expr, Intrinsic) else ()


def walk(*roots: Expr) -> Iterator[Expr]:
    """Every node of the expressions once, in no order that means anything."""
    seen: set[int] = set()
    stack = list(roots)
    while stack:
        expr = stack.pop()
        if id(expr) not in seen:
            seen.add(id(expr))
            yield expr
            stack.extend(operands(expr))


def inside_out(*roots: Expr) -> list[Expr]:
    """Every node of the expressions once, operands before those that use them."""
    order: list[Expr] = []
    done: set[int] = set()
    stack: list[tuple[Expr, bool]] = [(e, False) for e in reversed(roots)]
    while stack:
        expr, ready = stack.pop()
        if id(expr) in done:
            continue
        if ready:
            done.add(id(expr))
            order.append(expr)
        else:
            stack.append((expr, True))
            stack.extend((e, False) for e in reversed(operands(expr)))
    return order


def statements(stmt: Stmt) -> Iterator[Stmt]:
    """A statement and all statements inside of it, in order."""
    yield stmt
    if isinstance(stmt, Block):
        for inner in stmt.body:
            yield from statements(inner)
    elif isinstance(stmt, For):
        yield from statements(stmt.body)
    elif isinstance(stmt, If):
        yield from statements(stmt.then)
        if stmt.otherwise is not None:
            yield from statements(stmt.otherwise)


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions that stand directly in a statement, not those of its inner statements."""
    if isinstance(stmt, (Store, Accumulate)):
        return (stmt.index, stmt.value)
    if isinstance(stmt, Let):
        return (stmt.value,)
    if isinstance(stmt, Prefetch):
        return (stmt.index,)
    if isinstance(stmt, For):
        return (stmt.stop,)
    if isinstance(stmt, If):
        return (stmt.condition,)
    if isinstance(stmt, Alloc):
        return (stmt.size,)
    return stmt.args if isinstance(stmt, Call) else ()


def written(stmt: Stmt) -> frozenset[str]:
    """The buffers that a statement writes, those that it allocates included."""
    found: set[str] = set()
    for inner in statements(stmt):
        if isinstance(inner, (Store, Accumulate)):
            found.add(inner.buffer)
        elif isinstance(inner, Alloc):
            found.add(inner.name)
    return frozenset(found)


def bound(stmt: Stmt) -> frozenset[str]:
    """The variables that a statement binds: loop variables and `Let`s inside of it."""
    return frozenset(s.var for s in statements(stmt) if isinstance(s, (For, Let)))
