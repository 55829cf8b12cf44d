"""Random words drawn inside kernels: `ir/philox.py` on values."""

from __future__ import annotations

from treadle.base import dtype as dt
from treadle.codegen.convert import cast
from treadle.codegen.value import Value
from treadle.ir.philox import MULTIPLIER, ROUNDS, WEYL


def philox(key: Value, counter: Value) -> Value:
    """The random word number `counter` of the stream `key` (both int64), as uint32."""
    left, right = _halves(counter)
    bump, flip = _halves(key)
    right = right ^ flip
    for _ in range(ROUNDS):
        high, low = _wide_product(left)
        left, right = high ^ bump ^ right, low
        bump = bump + WEYL
    return left


def _halves(x: Value) -> tuple[Value, Value]:
    return cast(x, dt.uint32), cast(x >> 32, dt.uint32)


def _wide_product(x: Value) -> tuple[Value, Value]:
    wide = cast(x, dt.int64) * MULTIPLIER
    return cast(wide >> 32, dt.uint32), cast(wide, dt.uint32)
