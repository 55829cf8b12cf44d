"""Vector loops: a row of neighbouring turns at once, in lanes.

A loop over `0 .. stop-1` becomes a main loop over full rows of `width * unroll` lanes and a rest:
`width` lanes at a time under a mask where the target has masked loads, else one by one. Lanes and
single elements run the same operations in the same order, so an element's bits do not depend on
where in the loop it falls.

A reduction keeps one partial result per lane; they are combined in halves, always in the same
order, and then with the destination. So its bits depend on the extent and the target alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.affine import Stride, Strides
from treadle.codegen.convert import cast
from treadle.codegen.expressions import Expressions
from treadle.codegen.lane_plan import LanePlan, plan_lanes
from treadle.codegen.memory import Buffer, local
from treadle.codegen.operators import binary
from treadle.codegen.streaming import stream_start
from treadle.codegen.value import Value, concatenate
from treadle.ir.loop import COMPARISONS, Accumulate, Alloc, Binary, Expr, For, Let, Load, Store
from treadle.ir.walk import statements, written

if TYPE_CHECKING:
    from treadle.codegen.render import Renderer


_MIRRORED: Final = {"lt": "gt", "le": "ge", "gt": "lt", "ge": "le", "eq": "eq", "ne": "ne"}


class Row:
    """The lanes being made: `var` is `first`, `first + 1`, ... in them.

    Under a `mask` the lanes that are off repeat the last turn of the loop, so that whatever they
    address exists.
    """

    def __init__(
        self,
        r: Renderer,
        loop: For,
        plan: LanePlan,
        first: Value,
        lanes: int,
        left: Value | None,
        sums: dict[Accumulate, Buffer],
        streaming: int = 0,
    ) -> None:
        self.lanes = lanes
        self.streaming = streaming
        self.mask: Value | None = None
        self.sums = sums
        self.width = plan.width
        self.scans = plan.scans
        self.scanned: dict[str, Value] = {}
        self.lets: dict[str, Expr] = {}
        per_lane = {s.name for s in statements(loop.body) if isinstance(s, Alloc)}
        per_lane |= {s.buffer for s in plan.scans}
        self.strides = Strides(loop.var, self.lets, per_lane)
        outer = r.expressions
        # The same expressions as they are in lane 0: addresses of whole rows are made from them.
        self.scalar = Expressions(r.emit, dict(outer.names), outer.sizes, r.load, r.check)
        self.scalar.made = dict(outer.made)
        self.scalar.names[loop.var] = first
        step = r.emit.iota(dt.int64, lanes)
        # Numbers of lanes, as wide as the lanes themselves: these compare in one instruction.
        self.turns = r.emit.iota(plan.counter, lanes)
        if left is not None:
            last = left - 1
            self.mask = self.turns < cast(left, plan.counter)
            self.turns = self.mask.where(self.turns, cast(last, plan.counter))
            step = (step < left).where(step, last)
        outer.names[loop.var] = first + step

    def compare(self, expr: Binary) -> Value | None:
        """A comparison of an index that goes up by one with something that stays.

        Both are moved to lane 0, where small numbers do: `first + k < x` is `k < x - first`.
        """
        if expr.op not in COMPARISONS or expr.a.dtype is not dt.int64:
            return None
        steps = self.strides.of(expr.a), self.strides.of(expr.b)
        if steps not in ((1, 0), (0, 1)):
            return None
        moving, fixed = (expr.a, expr.b) if steps == (1, 0) else (expr.b, expr.a)
        first, other = self.scalar.value(moving), self.scalar.value(fixed)
        emit = first.emit
        raw = emit.intrinsic("ssub.sat", first.raw.type, other.raw, first.raw)
        distance = Value(emit, raw, dt.int64)
        distance = (distance < -1).where(-1, distance)
        distance = (distance > self.lanes).where(self.lanes, distance)
        op = expr.op if steps == (1, 0) else _MIRRORED[expr.op]
        return self.turns.compare(op, cast(distance, self.turns.dtype))

    def let(self, r: Renderer, stmt: Let) -> None:
        """Notes a binding inside of the loop."""
        self.lets[stmt.var] = stmt.value
        if self.strides.of(stmt.value) is None:
            self.scalar.names[stmt.var] = r.expressions.names[stmt.var].lane(0)
        else:
            self.scalar.names[stmt.var] = self.scalar.value(stmt.value)

    def load(self, r: Renderer, buffer: Buffer, expr: Load) -> Value:
        """The elements that the lanes read: one, a row of neighbours, or each its own."""
        step = self.strides.of(expr.index)
        if step == 0:
            return buffer.load(r.emit, self.scalar.value(expr.index))
        if step == 1:
            index = self.scalar.value(expr.index)
            return buffer.load_row(r.emit, index, self.lanes, self.mask)
        if step == -1 and self.mask is None:
            index = self.scalar.value(expr.index) - (self.lanes - 1)
            return buffer.load_row(r.emit, index, self.lanes).reverse()
        return buffer.gather(r.emit, self.indices(r, expr.index, step))

    def indices(self, r: Renderer, index: Expr, step: Stride) -> list[Value]:
        """Every lane's own index."""
        if step is None or self.mask is not None:
            row = r.value(index)
            return [row.lane(i) for i in range(self.lanes)]
        start = self.scalar.value(index)
        if isinstance(step, int):
            return [start + i * step for i in range(self.lanes)]
        size = self.scalar.value(step)
        return [start + size * i for i in range(self.lanes)]

    def store(self, r: Renderer, buffer: Buffer, stmt: Store, value: Value) -> None:
        """Writes one element per lane."""
        value, index = value.spread(self.lanes), stmt.index
        step = self.strides.of(index)
        if step == 1 and self.streaming and stmt.streaming:
            buffer.stream_row(r.emit, self.scalar.value(index), value, self.streaming)
        elif step == 1:
            buffer.store_row(r.emit, self.scalar.value(index), value, self.mask)
        elif step == -1:
            start = self.scalar.value(index) - (self.lanes - 1)
            buffer.store_row(r.emit, start, value.reverse())
        else:
            buffer.scatter(r.emit, self.indices(r, index, step), value)

    def prefetch(self, r: Renderer, buffer: Buffer, index: Expr) -> None:
        """Asks for the lines of memory of full rows; what is left of a row is not worth it."""
        if self.mask is None and self.strides.of(index) == 1:
            buffer.prefetch(r.emit, self.scalar.value(index), self.lanes)

    def accumulate(self, r: Renderer, buffer: Buffer, stmt: Accumulate) -> None:
        """Adds up into one element per lane; lanes that may meet go one after the other."""
        step = self.strides.of(stmt.index)
        if step == 1:
            index = self.scalar.value(stmt.index)
            old = buffer.load_row(r.emit, index, self.lanes, self.mask)
            new = r.combined(stmt, old).spread(self.lanes)
            buffer.store_row(r.emit, index, new, self.mask)
            return
        value = r.value(stmt.value).spread(self.lanes)
        for i, index in enumerate(self.indices(r, stmt.index, step)):
            new = binary(stmt.op, buffer.load(r.emit, index), value.lane(i))
            buffer.store(r.emit, index, new)

    def reduce(self, r: Renderer, stmt: Accumulate) -> None:
        """Adds up into the lanes' partial results."""
        partial = self.sums[stmt]
        old = partial.load(r.emit, r.zero)
        new = r.combined(stmt, old).spread(self.lanes)
        if self.mask is not None:
            new = self.mask.where(new, old)
        partial.store(r.emit, r.zero, new)

    def scan(self, r: Renderer, buffer: Buffer, stmt: Accumulate) -> None:
        """Every lane's running result, and the last one in the destination."""
        value = r.value(stmt.value).spread(self.lanes)
        if self.mask is not None:
            # Lanes that are off keep the result of the last that is on.
            value = self.mask.where(value, neutral_element(stmt.op, value.dtype))
        start = buffer.load(r.emit, r.zero)
        parts: list[Value] = []
        before: Value | None = None
        for first in range(0, self.lanes, self.width):
            part = _running(value.part(first, self.width), stmt.op)
            last = part.every(self.width - 1)
            parts.append(part if before is None else binary(stmt.op, before, part))
            before = last if before is None else binary(stmt.op, before, last)
        assert before is not None
        # One operation leads from row to row: all else can be done ahead.
        self.scanned[stmt.buffer] = binary(stmt.op, start.spread(self.lanes), concatenate(parts))
        buffer.store(r.emit, r.zero, binary(stmt.op, start, before.lane(0)))


