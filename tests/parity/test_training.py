"""Trajectories of ten steps: every optimiser, every schedule, and layers under both."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from compare import same
from convert import translated
from gaps import OPTIMIZERS_WITHOUT_CASE, SCHEDULES_WITHOUT_CASE
from torch.testing._internal.common_optimizers import optim_db

import treadle
from treadle import nn, optim

STEPS = 10
SLACK = 1e3
"""A trajectory multiplies rounding: of a step it is the bound of the op table, of ten this."""

ROUNDED = {"Muon": 2e9}
"""Of optimisers that compute in bfloat16, where each order of a sum rounds differently: times the
learning rate."""

_FREE = ("foreach", "fused", "capturable", "differentiable")
CONFIGURATIONS = [
    pytest.param(info.optim_cls.__name__, case.kwargs, id=f"{info.optim_cls.__name__}-{case.desc}")
    for info in optim_db
    if hasattr(optim, info.optim_cls.__name__)
    for case in info.optim_inputs_func(device="cpu")
]

MODELS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "dense": (lambda n: n.Sequential(n.Linear(6, 5), n.Tanh(), n.Linear(5, 3)), (7, 6)),
    "convolution": (
        lambda n: n.Sequential(
            n.Conv2d(2, 4, 3, padding=1), n.BatchNorm2d(4), n.ReLU(), n.MaxPool2d(2),
            n.Conv2d(4, 3, 3), n.AdaptiveAvgPool2d(1), n.Flatten(),
        ),
        (3, 2, 8, 8),
    ),
    "normalised": (
        lambda n: n.Sequential(n.Linear(6, 8), n.LayerNorm(8), n.GELU(), n.Linear(8, 3)), (7, 6)
    ),
    "attention": (
        lambda n: n.Sequential(n.TransformerEncoderLayer(6, 2, 12, 0.0, batch_first=True),
                               n.Linear(6, 3)),
        (2, 4, 6),
    ),
}  # fmt: skip

SCHEDULES: tuple[tuple[str, dict[str, Any]], ...] = (
    ("StepLR", {"step_size": 3, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [2, 5], "gamma": 0.3}),
    ("ConstantLR", {"factor": 0.25, "total_iters": 4}),
    ("LinearLR", {"start_factor": 0.2, "total_iters": 5}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("PolynomialLR", {"total_iters": 6, "power": 2.0}),
    ("CosineAnnealingLR", {"T_max": 4, "eta_min": 0.001}),
    ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 2}),
    ("CyclicLR", {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 3, "cycle_momentum": False}),
    ("CyclicLR", {"base_lr": 0.001, "max_lr": 0.1, "step_size_up": 2, "mode": "triangular2"}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 12}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 12, "anneal_strategy": "linear"}),
    ("LambdaLR", {"lr_lambda": lambda n: 0.9**n}),
    ("MultiplicativeLR", {"lr_lambda": lambda n: 0.95}),
    ("ReduceLROnPlateau", {"patience": 1, "factor": 0.5}),
)


def _models(name: str) -> tuple[Any, Any, Any, Any]:
    """A model of each library with the same parameters, and inputs for it."""
    make, shape = MODELS[name]
    torch.manual_seed(0)
    theirs = make(torch.nn).double()
    ours = make(nn).double()
    ours.load_state_dict({k: translated(v) for k, v in theirs.state_dict().items()})
    inputs = torch.randn(STEPS, *shape, dtype=torch.float64)
    return ours, theirs, translated(inputs), inputs


def _step(library: Any, model: Any, optimizer: Any, x: Any) -> Any:
    def closure() -> Any:
        optimizer.zero_grad()
        loss = (model(x) - 0.3).square().mean()
        loss.backward()
        return loss

    return optimizer.step(closure)


def _same(ours: Any, theirs: Any, step: int, slack: float = SLACK) -> None:
    for (name, p), (_, q) in zip(
        ours.state_dict().items(), theirs.state_dict().items(), strict=True
    ):
        same([p], [q], f"{name} after step {step}", slack=slack)


@pytest.mark.parametrize(("name", "options"), CONFIGURATIONS)
def test_optimizer(name: str, options: dict[str, Any]) -> None:
    """The configurations that PyTorch tests its own optimiser with."""
    ours, theirs, x, y = _models("dense")
    theirs_options = {k: v for k, v in options.items() if k not in _FREE}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "Muon":  # takes matrices only
            theirs, ours = (torch.nn.Linear(6, 5, bias=False).double(),
                            nn.Linear(6, 5, bias=False).double())  # fmt: skip
            ours.load_state_dict({k: translated(v) for k, v in theirs.state_dict().items()})
        mine = getattr(optim, name)(ours.parameters(), **translated(theirs_options))
        yours = getattr(torch.optim, name)(theirs.parameters(), **theirs_options)
    for step in range(STEPS):
        # LBFGS evaluates up to 20 times a step: on changing data without a search it diverges.
        i, steps = (0, 2) if name == "LBFGS" else (step, STEPS)
        if step < steps:
            loss, wish = _step(treadle, ours, mine, x[i]), _step(torch, theirs, yours, y[i])
            rounded = ROUNDED.get(name, 0.0) * float(options.get("lr", 1e-3))
            slack = max(rounded, SLACK)
            same([loss], [wish], f"loss of step {step}", slack=slack)
            _same(ours, theirs, step, slack)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("name", "options"),
    [("SGD", {"lr": 0.05, "momentum": 0.9}), ("AdamW", {"lr": 0.01}), ("RMSprop", {"lr": 0.01})],
)
def test_model(model: str, name: str, options: dict[str, Any]) -> None:
    """Small models of several kinds under several optimisers."""
    ours, theirs, x, y = _models(model)
    mine = getattr(optim, name)(ours.parameters(), **options)
    yours = getattr(torch.optim, name)(theirs.parameters(), **options)
    for step in range(STEPS):
        _step(treadle, ours, mine, x[step])
        _step(torch, theirs, yours, y[step])
        _same(ours, theirs, step)


@pytest.mark.parametrize(("name", "options"), SCHEDULES, ids=lambda v: str(v)[:40])
def test_schedule(name: str, options: dict[str, Any]) -> None:
    """Learning rates, momenta and parameters under a schedule."""
    ours, theirs, x, y = _models("dense")
    mine = optim.SGD(ours.parameters(), lr=0.05, momentum=0.8)
    yours = torch.optim.SGD(theirs.parameters(), lr=0.05, momentum=0.8)
    schedule = getattr(optim.lr_scheduler, name)(mine, **options)
    wished = getattr(torch.optim.lr_scheduler, name)(yours, **options)
    for step in range(STEPS):
        loss, wish = _step(treadle, ours, mine, x[step]), _step(torch, theirs, yours, y[step])
        metric = name == "ReduceLROnPlateau"
        schedule.step(*([loss.item()] if metric else []))
        wished.step(*([wish.item()] if metric else []))
        for key in ("lr", "momentum"):
            assert mine.param_groups[0][key] == pytest.approx(yours.param_groups[0][key], rel=1e-12)
        _same(ours, theirs, step)


def test_every_optimizer_and_schedule_is_covered() -> None:
    """A public optimiser or schedule has a configuration, or a reason why not."""
    ran = {p.values[0] for p in CONFIGURATIONS} | set(OPTIMIZERS_WITHOUT_CASE)
    assert {n for n in dir(torch.optim) if _is(torch.optim, n, torch.optim.Optimizer)} <= ran
    scheduled = {name for name, _ in SCHEDULES} | set(SCHEDULES_WITHOUT_CASE)
    base = torch.optim.lr_scheduler.LRScheduler
    theirs = {n for n in dir(torch.optim.lr_scheduler) if _is(torch.optim.lr_scheduler, n, base)}
    assert theirs <= scheduled


def _is(module: Any, name: str, base: type) -> bool:
    value = getattr(module, name)
    return isinstance(value, type) and issubclass(value, base) and not name.startswith("_")
