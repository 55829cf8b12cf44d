"""Whether and how a vector loop is done in lanes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen import vector_math
from treadle.codegen.affine import Strides
from treadle.codegen.target import Target
from treadle.codegen.value import carried
from treadle.ir.loop import (
    Accumulate,
    Alloc,
    Binary,
    Block,
    Cast,
    Const,
    Expr,
    For,
    If,
    Let,
    Load,
    Prefetch,
    Stmt,
    Store,
    Unary,
)
from treadle.ir.walk import expressions, statements, walk, written

_COSTLY = frozenset((*vector_math.UNARY, "pow", "atan2", "logaddexp", "div", "sqrt", "rsqrt"))

_COUNTERS = {1: dt.int8, 2: dt.int16, 4: dt.int32, 8: dt.int64}


@dataclass(frozen=True)
class LanePlan:
    """A vector loop in lanes.

    `width` lanes fill one register of the widest type; the main loop does `width * unroll` at
    once; what is left is done `width` lanes at a time under a mask, or one by one. `reductions`
    are the loop's `Accumulate`s whose destination is one element, `scans` those whose element the
    loop goes on to read. `counter` is the integer type as wide as a lane.
    """

    width: int
    unroll: int
    masked: bool
    reductions: tuple[Accumulate, ...]
    scans: tuple[Accumulate, ...]
    counter: DType


def plan_lanes(loop: For, target: Target) -> LanePlan | None:
    """The plan of a vector loop, or `None` where it must run element by element."""
    lets = {s.var: s.value for s in statements(loop.body) if isinstance(s, Let)}
    rows = {s.name for s in statements(loop.body) if isinstance(s, Alloc)}
    scans = _scans(loop.body)
    rows |= {s.buffer for s in scans}
    strides = Strides(loop.var, lets, rows)
    if not _fits(loop.body, strides):
        return None
    reductions = tuple(
        s
        for s in statements(loop.body)
        if isinstance(s, Accumulate) and s.buffer not in rows and strides.uniform(s.index)
    )
    if _reads_a_sum(loop.body, {s.buffer for s in reductions}):
        return None
    itemsize = _itemsize(loop.body, strides)
    width = target.lanes(itemsize)
    masked = _maskable(loop.body, strides, target)
    unroll = _unroll(loop.body, bool(reductions or scans))
    # A row of more than 64 lanes costs more to compile than it gains.
    while width * unroll > 64 and unroll > 1:
        unroll //= 2
    return LanePlan(width, unroll, masked, reductions, scans, _COUNTERS[itemsize])


def _scans(body: Stmt) -> tuple[Accumulate, ...]:
    """Accumulations of one element of which every turn of the loop reads what it is by then."""
    found: list[Accumulate] = []
    steps = body.body if isinstance(body, Block) else (body,)
    for i, step in enumerate(steps):
        if isinstance(step, Accumulate) and _is_first(step.index):
            before = {load.buffer for s in steps[: i + 1] for load in _loads(s)}
            after = [load for s in steps[i + 1 :] for load in _loads(s)]
            read = [load for load in after if load.buffer == step.buffer]
            elsewhere = [*steps[:i], *steps[i + 1 :]]
            once = all(step.buffer not in written(s) for s in elsewhere)
            plain = all(_is_first(load.index) for load in read)
            if read and plain and once and step.buffer not in before:
                found.append(step)
    return tuple(found)


def _is_first(index: Expr) -> bool:
    return isinstance(index, Const) and index.value == 0


def _fits(stmt: Stmt, strides: Strides) -> bool:
    """Whether every statement has a meaning for all lanes at once."""
    if isinstance(stmt, Block):
        return all(_fits(inner, strides) for inner in stmt.body)
    if isinstance(stmt, For):
        alike = stmt.kind in ("serial", "unroll") and strides.uniform(stmt.stop)
        return alike and _fits(stmt.body, strides)
    if isinstance(stmt, If):
        branches = [stmt.then] + ([stmt.otherwise] if stmt.otherwise is not None else [])
        return strides.uniform(stmt.condition) and all(_fits(b, strides) for b in branches)
    if isinstance(stmt, Store):
        # Many lanes writing one element would need an order.
        return (stmt.buffer in strides.rows) == strides.uniform(stmt.index)
    if isinstance(stmt, Alloc):
        return stmt.space in ("register", "stack")
    return isinstance(stmt, (Let, Accumulate, Prefetch))


def _loads(body: Stmt) -> Iterable[Load]:
    roots = [e for s in statements(body) for e in expressions(s)]
    return [e for e in walk(*roots) if isinstance(e, Load)]


def _reads_a_sum(body: Stmt, sums: set[str]) -> bool:
    """Whether the loop uses what it is still adding up, or adds to one buffer in two ways."""
    others = {s.buffer for s in statements(body) if isinstance(s, Store)}
    return bool(sums & others) or any(load.buffer in sums for load in _loads(body))


def _itemsize(body: Stmt, strides: Strides) -> int:
    """The size of the widest numbers in the loop, indices aside."""
    sizes = {1}
    for stmt in statements(body):
        if isinstance(stmt, (Store, Accumulate)):
            sizes.add(carried(stmt.value.dtype).itemsize)
        values = [e for e in expressions(stmt) if e is not getattr(stmt, "index", None)]
        for expr in _outside_indices(values):
            if strides.uniform(expr):
                continue
            if isinstance(expr, Load) or (isinstance(expr, Cast) and expr.dtype is not dt.int64):
                sizes.add(carried(expr.dtype).itemsize)
    return max(sizes)


def _outside_indices(roots: list[Expr]) -> Iterable[Expr]:
    indices = {id(e.index) for e in walk(*roots) if isinstance(e, Load)}
    return [e for e in walk(*roots) if id(e) not in indices]


def _maskable(body: Stmt, strides: Strides, target: Target) -> bool:
    """Whether the rest can be done in lanes: masked accesses exist and no lane's write collides."""
    for stmt in statements(body):
        if isinstance(stmt, (Store, Accumulate)) and stmt.buffer not in strides.rows:
            step = strides.of(stmt.index)
            if step == 0:
                continue
            if step != 1 or not target.masked(stmt.value.dtype.itemsize):
                return False
    return all(
        strides.of(load.index) != 1 or target.masked(load.dtype.itemsize)
        for load in _loads(body)
        if load.buffer not in strides.rows
    )


def _unroll(body: Stmt, reduces: bool) -> int:
    """How many registers of each value: enough independent work, not so much code."""
    cost = 0
    computing = [s for s in statements(body) if not isinstance(s, Prefetch)]
    roots = [e for s in computing for e in expressions(s)]
    for expr in walk(*roots):
        if isinstance(expr, (Unary, Binary)):
            cost += 12 if expr.op in _COSTLY and expr.dtype.kind == "f" else 1
    if reduces:
        return 4 if cost <= 30 else 2 if cost <= 80 else 1
    return 4 if cost <= 8 else 2 if cost <= 80 else 1
