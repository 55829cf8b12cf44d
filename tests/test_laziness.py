"""The laziness contract: what runs when, and how often."""

from __future__ import annotations

import gc
import threading
from functools import partial
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.graph.capture import TRIE
from treadle.runtime.execute import counts
from treadle.tensor.record import recorder


class Counter:
    """Runs and plans since it was made."""

    def __init__(self) -> None:
        treadle.flush()
        self.runs, self.plans = counts.runs, counts.plans

    def __call__(self) -> tuple[int, int]:
        return counts.runs - self.runs, counts.plans - self.plans


def network() -> tuple[Any, Any]:
    """Two weights, and the loss of a batch."""
    treadle.manual_seed(0)
    w1 = treadle.randn(8, 5, requires_grad=True)
    w2 = treadle.randn(3, 8, requires_grad=True)

    def loss(x: Any) -> Any:
        return ((x @ w1.T).relu() @ w2.T).square().mean()

    return (w1, w2), loss


def test_recording_runs_nothing() -> None:
    counter = Counter()
    x = treadle.ones(3, 4)
    y = (x * 2 + 1).exp().sum()
    assert y.shape == ()
    assert counter() == (0, 0)
    y.item()
    assert counter() == (1, 1)
    y.item()
    assert counter() == (1, 1)


def test_one_step_is_one_run_and_later_steps_make_no_plan() -> None:
    weights, loss = network()
    x = treadle.from_numpy(np.ones((4, 5), np.float32))
    seen = []
    for _ in range(4):
        counter = Counter()
        for w in weights:
            w.grad = None
        value = loss(x)
        value.backward()
        with treadle.no_grad():
            for w in weights:
                w.sub_(w.grad * 0.1)
        treadle.flush()
        seen.append(counter())
        del value
    assert seen[0] == (1, 1)
    # The second step's gradients find old ones to replace; from the third on nothing is new.
    assert seen[2:] == [(1, 0), (1, 0)]


def test_looking_before_backward_does_not_run_forward_twice() -> None:
    weights, loss = network()
    x = treadle.from_numpy(np.full((4, 5), 0.5, np.float32))
    plain = loss(x)
    plain.backward()
    want = [w.grad.numpy().copy() for w in weights]
    for w in weights:
        w.grad = None
    looked = loss(x)
    looked.item()
    trace = looked._trace
    assert trace.done and trace.saved, "what the backward pass needs was kept"
    looked.backward()
    kinds = [s.node.op.name for s in recorder().trace.state.path()]
    assert kinds.count("contract") == 3, "the backward pass alone: no product of the forward pass"
    for w, g in zip(weights, want, strict=True):
        np.testing.assert_allclose(w.grad.numpy(), g, rtol=1e-6)


@pytest.mark.parametrize("factor", [2.0, 3.0, -1.5])
def test_a_changed_number_makes_no_plan(factor: float) -> None:
    x = treadle.from_numpy(np.arange(4, dtype=np.float32))
    (x * 0.5).sum().item()
    counter = Counter()
    value = (x * factor).sum().item()
    assert value == pytest.approx(6 * factor)
    assert counter()[1] == 0


def test_what_nobody_holds_is_not_computed() -> None:
    x = treadle.ones(4)
    kept = x + 1
    (x * 5).exp()
    live = recorder().trace.live()
    assert {id(t) for t in live} >= {id(kept)}
    assert len([t for t in live if t is not x]) == 1


def test_pending_work_is_bounded() -> None:
    x = treadle.ones(2)
    for _ in range(12_000):
        x = x + 1
    assert recorder().trace.state.pos < 10_001
    assert x.tolist() == [12_001.0, 12_001.0]


def test_a_long_loop_keeps_no_traces_and_no_tensors() -> None:
    weights, loss = network()
    x = treadle.from_numpy(np.ones((4, 5), np.float32))

    def step() -> None:
        for w in weights:
            w.grad = None
        loss(x).backward()
        with treadle.no_grad():
            for w in weights:
                w.sub_(w.grad * 0.01)
        treadle.flush()

    for _ in range(3):
        step()
    gc.collect()
    tensors = sum(issubclass(type(o), treadle.Tensor) for o in gc.get_objects())
    states = TRIE.size
    for _ in range(20):
        step()
    gc.collect()
    assert sum(issubclass(type(o), treadle.Tensor) for o in gc.get_objects()) <= tensors
    assert TRIE.size == states


def test_threads_record_into_traces_of_their_own() -> None:
    shared = treadle.ones(8)
    pending = shared * 3
    results: dict[int, list[float]] = {}

    def work(i: int) -> None:
        x = pending
        for _ in range(50):
            x = x + i
        results[i] = x.tolist()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert results == {i: [3.0 + 50 * i] * 8 for i in range(4)}
    assert pending.tolist() == [3.0] * 8


def test_compiled_functions_replay() -> None:
    calls = []

    @treadle.compile
    def f(x: Any, y: Any) -> Any:
        calls.append(1)
        return (x * y).sum(), x - y

    for i in range(4):
        a, b = treadle.full((3,), float(i)), treadle.ones(3)
        total, difference = f(a, b)
        assert total.item() == 3 * i
        assert difference.tolist() == [i - 1.0] * 3
    assert len(calls) == 1
    f(treadle.ones(2), treadle.ones(2))
    assert len(calls) == 2
    assert "argument 0 changed" in f.reasons[0]


def descend(weights: Any, loss: Any, x: Any) -> Any:
    """One step down the gradient, written by hand."""
    for w in weights:
        w.grad = None
    value = loss(x)
    value.backward()
    with treadle.no_grad():
        for w in weights:
            w.sub_(w.grad * 0.1)
    treadle.step_done()
    return value


def test_a_compiled_step_trains_like_a_plain_one() -> None:
    x = treadle.from_numpy(np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5))
    runs = []
    for wrap in (lambda f: f, treadle.compile):
        weights, loss = network()

        run = wrap(partial(descend, weights, loss))
        runs.append([run(x).item() for _ in range(5)] + [w.tolist() for w in weights])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("make", ["SGD", "Adam"])
def test_a_compiled_optimiser_keeps_its_numbers_in_step(make: str) -> None:
    """Bias corrections count on, and a learning rate that changes is seen."""
    x = treadle.from_numpy(np.linspace(-1, 1, 20, dtype=np.float32).reshape(4, 5))
    runs = []
    for wrap in (lambda f: f, treadle.compile):
        treadle.manual_seed(3)
        model = treadle.nn.Sequential(treadle.nn.Linear(5, 4), treadle.nn.Tanh())
        optimizer = getattr(treadle.optim, make)(model.parameters(), lr=0.1)

        def step(x: Any, model: Any = model, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = wrap(step)
        losses = []
        for i in range(8):
            optimizer.param_groups[0]["lr"] = 0.1 / (i + 1)
            losses.append(run(x).item())
        runs.append(losses + [p.tolist() for p in model.parameters()])
    assert len(run.reasons) < 4, run.reasons
    assert runs[0] == runs[1]


def test_a_compiled_step_overwrites_nothing_that_somebody_holds() -> None:
    weights, loss = network()
    x = treadle.from_numpy(np.ones((4, 5), np.float32))

    step = treadle.compile(partial(descend, weights, loss))
    for _ in range(4):
        step(x)
    held = weights[0].detach().numpy()
    before = held.copy()
    step(x)
    np.testing.assert_array_equal(held, before)
    assert not np.array_equal(weights[0].detach().numpy(), before)
