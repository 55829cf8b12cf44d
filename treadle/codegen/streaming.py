"""Stores past the caches: where a loop may use them, and what makes them visible.

A plain store to a line that is in no cache reads the line first, and writes it back later; a
streaming one just writes. It needs whole registers at their alignment, and few streams at a time,
since the processor collects lines in few buffers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from treadle.base import dtype as dt
from treadle.codegen.affine import Strides
from treadle.codegen.expressions import Expressions
from treadle.codegen.lane_plan import LanePlan
from treadle.codegen.value import Emit, Value, ir
from treadle.ir.loop import For, Let, Store, Var
from treadle.ir.walk import statements, walk

if TYPE_CHECKING:
    from treadle.codegen.render import Renderer

MOST: Final = 2
"""Streams of one loop."""


def stream_start(r: Renderer, loop: For, plan: LanePlan) -> Value | None:
    """Whether all that a loop would stream begins at a multiple of a register, as a value of the
    code made; `None` where it streams nothing."""
    found = [s for s in statements(loop.body) if isinstance(s, Store) and s.streaming]
    strides = Strides(loop.var, {}, frozenset())
    bound = {s.var for s in statements(loop.body) if isinstance(s, Let)}
    size = r.target.vector_bits // 8
    for stmt in found:
        whole = plan.width * r.buffer(stmt.buffer).dtype.itemsize == size
        plain = not any(isinstance(e, Var) and e.name in bound for e in walk(stmt.index))
        if not (whole and plain and strides.of(stmt.index) == 1):
            return None
    if not 0 < len(found) <= MOST:
        return None
    outer = r.expressions
    start = Expressions(r.emit, dict(outer.names), outer.sizes, r.load, r.check)
    start.names[loop.var] = r.zero
    word = ir.IntType(64)
    bits = r.zero
    for stmt in found:
        address = r.buffer(stmt.buffer).address(r.emit, start.value(stmt.index))
        bits = bits | Value(r.emit, r.builder.ptrtoint(address, word), dt.int64)
    return (bits & (size - 1)).equals(0)


def stream_end(emit: Emit) -> None:
    """Orders what was streamed before all that comes later, on processors that do not by
    themselves."""
    if emit.target.triple.startswith("x86_64"):
        emit.call("llvm.x86.sse.sfence", ir.VoidType())
