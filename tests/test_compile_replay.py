"""Replays of a compiled training step over a filled table: they follow what moves, and overwrite
nothing that anybody else can see. The plain step is the oracle."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn

X = np.linspace(-1, 1, 24, dtype=np.float32).reshape(4, 6)
Y = np.array([0, 2, 1, 2])


class Job:
    """A small model with its optimiser; `step` may be compiled."""

    def __init__(self, compiled: bool = True) -> None:
        treadle.manual_seed(5)
        self.model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3))
        self.optimizer = treadle.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.step: Callable[..., Any] = treadle.compile(self._step) if compiled else self._step

    def _step(self, x: Any, y: Any) -> Any:
        self.optimizer.zero_grad()
        loss = nn.functional.cross_entropy(self.model(x), y)
        loss.backward()
        self.optimizer.step()
        return loss

    @property
    def weight(self) -> Any:
        return self.model[0].weight

    def numbers(self) -> list[np.ndarray[Any, Any]]:
        return [np.array(p.detach().numpy()) for p in self.model.parameters()]


def both(act: Callable[[Job], Any], warm: int = 4, after: int = 3) -> None:
    """Steps, `act`, steps: a compiled job must end where a plain one ends."""
    ends = []
    for compiled in (False, True):
        job = Job(compiled)
        x, y = treadle.tensor(X), treadle.tensor(Y)
        losses = [job.step(x, y).item() for _ in range(warm)]
        held = act(job)
        losses += [job.step(x, y).item() for _ in range(after)]
        ends.append((losses, job.numbers()))
        del held
    (plain, weights), (replayed, others) = ends
    np.testing.assert_allclose(replayed, plain, rtol=1e-6)
    for ours, expected in zip(others, weights, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-7)


def _new_values(job: Job) -> None:
    with treadle.no_grad():
        job.weight.mul_(0.5)


def _other_memory(job: Job) -> Any:
    array = np.full((5, 6), 0.25, np.float32)
    job.weight.data = treadle.from_numpy(array)
    return array


ACTS: dict[str, Callable[[Job], Any]] = {
    "nothing": lambda job: None,
    "in-place change": _new_values,
    "other memory": _other_memory,
    "an evaluation": lambda job: job.model(treadle.tensor(X)).sum().item(),
    "a plain step": lambda job: job._step(treadle.tensor(X), treadle.tensor(Y)).item(),
    "pending work": lambda job: job.model(treadle.tensor(X)),
    "loaded state": lambda job: job.model.load_state_dict(
        {k: v * 0.5 for k, v in job.model.state_dict().items()}
    ),
    "another learning rate": lambda job: job.optimizer.param_groups[0].update(lr=0.02),
    "dropped gradients": lambda job: job.optimizer.zero_grad(),
    "a gradient held": lambda job: job.weight.grad,
    "a view held": lambda job: job.weight.detach().view(-1),
}


@pytest.mark.parametrize("act", list(ACTS), ids=list(ACTS))
def test_a_replay_follows_what_happened_in_between(act: str) -> None:
    both(ACTS[act])


def test_every_gradient_and_loss_that_is_kept_stays() -> None:
    job, plain = Job(), Job(compiled=False)
    x, y = treadle.tensor(X), treadle.tensor(Y)
    kept: list[Any] = []
    expected: list[Any] = []
    for _ in range(6):
        kept.append((job.step(x, y), job.weight.grad))
        loss = plain.step(x, y)
        expected.append((loss.item(), np.array(plain.weight.grad.numpy())))
    for (loss, grad), (value, numbers) in zip(kept, expected, strict=True):
        assert loss.item() == pytest.approx(value, rel=1e-6)
        np.testing.assert_allclose(grad.numpy(), numbers, rtol=1e-5, atol=1e-7)


def test_numpy_views_keep_what_they_showed() -> None:
    job = Job()
    x, y = treadle.tensor(X), treadle.tensor(Y)
    for _ in range(4):
        job.step(x, y)
    weight, grad = job.weight.detach().numpy(), job.weight.grad.numpy()
    before = weight.copy(), grad.copy()
    for _ in range(3):
        job.step(x, y)
    np.testing.assert_array_equal(weight, before[0])
    np.testing.assert_array_equal(grad, before[1])


def test_memory_of_somebody_else_is_not_written_to() -> None:
    job = Job()
    x, y = treadle.tensor(X), treadle.tensor(Y)
    for _ in range(4):
        job.step(x, y)
    array = np.full((5, 6), 0.25, np.float32)
    job.weight.data = treadle.from_numpy(array)
    for _ in range(3):
        job.step(x, y)
    assert (array == 0.25).all()
    assert not np.allclose(job.weight.detach().numpy(), 0.25)


def test_a_batch_in_other_memory_each_time() -> None:
    job, plain = Job(), Job(compiled=False)
    rng = np.random.default_rng(0)
    for i in range(8):
        x = rng.standard_normal((4, 6)).astype(np.float32)
        # Computed, adopted, and pending inputs in turn.
        given = [treadle.tensor(x), treadle.from_numpy(x), treadle.tensor(x) * 1.0][i % 3]
        loss = job.step(given, treadle.tensor(Y))
        expected = plain.step(treadle.tensor(x), treadle.tensor(Y))
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_a_failed_check_leaves_parameters_and_no_stale_gradient() -> None:
    job = Job()
    x, y = treadle.tensor(X), treadle.tensor(Y)
    for _ in range(4):
        job.step(x, y)
    before = job.numbers()
    with pytest.raises(IndexError, match="out of bounds"):
        job.step(x, treadle.tensor([0, 9, 1, 2]))
    for ours, expected in zip(job.numbers(), before, strict=True):
        np.testing.assert_array_equal(ours, expected)
    assert job.weight.grad is None
    job.step(x, y)
    assert not np.array_equal(job.numbers()[0], before[0])


def test_replays_in_threads_take_turns() -> None:
    job, plain = Job(), Job(compiled=False)
    x, y = treadle.tensor(X), treadle.tensor(Y)
    for _ in range(4):
        job.step(x, y)

    def work() -> None:
        for _ in range(20):
            job.step(x, y)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for _ in range(64):
        plain.step(x, y)
    for ours, expected in zip(job.numbers(), plain.numbers(), strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-3, atol=1e-5)


def test_checks_for_nan_see_replays() -> None:
    job = Job()
    x, y = treadle.tensor(X), treadle.tensor(Y)
    for _ in range(4):
        job.step(x, y)
    bad = X.copy()
    bad[0, 0] = np.nan
    with treadle.check(nan=True), pytest.raises(Exception, match=r"(?i)nan"):
        job.step(treadle.tensor(bad), y)
