"""Bad input and faults, as a user meets them: a clear error or the right answer, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.base.errors import IndexBoundsError


class Job:
    """A small model with its optimiser, and steps on given batches."""

    def __init__(self, seed: int = 0) -> None:
        treadle.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
        self.optimizer = optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.criterion = nn.CrossEntropyLoss()

    def step(self, x: Any, y: Any) -> Any:
        """One training step."""
        self.optimizer.zero_grad()
        loss = self.criterion(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    def weights(self) -> list[Any]:
        """Copies of all parameters."""
        return [p.detach().numpy().copy() for p in self.model.parameters()]


def batch(n: int = 8, seed: int = 0) -> tuple[Any, Any]:
    """Inputs and labels."""
    rng = np.random.default_rng(seed)
    x = treadle.from_numpy(rng.standard_normal((n, 6)).astype(np.float32))
    return x, treadle.from_numpy(rng.integers(0, 3, n))


@pytest.mark.parametrize("label", [3, 1000, -1, -(2**40)])
def test_a_label_out_of_range_stops_the_step_and_changes_nothing(label: int) -> None:
    job = Job()
    x, y = batch()
    job.step(x, y)
    before = job.weights()
    bad = y.numpy().copy()
    bad[3] = label
    with pytest.raises(IndexBoundsError, match=r"(?s)out of .*test_faults\.py"):
        job.step(x, treadle.from_numpy(bad))
    for a, b in zip(before, job.weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(job.step(x, y).item()), "and training goes on"


def test_wrong_shapes_and_dtypes_raise_where_they_are_written() -> None:
    job = Job()
    x, y = batch()
    with pytest.raises(RuntimeError, match=r"7.*6|6.*7"):
        job.model(treadle.ones(2, 7))
    with pytest.raises((RuntimeError, ValueError), match=r"batch|size|shape"):
        job.criterion(job.model(x), y[:5])
    with pytest.raises((RuntimeError, TypeError), match=r"int64|long|dtype|float"):
        job.criterion(job.model(x), y.float())
    with pytest.raises(RuntimeError, match="dtype"):
        x @ treadle.ones(6, 2, dtype=treadle.float64)


def test_nan_goes_through_as_nan() -> None:
    job = Job()
    x, y = batch()
    poisoned = x.numpy().copy()
    poisoned[0, 0] = np.nan
    assert np.isnan(job.step(treadle.from_numpy(poisoned), y).item())
    assert all(np.isnan(w).any() for w in job.weights())


def test_an_empty_batch_gives_nan_as_a_mean_of_nothing_does() -> None:
    job = Job()
    x = treadle.from_numpy(np.empty((0, 6), np.float32))
    y = treadle.from_numpy(np.empty(0, np.int64))
    out = job.model(x)
    assert out.shape == (0, 3)
    assert out.detach().numpy().shape == (0, 3)
    assert np.isnan(job.criterion(job.model(x), y).item())


def test_training_goes_on_in_a_forked_child() -> None:
    job = Job()
    x, y = batch()
    job.step(x, y)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.write(writer, repr(job.step(x, y).item()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        heard = pipe.read()
    assert os.waitpid(child, 0)[1] == 0
    assert float(heard) == job.step(x, y).item()


def test_an_interrupt_leaves_a_state_that_trains_on() -> None:
    job = Job()
    x, y = batch(512)
    job.step(x, y)
    timer = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        stop = time.monotonic() + 20
        while time.monotonic() < stop:
            job.step(x, y)
    timer.join()
    assert np.isfinite(job.step(x, y).item())
    assert all(np.isfinite(w).all() for w in job.weights())


def _trained(threads: int, repeats: int = 30) -> list[bytes]:
    treadle.set_num_threads(threads)
    job = Job(seed=5)
    for i in range(repeats):
        job.step(*batch(64 if i % 5 else 17, seed=i))
    return [w.tobytes() for w in job.weights()]


def test_the_same_seed_gives_the_same_bits_on_any_number_of_threads() -> None:
    threads = treadle.get_num_threads()
    try:
        runs = [_trained(n) for n in (1, 2, 3, 2)]
    finally:
        treadle.set_num_threads(threads)
    assert all(run == runs[0] for run in runs)


SCRIPT = """
    import numpy as np, treadle
    x = treadle.from_numpy(np.arange(12, dtype=np.float32).reshape(3, 4))
    print((x.exp() @ x.T).sum().item())
"""


@pytest.mark.parametrize("kind", ["read-only", "a file", "garbage"])
def test_a_bad_cache_folder_costs_time_only(tmp_path: Path, kind: str) -> None:
    cache = tmp_path / "cache"
    environment = {**os.environ, "TREADLE_CACHE": str(cache), "PYTHONWARNINGS": "ignore"}

    def run() -> str:
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(SCRIPT)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    want = run()
    if kind == "a file":
        environment["TREADLE_CACHE"] = str(tmp_path / "not a folder")
        (tmp_path / "not a folder").write_text("x")
    elif kind == "read-only":
        environment["TREADLE_CACHE"] = "/proc/treadle"
    else:
        entries = [p for p in cache.rglob("*") if p.is_file()]
        assert entries
        for i, entry in enumerate(entries):
            data = bytearray(entry.read_bytes())
            data[len(data) // 2] ^= 0xFF
            entry.write_bytes(data if i % 2 else data[: len(data) // 3])
    assert run() == want
