"""Layers of both libraries with the same parameters, and the configurations that are compared."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from compare import Disagreement, gradients, same, slack_of
from convert import leaves, results, translated
from torch.testing._internal.common_modules import module_db

import treadle
from treadle import nn

DRAWING = frozenset(
    [
        "Dropout",
        "Dropout1d",
        "Dropout2d",
        "Dropout3d",
        "AlphaDropout",
        "FeatureAlphaDropout",
        "RReLU",
        "FractionalMaxPool2d",
        "FractionalMaxPool3d",
    ]
)
"""Layers that draw random numbers while they train: then shapes alone are compared."""


@dataclass(frozen=True)
class Case:
    """One configuration of a layer: how it is made, and what it is called with."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    inputs: tuple[Any, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def shipped(name: str, dtype: str, training: bool) -> Iterator[Case]:
    """The configurations that PyTorch ships for a layer."""
    for info in module_db:
        if info.module_cls.__name__ != name:
            continue
        torch.manual_seed(0)
        found = info.module_inputs_func(
            info, "cpu", getattr(torch, dtype), requires_grad=True, training=training
        )
        for case in found:
            make, call = case.constructor_input, case.forward_input
            if call is not None:
                yield Case(name, make.args, make.kwargs, call.args, call.kwargs)


def shipped_names() -> list[str]:
    """The layers that PyTorch ships configurations for, once each."""
    return list(dict.fromkeys(info.module_cls.__name__ for info in module_db))


def pair(case: Case, dtype: str, training: bool) -> tuple[Any, Any]:
    """A layer of each library with the same parameters."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, case.name)(*case.args, **case.kwargs).to(getattr(torch, dtype))
    args, kwargs = translated((list(case.args), case.kwargs))
    ours = getattr(nn, case.name)(*args, **kwargs).to(getattr(treadle, dtype))
    return ours.train(training), theirs.train(training)


def share(ours: Any, theirs: Any) -> None:
    """Gives our layer the parameters of theirs; lazy ones have their shapes by now."""
    state = theirs.state_dict()
    if list(ours.state_dict()) != list(state):
        raise Disagreement(f"keys {list(ours.state_dict())}, PyTorch's {list(state)}")
    ours.load_state_dict({k: translated(v) for k, v in state.items()})


def agree(case: Case, dtype: str, training: bool, order: int) -> None:
    """Fails unless a configuration computes the same in both libraries, gradients included."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours, theirs = pair(case, dtype, training)
        inputs, options = translated((list(case.inputs), case.options), gradients=True)
        if repr(ours) != repr(theirs):
            raise Disagreement(f"printed as {ours!r}, PyTorch's {theirs!r}")
        if "Lazy" in case.name:
            theirs(*case.inputs, **case.options)
            ours(*inputs, **options)
        share(ours, theirs)
        yours = results(theirs(*case.inputs, **case.options))
        mine = results(ours(*inputs, **options))
    fixed = case.kwargs.get("_random_samples") is not None
    drawing = (training or "Fractional" in case.name) and case.name in DRAWING and not fixed
    slack = slack_of(mine)
    same(mine, yours, "value", not drawing, slack)
    if not drawing:
        x = [*leaves((inputs, options)), *ours.parameters()]
        y = [*leaves((list(case.inputs), case.options)), *theirs.parameters()]
        gradients(mine, yours, x, y, order, slack)
        for (key, b), (_, c) in zip(ours.named_buffers(), theirs.named_buffers(), strict=True):
            same([b], [c], f"buffer {key}", slack=slack)
