"""Every layer: names, printed form, parameters, values, first and second gradients, buffers."""

from __future__ import annotations

import inspect

import pytest
import torch
from cases import LAYERS, LAYERS_WITHOUT_CASE
from compare import Disagreement
from convert import Untranslatable
from gaps import known_layer
from layers import Case, agree, shipped, shipped_names

from treadle import nn

MOST = 24
"""Configurations of one layer, mode and dtype that are run."""
HERE = [name for name in shipped_names() if hasattr(nn, name)]


def _spread(cases: list[Case]) -> list[Case]:
    """So many of the configurations, over the whole range."""
    return cases[:: -(-len(cases) // MOST)] if cases else []


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(("dtype", "order"), [("float64", 2), ("float32", 1)])
@pytest.mark.parametrize("name", HERE)
def test_shipped_configurations(name: str, dtype: str, order: int, training: bool) -> None:
    """The configurations that PyTorch tests its own layer with."""
    failed = []
    for case in _spread(list(shipped(name, dtype, training))):
        try:
            agree(case, dtype, training, order)
        except Untranslatable:
            continue
        except Exception as error:  # every kind of failure is one line of the report
            reason = f"{type(error).__name__}: {error}".split("\n")[0]
            if known_layer(name, reason) is None:
                failed.append(f"{reason}\n    {case.args} {case.kwargs}")
    assert not failed, f"{len(failed)} configurations of {name} differ:\n" + "\n".join(failed[:5])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", LAYERS, ids=lambda c: f"{c.name}{c.args}{c.kwargs or ''}")
def test_own_configurations(case: Case, training: bool) -> None:
    """Layers that PyTorch ships no configurations for, in float64 to the second gradient."""
    torch.manual_seed(0)
    inputs = tuple(x.clone().requires_grad_() if x.is_floating_point() else x for x in case.inputs)
    try:
        agree(Case(case.name, case.args, case.kwargs, inputs, case.options), "float64", training, 2)
    except Disagreement as error:
        reason = known_layer(case.name, str(error))
        if reason is None:
            raise
        pytest.xfail(reason)


def test_every_layer_is_covered() -> None:
    """A public layer has configurations, or a reason why not."""
    layers = {
        name for name, value in vars(nn).items()
        if inspect.isclass(value) and issubclass(value, nn.Module) and not name.startswith("_")
    }  # fmt: skip
    covered = set(HERE) | {case.name for case in LAYERS} | set(LAYERS_WITHOUT_CASE)
    assert layers <= covered, f"no configuration: {sorted(layers - covered)}"
    assert not set(LAYERS_WITHOUT_CASE) - layers, "a reason for what is not here"
