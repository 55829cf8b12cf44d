"""What recording costs: microseconds of Python per operation, and of a replay over its kernels."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from digit_step import batch, script_step
from harness import alone, report


def per_call(run: Callable[[], Any], calls: int = 200, repeats: int = 30) -> float:
    """The least seconds of one call that only records, over repeats of a fresh trace."""
    import treadle

    best = float("inf")
    for _ in range(repeats):
        treadle.flush()
        run()
        start = time.perf_counter()
        kept = [run() for _ in range(calls)]
        best = min(best, (time.perf_counter() - start) / calls)
        del kept
    return best


def beside_kernels(step: Callable[[], Any]) -> float:
    """The median seconds of a step outside of its native call."""
    from treadle.runtime.program import Program

    native = Program.enter
    inside = [0.0]

    def timed(self: Any, frame: int) -> int:
        start = time.perf_counter()
        result = native(self, frame)
        inside[0] += time.perf_counter() - start
        return result

    Program.enter = timed  # type: ignore[method-assign]
    times = []
    try:
        for _ in range(400):
            inside[0] = 0.0
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start - inside[0])
    finally:
        Program.enter = native  # type: ignore[method-assign]
    return sorted(times)[len(times) // 2]


def main() -> None:
    """Prints the microseconds."""
    import treadle
    import treadle.nn
    import treadle.optim

    a, b = treadle.ones(4, 4), treadle.ones(4, 4)
    operations = {
        "a + b": lambda: a + b,
        "a * 2.0": lambda: a * 2.0,
        "a.exp()": lambda: a.exp(),
        "a @ b": lambda: a @ b,
        "a.view(16)": lambda: a.view(16),
        "a.sum(1)": lambda: a.sum(1),
    }
    x, y = batch()
    plain = script_step(treadle, treadle.from_numpy(x), treadle.from_numpy(y))
    compiled = treadle.compile(script_step(treadle, treadle.from_numpy(x), treadle.from_numpy(y)))
    with alone():
        for name, run in operations.items():
            report(f"recording {name}", {"treadle": per_call(run)}, bar="<= 2 us", unit=1e6)
        for name, step in (("plain", plain), ("compiled", compiled)):
            for _ in range(50):
                step()
            report(
                f"digit step, {name}: Python beside the kernels", {"treadle": beside_kernels(step)},
                bar="<= 20 us compiled", unit=1e6,
            )  # fmt: skip


if __name__ == "__main__":
    main()
