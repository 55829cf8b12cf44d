"""Random words drawn inside kernels: `ir/philox.py` on values."""

from __future__ import annotations

from typing import Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.convert import cast
from treadle.codegen.polynomial import UINT64
from treadle.codegen.value import Value, ir, llvm_type
from treadle.ir.philox import MULTIPLIER, ROUNDS, WEYL

_LOW: Final = 0xFFFFFFFF
_HIGH: Final = 0xFFFFFFFF00000000
_UNROLLED: Final = 2


def philox(key: Value, counter: Value) -> Value:
    """The random word number `counter` of the stream `key` (both int64), as uint32."""
    lanes = max(key.lanes, counter.lanes)
    left, right = _halves(counter.spread(lanes))
    bump, flip = _halves(key)
    right = right ^ flip
    # A loop, because LLVM takes ten times as long over ten rounds in a row.
    b = key.emit.builder
    before, body, after = b.block, b.append_basic_block("rounds"), b.append_basic_block("drawn")
    b.branch(body)
    b.position_at_end(body)
    state = [left, right, bump]
    count = b.phi(ir.IntType(32))
    phis = [b.phi(v.raw.type) for v in state]
    left, right, bump = (key.emit.value(p, dt.uint32) for p in phis)
    for _ in range(_UNROLLED):
        high, low = _wide_product(left)
        left, right, bump = high ^ bump ^ right, low, bump + WEYL
    following = b.add(count, ir.Constant(count.type, _UNROLLED))
    for phi, first, last in zip(phis, state, (left, right, bump), strict=True):
        phi.add_incoming(first.raw, before)
        phi.add_incoming(last.raw, body)
    count.add_incoming(ir.Constant(count.type, 0), before)
    count.add_incoming(following, body)
    b.cbranch(b.icmp_unsigned("<", following, ir.Constant(count.type, ROUNDS)), body, after)
    b.position_at_end(after)
    return left


def _halves(x: Value) -> tuple[Value, Value]:
    return cast(x, dt.uint32), cast(x >> 32, dt.uint32)


def _wide_product(x: Value) -> tuple[Value, Value]:
    """The upper and lower half of `x * MULTIPLIER`."""
    if x.lanes == 1:
        wide = cast(x, dt.int64) * MULTIPLIER
        return cast(wide >> 32, dt.uint32), cast(wide, dt.uint32)
    # Vector units multiply every second lane; so the lanes stay in place, even and odd apart.
    pairs = _bits(x, UINT64, x.lanes // 2)
    even, odd = (pairs & _LOW) * MULTIPLIER, (pairs >> 32) * MULTIPLIER
    high, low = (even >> 32) | (odd & _HIGH), (even & _LOW) | (odd << 32)
    return _bits(high, dt.uint32, x.lanes), _bits(low, dt.uint32, x.lanes)


def _bits(x: Value, dtype: DType, lanes: int) -> Value:
    raw = x.emit.builder.bitcast(x.raw, llvm_type(dtype, lanes))
    return Value(x.emit, raw, dtype)