def _running(value: Value, op: str) -> Value:
    """Each lane combined with all lanes before it, in a logarithmic number of steps."""
    neutral = value.like(neutral_element(op, value.dtype))
    step = 1
    while step < value.lanes:
        value = binary(op, value.moved_up(step, neutral), value)
        step *= 2
    return value


def vector_loop(r: Renderer, loop: For) -> None:
    """Makes a vector loop, in lanes where that is possible."""
    plan = plan_lanes(loop, r.target)
    if plan is None:
        r.loop(loop, r.zero, r.value(loop.stop))
        return
    changes = written(loop.body)
    stop = r.value(loop.stop)
    lanes = plan.width * plan.unroll
    with r.builder.if_then((stop > 0).raw), r.region(changes):
        r.hoist(loop)
        full = stop & -lanes if lanes > 1 else stop
        masked = plan.masked and plan.width > 1
        narrow = _partials(r, plan.reductions, plan.width) if masked else {}
        with r.builder.if_then((full > 0).raw), r.region():
            sums = _partials(r, plan.reductions, lanes)
            _full_rows(r, loop, plan, full, sums)
            if masked:
                _narrow(r, sums, narrow, plan.width)
            else:
                _combine(r, sums)
        if masked:
            _masked_rest(r, loop, plan, full, stop, narrow)
        elif lanes > 1:
            r.loop(loop, full, stop)
    r.forget(changes)


