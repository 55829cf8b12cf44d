"""Reading a value before `backward()` changes no gradient: it splits the step into two plans."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn


def _gradients(make: Any, shape: tuple[int, ...], read: bool) -> dict[str, Any]:
    treadle.manual_seed(3)
    model = make().double().eval()
    rng = np.random.default_rng(0)
    with treadle.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith(("weight", "running_var")):
                value.copy_(treadle.from_numpy(rng.uniform(1, 2, tuple(value.shape))))
    out = model(treadle.from_numpy(rng.standard_normal(shape)))
    if read:
        out.detach().numpy()
    (out * out).sum().backward()
    return {n: p.grad.numpy().copy() for n, p in model.named_parameters()}


CASES = {
    "overlapping pool": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    ),
    "pool of its own size": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2)
    ),
    "average pool": lambda: nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.GELU(), nn.AvgPool2d(3, 2, 1)
    ),
    "two blocks": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 1, 1),
        nn.Conv2d(4, 4, 3, 2), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_gradients_are_the_same(case: str) -> None:
    shape = (2, 3, 32, 32)
    plain, read = (_gradients(CASES[case], shape, r) for r in (False, True))
    for name, want in plain.items():
        np.testing.assert_allclose(read[name], want, rtol=1e-10, err_msg=name)
