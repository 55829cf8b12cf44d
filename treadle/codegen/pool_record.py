"""The record that a pool of threads and the native driver share: what lies where."""

from __future__ import annotations

from typing import Final

# Offsets in the pool record. What different threads write lies on different pairs of cache lines.
FIELDS: Final = {
    # Set by `configure`, while no run is going on.
    "threads": 0,
    "scratch": 8,
    "stride": 16,
    "spins": 24,
    # Set before the first run.
    "yields": 32,
    "syscall": 64,
    "futex": 72,
    "yield": 80,
    "nap": 88,
    "clock": 96,
    "clock_id": 104,
    # Sleeping and locking, int32.
    "epoch": 128,
    "asleep": 132,
    "mutex": 192,
    # Placing sleepers: a lock, functions of the system, and int32 thread numbers of workers.
    "placing": 196,
    "cpu": 200,
    "affinity": 208,
    "confine": 216,
    # The current launch.
    "left": 256,
    "chunks": 264,
    "kernel": 272,
    "params": 280,
    "tasks": 288,
    "grain": 296,
    "slots": 304,
    # Written by those who finish chunks.
    "done": 384,
    "fault": 392,
    "ids": 448,
}
POOL_BYTES: Final = 512
PLACED: Final = 8
"""Pools of at most this many threads say where a woken worker runs: `ids` has room for them."""


def at(*names: str) -> str:
    """Address computations for fields of the pool record."""
    return "\n".join(
        f"  %{name}.p = getelementptr i8, ptr %pool, i64 {FIELDS[name]}" for name in names
    )
