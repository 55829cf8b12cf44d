"""Side-by-side timing: every figure is a ratio within one run, on one machine, under one lock.

Contenders take turns, so a machine that slows down slows all of them; the median is reported.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import platform
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any

LEDGER = Path(__file__).parent / "ledger.jsonl"


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Holds the lock of this machine's benchmarks: two at once measure each other."""
    with open(Path(tempfile.gettempdir()) / "bench.lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def compare(
    contenders: dict[str, Callable[[], Any]],
    rounds: int = 30,
    inner: int = 1,
    warm: int = 3,
    settle: float = 0.0,
) -> dict[str, float]:
    """The median seconds of one call of each contender, taking turns.

    Args:
        contenders: functions of no arguments, by name.
        rounds: turns that each contender takes.
        inner: calls per turn, for what is too short to time alone.
        warm: calls before the timing starts.
        settle: seconds of pause between turns: pools of worker threads go to sleep in it, so that
            one contender's spinning threads are not billed to the next.
    """
    for run in contenders.values():
        for _ in range(warm):
            run()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, run in contenders.items():
            if settle:
                time.sleep(settle)
            run()
            start = time.perf_counter()
            for _ in range(inner):
                run()
            times[name].append((time.perf_counter() - start) / inner)
    return {name: median(values) for name, values in times.items()}


def machine() -> str:
    """The processor's name and the number of processors that this process may use."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    flags = Path("/proc/cpuinfo").read_text() if os.path.exists("/proc/cpuinfo") else ""
    wide = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "baseline"
    return f"{name}, {len(os.sched_getaffinity(0))} cores, {wide}"


def commit() -> str:
    """The short name of the checked-out commit."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or "unknown"


def report(
    what: str, seconds: dict[str, float], ours: str = "treadle", bar: str = "", unit: float = 1e3
) -> None:
    """Prints a comparison and appends it to the ledger.

    Args:
        what: the workload.
        seconds: the median of each contender.
        ours: the contender that the others are compared with.
        bar: what is to be reached, in words.
        unit: what seconds are multiplied by for printing (1e3 shows milliseconds).
    """
    names = {1.0: "s", 1e3: "ms", 1e6: "us", 100.0: "%", 1e-6: "MB"}
    base = seconds[ours]
    print(f"{what}{f'   (bar: {bar})' if bar else ''}")
    for name, value in sorted(seconds.items(), key=lambda item: item[1]):
        print(f"  {name:24s} {value * unit:10.3f} {names.get(unit, ''):3s} {value / base:8.2f}x")
    record = {
        "what": what, "bar": bar, "seconds": seconds, "machine": machine(), "commit": commit(),
        "date": time.strftime("%Y-%m-%d"),
    }  # fmt: skip
    with LEDGER.open("a") as ledger:
        ledger.write(json.dumps(record) + "\n")


def torch_or_none(threads: int | None = None) -> Any:
    """PyTorch with as many threads as there are processors, or `None` where it is missing."""
    try:
        import torch
    except ImportError:
        print("PyTorch is not installed: pip install torch==2.13.0 for the comparison")
        return None
    torch.set_num_threads(threads or len(os.sched_getaffinity(0)))
    return torch


def compiled_or_none(torch: Any, model: Any) -> Any:
    """`torch.compile(model)`, or `None` without the C++ compiler that it needs."""
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++")):
        print("torch.compile needs a C++ compiler: install g++ for the comparison")
        return None
    return torch.compile(model)


def jax_or_none() -> Any:
    """JAX, or `None` where it is missing."""
    try:
        import jax
    except ImportError:
        print("JAX is not installed: pip install jax for the comparison")
        return None
    return jax
