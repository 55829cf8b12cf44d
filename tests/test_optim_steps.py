"""Optimisers against NumPy, and how a step is recorded."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.base.errors import IndexBoundsError
from treadle.nn import functional as F


def quadratic(p: Any) -> Any:
    return (p * p).sum()


def run(optimizer: Any, p: Any, steps: int) -> np.ndarray:
    for _ in range(steps):
        optimizer.zero_grad()
        quadratic(p).backward()
        optimizer.step()
    return np.array(p.detach().numpy())


def test_sgd_with_momentum() -> None:
    p = nn.Parameter(treadle.tensor([1.0, -2.0], dtype=treadle.float64))
    out = run(optim.SGD([p], lr=0.1, momentum=0.5, weight_decay=0.2), p, 4)
    x, b = np.array([1.0, -2.0]), np.zeros(2)
    for _ in range(4):
        b = 0.5 * b + 2 * x + 0.2 * x
        x = x - 0.1 * b
    np.testing.assert_allclose(out, x)


def test_adam() -> None:
    p = nn.Parameter(treadle.tensor([1.0, -2.0], dtype=treadle.float64))
    out = run(optim.Adam([p], lr=0.1), p, 4)
    x, m, v = np.array([1.0, -2.0]), np.zeros(2), np.zeros(2)
    for t in range(1, 5):
        g = 2 * x
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        x = x - 0.1 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    np.testing.assert_allclose(out, x)


@pytest.mark.parametrize(
    "make",
    [
        lambda p: optim.SGD(p, lr=0.05, momentum=0.5),
        lambda p: optim.Adam(p, lr=0.1),
        lambda p: optim.AdamW(p, lr=0.1),
        lambda p: optim.NAdam(p, lr=0.1),
        lambda p: optim.RAdam(p, lr=0.1),
        lambda p: optim.Adamax(p, lr=0.1),
        lambda p: optim.RMSprop(p, lr=0.05),
        lambda p: optim.Adagrad(p, lr=0.5),
        lambda p: optim.Adadelta(p, lr=20.0),
    ],
)
def test_every_optimiser_goes_down(make: Any) -> None:
    p = nn.Parameter(treadle.tensor([[1.0, -2.0], [0.5, 3.0]]))
    before = quadratic(p).item()
    run(make([p]), p, 30)
    assert quadratic(p).item() < 0.3 * before


def test_lbfgs_finds_the_minimum() -> None:
    p = nn.Parameter(treadle.tensor([-1.2, 1.0], dtype=treadle.float64))
    optimizer = optim.LBFGS([p], line_search_fn="strong_wolfe", max_iter=60)

    def closure() -> Any:
        optimizer.zero_grad()
        x, y = p[0], p[1]
        loss = (1 - x) ** 2 + 100 * (y - x * x) ** 2
        loss.backward()
        return loss

    optimizer.step(closure)
    np.testing.assert_allclose(p.detach().numpy(), [1.0, 1.0], atol=1e-4)


def test_another_learning_rate_compiles_nothing() -> None:
    from treadle.runtime.execute import counts

    p = nn.Parameter(treadle.ones(4))
    optimizer = optim.Adam([p], lr=0.1)
    run(optimizer, p, 2)
    made = counts.plans
    for lr in (0.05, 0.01, 0.5):
        optimizer.param_groups[0]["lr"] = lr
        run(optimizer, p, 1)
    assert counts.plans == made


def test_the_first_step_is_recorded_as_all_others() -> None:
    from treadle.runtime.execute import counts

    for make in (lambda q: optim.SGD(q, momentum=0.9), optim.Adam):
        p = nn.Parameter(treadle.randn(3, 2))
        optimizer = make([p])
        start = counts.plans
        for _ in range(5):
            optimizer.zero_grad()
            quadratic(p).backward()
            optimizer.step()
        assert counts.plans == start + 1


@pytest.mark.parametrize("name", ["SGD", "Adam", "NAdam", "RAdam", "ASGD"])
def test_a_compiled_step_counts_and_follows_the_schedule(name: str) -> None:
    paths = []
    for compiled in (False, True):
        p = nn.Parameter(treadle.tensor([1.0, -2.0]))
        optimizer = getattr(optim, name)([p], lr=0.1)
        scheduler = optim.lr_scheduler.ExponentialLR(optimizer, 0.8)

        def step(optimizer: Any = optimizer, p: Any = p) -> Any:
            optimizer.zero_grad()
            loss = quadratic(p)
            loss.backward()
            optimizer.step()
            return loss

        call = treadle.compile(step) if compiled else step
        path = []
        for _ in range(8):
            path.append(call().item())
            scheduler.step()
        paths.append(path)
    assert paths[0] == paths[1]


def test_groups_have_their_own_options() -> None:
    p, q = nn.Parameter(treadle.ones(1)), nn.Parameter(treadle.ones(1))
    optimizer = optim.SGD([{"params": [p]}, {"params": [q], "lr": 0.5}], lr=0.1)
    (quadratic(p) + quadratic(q)).backward()
    optimizer.step()
    assert p.item() == pytest.approx(0.8) and q.item() == pytest.approx(0.0)
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 0.5]


def test_parameters_without_gradient_stay() -> None:
    p, q = nn.Parameter(treadle.ones(1)), nn.Parameter(treadle.ones(1))
    optimizer = optim.Adam([p, q], lr=0.1)
    for chosen in ([p], [p, q], [q]):
        optimizer.zero_grad()
        treadle.cat([quadratic(x).reshape(1) for x in chosen]).sum().backward()
        optimizer.step()
    assert optimizer.state[p]["step"] == 2 and optimizer.state[q]["step"] == 2


def test_names_and_mistakes() -> None:
    layer = nn.Linear(2, 1)
    named = optim.SGD(layer.named_parameters())
    assert named.param_groups[0]["param_names"] == ["weight", "bias"]
    with pytest.raises(ValueError, match="empty parameter list"):
        optim.SGD([])
    with pytest.raises(TypeError, match="iterable of Tensors"):
        optim.SGD(layer.weight)
    with pytest.raises(ValueError, match="more than one parameter group"):
        optim.SGD([{"params": layer.weight}, {"params": layer.weight}])
    with pytest.raises(ValueError, match="non-leaf"):
        optim.SGD([layer.weight * 2])
    with pytest.raises(ValueError, match="Invalid learning rate"):
        optim.Adam(layer.parameters(), lr=-1.0)


def test_state_survives_saving() -> None:
    p = nn.Parameter(treadle.tensor([1.0, -2.0]))
    optimizer = optim.Adam([p], lr=0.1)
    run(optimizer, p, 3)
    saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
    q = nn.Parameter(p.detach().clone())
    other = optim.Adam([q], lr=0.5)
    other.load_state_dict(saved)
    np.testing.assert_allclose(run(optimizer, p, 2), run(other, q, 2))
    twin = copy.deepcopy(other)
    assert twin.param_groups[0]["params"][0] is not q
    with pytest.raises(ValueError, match="different number of parameter groups"):
        other.load_state_dict({**saved, "param_groups": []})


def test_hooks_surround_a_step() -> None:
    p, seen = nn.Parameter(treadle.ones(1)), []
    optimizer = optim.SGD([p], lr=0.1)
    optimizer.register_step_pre_hook(lambda o, args, kwargs: seen.append("before"))
    handle = optimizer.register_step_post_hook(lambda o, args, kwargs: seen.append("after"))
    run(optimizer, p, 1)
    handle.remove()
    run(optimizer, p, 1)
    assert seen == ["before", "after", "before"]


def test_a_closure_computes_the_loss_anew() -> None:
    p = nn.Parameter(treadle.ones(1))
    optimizer = optim.SGD([p], lr=0.25)

    def closure() -> Any:
        optimizer.zero_grad()
        loss = quadratic(p)
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 1.0 and p.item() == 0.5


def test_an_own_optimiser_runs_at_the_end_of_its_step() -> None:
    class Plain(optim.Optimizer):
        def __init__(self, params: Any) -> None:
            super().__init__(params, {"lr": 0.25})

        @treadle.no_grad()
        def step(self, closure: Any = None) -> None:
            for group in self.param_groups:
                for q in group["params"]:
                    q.add_(q.grad, alpha=-group["lr"])

    p = nn.Parameter(treadle.ones(1))
    quadratic(p).backward()
    Plain([p]).step()
    assert p._buffer is not None and p.item() == 0.5


def test_half_precision_parameters_are_updated_in_float32() -> None:
    p = nn.Parameter(treadle.tensor([1.0, 2.0]).half())
    out = run(optim.SGD([p], lr=0.1, momentum=0.9), p, 2)
    assert p.dtype is treadle.float16 and out.dtype == np.float16


def test_a_label_out_of_range_leaves_the_parameters_alone() -> None:
    layer = nn.Linear(3, 2)
    optimizer = optim.SGD(layer.parameters(), lr=0.1)
    before = layer.weight.detach().numpy().copy()
    F.cross_entropy(layer(treadle.ones(2, 3)), treadle.tensor([0, 5])).backward()
    with pytest.raises(IndexBoundsError):
        optimizer.step()
    np.testing.assert_array_equal(layer.weight.detach().numpy(), before)


def test_a_warning_where_the_schedule_steps_first() -> None:
    optimizer = optim.SGD([nn.Parameter(treadle.ones(1))])
    scheduler = optim.lr_scheduler.StepLR(optimizer, 1)
    with pytest.warns(UserWarning, match="before `optimizer.step"):
        scheduler.step()


def test_a_schedule_survives_saving() -> None:
    def make() -> Any:
        optimizer = optim.SGD([nn.Parameter(treadle.ones(1))], lr=1.0)
        return optimizer, optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

    optimizer, scheduler = make()
    for _ in range(3):
        optimizer.step()
        scheduler.step()
    other, twin = make()
    twin.load_state_dict(pickle.loads(pickle.dumps(scheduler.state_dict())))
    other.load_state_dict(optimizer.state_dict())
    other.step()
    twin.step()
    scheduler.step()
    assert twin.get_last_lr() == scheduler.get_last_lr()
