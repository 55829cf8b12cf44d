"""Philox-2x32-10, the counter-based generator behind every random number (Salmon et al. 2011)."""

from __future__ import annotations

from typing import Any, Final

from treadle.base.lazy import LazyModule

_numpy = LazyModule("numpy")

MULTIPLIER: Final = 0xD256D193
WEYL: Final = 0x9E3779B9
ROUNDS: Final = 10


def philox(key: Any, counter: Any) -> Any:
    """The random word number `counter` of the stream `key`, as uint32.

    It is word 0 of Philox-2x32-10 with key `low(key)` and counter
    `(low(counter), high(counter) ^ high(key))`, where `low` and `high` are the 32-bit halves of an
    int64. One word per block: a lane needs no other lane's work, and streams whose keys differ
    share no block as long as counters stay below 2**32.

    key, counter: int64 numbers or arrays that broadcast. Source: Salmon, Moraes, Dror, Shaw,
    "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    np = _numpy
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    keys = np.asarray(key, dtype=np.int64).astype(np.uint64)
    counters = np.asarray(counter, dtype=np.int64).astype(np.uint64)
    left = counters & mask
    right = (counters >> half) ^ (keys >> half)
    bump = keys & mask
    for _ in range(ROUNDS):
        product = left * np.uint64(MULTIPLIER)
        left, right = (product >> half) ^ bump ^ right, product & mask
        bump = (bump + np.uint64(WEYL)) & mask
    return (left & mask).astype(np.uint32)
