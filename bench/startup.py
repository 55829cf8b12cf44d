"""Fresh processes: the import, the first training step, and the peak memory of the digit script."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from harness import alone, report, torch_or_none

FOLDER = Path(__file__).parent

IMPORT = "import time; t = time.perf_counter(); import {0}; print(time.perf_counter() - t)"
STEP = """
import sys, time
sys.path.insert(0, {folder!r})
import {package} as torch, {package}.nn, {package}.optim
from digit_step import batch, script_step
x, y = batch()
start = time.perf_counter()
script_step(torch, torch.from_numpy(x), torch.from_numpy(y))().item()
print(time.perf_counter() - start)
"""
MEMORY = """
import sys
sys.path.insert(0, {folder!r})
import {package} as torch, {package}.nn, {package}.optim
from digit_step import batch, script_step
x, y = batch()
step = script_step(torch, torch.from_numpy(x), torch.from_numpy(y))
for _ in range(200):
    step()
# Not getrusage: there a process inherits the peak of the one that started it.
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(1024 * int(status["VmHWM"].split()[0]))
"""


def run(code: str, cache: str | None = None) -> float:
    """What a fresh process prints."""
    environment = dict(os.environ)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if cache is not None:
        environment["TREADLE_CACHE"] = cache
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def repeated(code: str, cache: str | None = None, times: int = 5) -> float:
    """The median over fresh processes, after one that is not counted."""
    run(code, cache)
    return median(run(code, cache) for _ in range(times))


def main() -> None:
    """Prints all of it."""
    packages = ["treadle"] + (["torch"] if torch_or_none() is not None else [])
    with alone():
        report(
            "import", {p: repeated(IMPORT.format(p)) for p in packages}, bar="<= 0.2 s", unit=1.0
        )
        step = STEP.format(folder=str(FOLDER), package="treadle")
        cold = []
        for _ in range(3):
            with tempfile.TemporaryDirectory() as cache:
                cold.append(run(step, cache))
        report("first step, empty cache", {"treadle": median(cold)}, bar="<= 3 s", unit=1.0)
        with tempfile.TemporaryDirectory() as cache:
            warm = repeated(step, cache)
        report("first step, warm cache", {"treadle": warm}, bar="<= 0.3 s", unit=1.0)
        peaks = {
            p: repeated(MEMORY.format(folder=str(FOLDER), package=p), times=3) for p in packages
        }
        report("peak memory of 200 steps, in MB", peaks, bar="<= half of PyTorch's", unit=1e-6)


if __name__ == "__main__":
    main()