def _full_rows(
    r: Renderer, loop: For, plan: LanePlan, full: Value, sums: dict[Accumulate, Buffer]
) -> None:
    """The full rows: past the caches where the loop writes to whole registers of memory."""
    lanes = plan.width * plan.unroll

    def rows(streaming: int) -> None:
        with r.counting(r.zero, full, lanes) as first:
            _row(r, loop, plan, first, lanes, None, sums, streaming)

    aligned = stream_start(r, loop, plan)
    if aligned is None:
        rows(0)
        return
    with r.builder.if_else(aligned.raw) as (then, otherwise):
        with then, r.region():
            rows(r.target.vector_bits // 8)
            r.streams = True
        with otherwise, r.region():
            rows(0)


def _masked_rest(
    r: Renderer,
    loop: For,
    plan: LanePlan,
    full: Value,
    stop: Value,
    sums: dict[Accumulate, Buffer],
) -> None:
    """What is left after the full rows, in rows of `width` lanes, the last one under a mask."""
    with (
        r.builder.if_then((full < stop).raw),
        r.counting(full, stop, plan.width) as first,
    ):
        rest = stop - first
        left = (rest < plan.width).where(rest, plan.width)
        _row(r, loop, plan, first, plan.width, left, sums)
    _combine(r, sums)


def _narrow(
    r: Renderer,
    wide: dict[Accumulate, Buffer],
    narrow: dict[Accumulate, Buffer],
    lanes: int,
) -> None:
    """Brings the partial results of the full rows down to the lanes of the rest."""
    for stmt, buffer in wide.items():
        narrow[stmt].store(r.emit, r.zero, _fold(buffer.load(r.emit, r.zero), stmt.op, lanes))


def _row(
    r: Renderer,
    loop: For,
    plan: LanePlan,
    first: Value,
    lanes: int,
    left: Value | None,
    sums: dict[Accumulate, Buffer],
    streaming: int = 0,
) -> None:
    with r.region():
        r.row = Row(r, loop, plan, first, lanes, left, sums, streaming)
        r.statement(loop.body)
        r.row = None


def _partials(
    r: Renderer, reductions: tuple[Accumulate, ...], lanes: int
) -> dict[Accumulate, Buffer]:
    """Partial results, one per lane, that change nothing yet."""
    made: dict[Accumulate, Buffer] = {}
    for stmt in reductions:
        dtype = r.buffer(stmt.buffer).dtype
        made[stmt] = local(r.emit, r.locals, dtype, 1, lanes)
        neutral = r.emit.const(neutral_element(stmt.op, dtype), dtype, lanes)
        made[stmt].store(r.emit, r.zero, neutral)
    return made


def _combine(r: Renderer, sums: dict[Accumulate, Buffer]) -> None:
    """Brings the partial results together and into their destinations."""
    for stmt, partial in sums.items():
        total = _fold(partial.load(r.emit, r.zero), stmt.op, 1)
        buffer, index = r.buffer(stmt.buffer), r.value(stmt.index)
        buffer.store(r.emit, index, binary(stmt.op, buffer.load(r.emit, index), total))
        r.forget(frozenset((stmt.buffer,)))


def _fold(value: Value, op: str, lanes: int) -> Value:
    """Combines the upper half of the lanes with the lower until `lanes` are left."""
    while value.lanes > lanes:
        half = value.lanes // 2
        value = binary(op, value.part(0, half), value.part(half, half))
    return value


def neutral_element(op: str, dtype: DType) -> int | float:
    """The number that changes nothing under `op`."""
    if op == "add":
        return -0.0 if dtype.kind == "f" else 0
    if op == "mul":
        return 1
    if op == "logaddexp":
        return float("-inf")
    if op in ("and", "or"):
        return (-1 if dtype is not dt.bool_ else 1) if op == "and" else 0
    if dtype.kind == "f":
        return float("-inf") if op == "max" else float("inf")
    signed = dtype.kind == "i"
    bits = 1 if dtype is dt.bool_ else dtype.bits
    least, most = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return least if op == "max" else most
