"""Whole training steps: plan against reference, in place updates, few launches, one pattern."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from graph_models import Step, arrays_for, attention_step, conv_step, mlp_step
from plan_interpreter import run_plan

from treadle.base.settings import settings
from treadle.graph.build import build, structural_key
from treadle.graph.plan import Plan
from treadle.ops.reference import evaluate


@pytest.fixture(autouse=True)
def checked() -> Iterator[None]:
    """Every pass is verified."""
    before, settings.check = settings.check, True
    yield
    settings.check = before


SMALL = {
    "mlp": lambda: mlp_step(6, 8, 5, 7),
    "conv": lambda: conv_step(3, 10, (4, 8), 6, 5),
    "padded conv": lambda: conv_step(2, 7, (4, 3), 6, 5, 1),
    "attention": lambda: attention_step(2, 2, 5, 8),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_training_step_agrees_with_the_reference(name: str) -> None:
    step: Step = SMALL[name]()
    arrays = arrays_for(step, classes=5)
    want = evaluate(step.outputs, dict(zip(step.inputs, arrays, strict=True)))
    plan = build(step.outputs, step.inputs, step.donated)
    for g, w in zip(run_plan(plan, [np.array(a) for a in arrays]), want, strict=True):
        np.testing.assert_allclose(g, w, rtol=3e-4, atol=3e-5)
