"""What a run costs over its kernels: the call from Python, fork-join, waking, sharing.

    python bench/fork_join.py [threads]

Figures are the median of several repetitions. Nothing else should run on the machine.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from functools import partial

from treadle.codegen.compile import native
from treadle.runtime.buffer import empty
from treadle.runtime.pool import get_num_threads, set_num_threads
from treadle.runtime.program import Launch, Program

# `nothing` returns at once; `busy` writes to its scratch params[0] times for each task.
KERNELS = """
define i64 @nothing(ptr %slots, ptr %params, ptr %scratch, i64 %begin, i64 %end) {
  ret i64 0
}

define i64 @busy(ptr %slots, ptr %params, ptr %scratch, i64 %begin, i64 %end) {
entry:
  %each = load i64, ptr %params
  %tasks = sub i64 %end, %begin
  %turns = mul i64 %each, %tasks
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
  store volatile i64 %i, ptr %scratch
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, %turns
  br i1 %more, label %loop, label %out
out:
  ret i64 0
}
"""
REPEATS = 15
SLOTS = 20


def microseconds(run: Callable[[], object], calls: int, pause: float = 0.0) -> float:
    """The median time of one call."""
    run()
    times = []
    for _ in range(REPEATS):
        if pause:
            time.sleep(pause)
        start = time.perf_counter()
        for _ in range(calls):
            run()
        times.append((time.perf_counter() - start) / calls)
    return statistics.median(times) * 1e6


def show(what: str, value: float, unit: str = "µs") -> None:
    """Prints one line of the table."""
    print(f"{what:<68}{value:10.3f} {unit}")


def python_costs(nothing: int) -> None:
    """The call and the table of slots."""
    buffers = [empty(64) for _ in range(SLOTS)]

    def gathered(program: Program) -> None:
        program.run([b.address for b in buffers])

    for launches in (0, 12):
        program = Program([Launch(nothing, [1], 1, 1)] * launches, SLOTS)
        took = microseconds(partial(gathered, program), 2000)
        show(f"run from Python: {SLOTS} slots, {launches} empty launches on one thread", took)
    program = Program([Launch(nothing, [1], 2, 1)] * 12, SLOTS)
    took = microseconds(partial(gathered, program), 2000)
    show(f"run from Python: {SLOTS} slots, 12 empty launches on all threads", took)
    show("empty(1000) from the free list, and back", microseconds(lambda: empty(1000), 20_000))


def fork_join(nothing: int) -> None:
    """One parallel launch while everybody spins."""
    slots = [0]
    for tasks in (get_num_threads(), 8, 64):
        program = Program([Launch(nothing, [1], tasks, 1)] * 1000, 1)
        took = microseconds(partial(program.run, slots), 1) / 1000
        show(f"fork-join of {tasks} empty chunks", took)


def waking(busy: int) -> None:
    """One launch of about 100 µs of work on one thread, after workers were idle for a while."""
    alone = Program([Launch(busy, [1500], 64, 64)], 1)
    shared = Program([Launch(busy, [1500], 64, 4)], 1)
    show("64 tasks on one thread", microseconds(lambda: alone.run([0]), 20))
    show("64 tasks on all threads, workers spinning", microseconds(lambda: shared.run([0]), 20))
    for pause in (0.0002, 0.0005, 0.02):
        took = []
        for _ in range(REPEATS):
            until = time.perf_counter() + pause
            while time.perf_counter() < until:
                pass
            start = time.perf_counter()
            shared.run([0])
            took.append(time.perf_counter() - start)
        show(f"64 tasks on all threads, {pause * 1e3:g} ms after", statistics.median(took) * 1e6)


def sharing(busy: int) -> None:
    """How much of the ideal speed-up short launches reach."""
    for each in (10, 100, 1000):
        alone = Program([Launch(busy, [each], 8, 8)] * 200, 1)
        shared = Program([Launch(busy, [each], 8, 1)] * 200, 1)
        one = microseconds(partial(alone.run, [0]), 1) / 200
        many = microseconds(partial(shared.run, [0]), 1) / 200
        show(f"speed-up of launches of {one:.2f} µs in 8 chunks", one / many, "×")


def main() -> None:
    """Prints the table."""
    if len(sys.argv) > 1:
        set_num_threads(int(sys.argv[1]))
    print(f"{get_num_threads()} threads")
    kernels = native(KERNELS)
    python_costs(kernels["nothing"])
    fork_join(kernels["nothing"])
    waking(kernels["busy"])
    sharing(kernels["busy"])


if __name__ == "__main__":
    main()
