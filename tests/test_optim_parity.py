"""Optimisers and schedules against PyTorch: trajectories, state and printed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, optim

torch = pytest.importorskip("torch")

X = np.random.default_rng(0).standard_normal((6, 4))
Y = np.random.default_rng(1).standard_normal((6, 2))

OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True, "maximize": True}),
    ("Adam", {"lr": 0.05}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True}),
    ("Adam", {"lr": 0.05, "amsgrad": True}),
    ("AdamW", {"lr": 0.05}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3, "amsgrad": True}),
    ("NAdam", {"lr": 0.05}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.05}),
    ("RAdam", {"lr": 0.05, "betas": (0.5, 0.6), "weight_decay": 0.1}),
    ("Adamax", {"lr": 0.05, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.05}),
    ("RMSprop", {"lr": 0.05, "centered": True, "momentum": 0.5, "weight_decay": 0.1}),
    ("RMSprop", {"lr": 0.05, "centered": True}),
    ("Adagrad", {"lr": 0.05, "lr_decay": 0.1, "initial_accumulator_value": 0.2}),
    ("Rprop", {"lr": 0.05, "etas": (0.4, 1.3)}),
    ("ASGD", {"lr": 0.05, "lambd": 0.01, "t0": 2.0, "weight_decay": 0.1}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "weight_decay": 0.1}),
]


def models() -> tuple[Any, Any]:
    torch.manual_seed(0)
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    theirs = theirs.double()
    ours = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    state = {k: treadle.from_numpy(v.numpy().copy()) for k, v in theirs.state_dict().items()}
    ours.load_state_dict(state)
    return ours, theirs


def agree(ours: Any, theirs: Any, tolerance: float = 1e-9) -> None:
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        a, b = p.detach().numpy(), q.detach().numpy()
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance / 10, err_msg=name)


def losses(ours: Any, theirs: Any) -> tuple[Any, Any]:
    a = ((ours(treadle.from_numpy(X)) - treadle.from_numpy(Y)) ** 2).mean()
    b = ((theirs(torch.from_numpy(X)) - torch.from_numpy(Y)) ** 2).mean()
    return a, b


def train(ours: Any, theirs: Any, first: Any, second: Any, steps: int = 5) -> None:
    for _ in range(steps):
        first.zero_grad()
        second.zero_grad()
        a, b = losses(ours, theirs)
        a.backward()
        b.backward()
        first.step()
        second.step()
        # PyTorch keeps the rates of these in single precision.
        agree(ours, theirs, 1e-6 if isinstance(first, (optim.NAdam, optim.ASGD)) else 1e-9)


@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda c: f"{c[0]}{c[1]}")
def test_trajectory_and_state(case: Any) -> None:
    name, options = case
    ours, theirs = models()
    first = getattr(optim, name)(ours.parameters(), **options)
    second = getattr(torch.optim, name)(theirs.parameters(), **options)
    assert repr(first) == repr(second)
    train(ours, theirs, first, second)
    mine, wanted = first.state_dict(), second.state_dict()
    assert mine["param_groups"] == wanted["param_groups"]
    assert list(mine["state"]) == list(wanted["state"])
    for key, state in wanted["state"].items():
        assert set(mine["state"][key]) == set(state)
        for part, value in state.items():
            if value is not None:
                np.testing.assert_allclose(mine["state"][key][part], value, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", OPTIMIZERS, ids=lambda c: f"{c[0]}{c[1]}")
def test_state_of_pytorch_is_taken_over(case: Any) -> None:
    name, options = case
    ours, theirs = models()
    second = getattr(torch.optim, name)(theirs.parameters(), **options)
    train(*models(), *_pair_of(name, options))
    for _ in range(3):
        second.zero_grad()
        losses(ours, theirs)[1].backward()
        second.step()
    saved = second.state_dict()
    ours.load_state_dict(
        {k: treadle.from_numpy(v.numpy().copy()) for k, v in theirs.state_dict().items()}
    )
    first = getattr(optim, name)(ours.parameters(), **options)
    first.load_state_dict({"param_groups": saved["param_groups"], "state": _converted(saved)})
    train(ours, theirs, first, second, 3)


def _pair_of(name: str, options: dict[str, Any]) -> tuple[Any, Any]:
    ours, theirs = models()
    return (
        getattr(optim, name)(ours.parameters(), **options),
        getattr(torch.optim, name)(theirs.parameters(), **options),
    )


def _converted(saved: Any) -> Any:
    return {
        key: {
            part: treadle.from_numpy(v.numpy().copy()) if torch.is_tensor(v) else v
            for part, v in state.items()
        }
        for key, state in saved["state"].items()
    }


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_lbfgs(search: str | None) -> None:
    ours, theirs = models()
    options: dict[str, Any] = {"lr": 0.5, "max_iter": 6, "line_search_fn": search}
    options["history_size"] = 4
    first = optim.LBFGS(ours.parameters(), **options)
    second = torch.optim.LBFGS(theirs.parameters(), **options)

    def mine() -> Any:
        first.zero_grad()
        loss = losses(ours, theirs)[0]
        loss.backward()
        return loss

    def yours() -> Any:
        second.zero_grad()
        loss = losses(ours, theirs)[1]
        loss.backward()
        return loss

    for _ in range(3):
        a, b = first.step(mine), second.step(yours)
        assert a.item() == pytest.approx(b.item(), rel=1e-6)
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.detach().numpy(), q.detach().numpy(), rtol=1e-5, atol=1e-7)
    assert first.state_dict()["state"][0]["func_evals"] == second.state_dict()["state"][0][
        "func_evals"]  # fmt: skip


S: Any = "lr_scheduler"
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("LambdaLR", {"lr_lambda": lambda e: 0.9**e}),
    ("MultiplicativeLR", {"lr_lambda": lambda e: 0.9}),
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5, 5], "gamma": 0.5}),
    ("ConstantLR", {"factor": 0.5, "total_iters": 4}),
    ("LinearLR", {"start_factor": 0.2, "end_factor": 0.9, "total_iters": 6}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("PolynomialLR", {"total_iters": 6, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 4, "eta_min": 0.01}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.01}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "mode": "triangular2"}),
    ("CyclicLR", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 2, "mode": "exp_range",
                  "gamma": 0.9}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 15}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 15, "anneal_strategy": "linear",
                    "three_phase": True, "pct_start": 0.4}),
]  # fmt: skip


def follow(make: Any, steps: int = 14, adam: bool = False) -> None:
    """The learning rates and momenta of a schedule in both libraries."""
    traces = []
    for library in (treadle, torch):
        p = (nn if library is treadle else torch.nn).Parameter(library.ones(1))
        kind, options = ("Adam", {}) if adam else ("SGD", {"momentum": 0.9})
        optimizer = getattr(library.optim, kind)([p], lr=0.2, **options)
        scheduler = make(library.optim.lr_scheduler, optimizer)
        trace = []
        for _ in range(steps):
            group = optimizer.param_groups[0]
            trace.append((group["lr"], group["betas"][0] if adam else group["momentum"]))
            assert scheduler.get_last_lr() == [group["lr"]]
            optimizer.step()
            scheduler.step()
        traces.append(trace)
    np.testing.assert_allclose(traces[0], traces[1], rtol=1e-12)


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize("case", SCHEDULES, ids=lambda c: f"{c[0]}{sorted(c[1])}")
def test_schedule(case: Any, adam: bool) -> None:
    name, options = case
    follow(lambda library, optimizer: getattr(library, name)(optimizer, **options), adam=adam)


def test_schedules_in_a_row() -> None:
    def make(library: Any, optimizer: Any) -> Any:
        parts = [
            library.LinearLR(optimizer, 0.1, total_iters=4),
            library.ExponentialLR(optimizer, 0.9),
            library.StepLR(optimizer, 2),
        ]
        return library.SequentialLR(optimizer, parts, [4, 9])

    follow(make)


def test_schedules_at_once() -> None:
    def make(library: Any, optimizer: Any) -> Any:
        parts = [library.ConstantLR(optimizer, 0.5, 4), library.ExponentialLR(optimizer, 0.9)]
        return library.ChainedScheduler(parts)

    follow(make)


@pytest.mark.parametrize("options", [{}, {"mode": "max", "threshold_mode": "abs"},
                                     {"cooldown": 2, "min_lr": 0.05}], ids=str)  # fmt: skip
def test_plateau(options: dict[str, Any]) -> None:
    metrics = [1.0, 0.9, 0.95, 0.97, 0.9, 0.91, 0.92, 0.8, 0.85, 0.9, 0.95, 0.99, 1.2, 1.3]
    rates = []
    for library in (treadle, torch):
        p = (nn if library is treadle else torch.nn).Parameter(library.ones(1))
        optimizer = library.optim.SGD([p], lr=0.2)
        scheduler = library.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=0.5, patience=1, **options
        )
        rates.append([])
        for value in metrics:
            scheduler.step(value)
            rates[-1].append(optimizer.param_groups[0]["lr"])
    assert rates[0] == rates[1]
