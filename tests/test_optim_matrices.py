"""Optimisers of matrices: Muon's orthogonal steps, Adafactor's factored second moments."""

from __future__ import annotations

import numpy as np
import pytest

import treadle as t
from treadle import nn, optim
from treadle.optim.muon import orthogonal


@pytest.mark.parametrize("shape", [(6, 6), (3, 8), (8, 3)])
def test_the_steps_make_a_matrix_nearly_orthogonal(shape: tuple[int, int]) -> None:
    """Singular values come close to 1 and singular vectors stay."""
    t.manual_seed(0)
    x = t.randn(*shape)
    out = orthogonal(x, (3.4445, -4.775, 2.0315), 1e-7, 5).float().numpy().astype(np.float64)
    u, _, vh = np.linalg.svd(x.numpy().astype(np.float64), full_matrices=False)
    assert np.all(np.abs(np.linalg.svd(out, compute_uv=False) - 1) < 0.4)
    core = u.T @ out @ vh.T
    assert np.abs(core - np.diag(np.diag(core))).max() < 0.1


def test_muon_takes_matrices_only() -> None:
    with pytest.raises(ValueError, match="2D"):
        optim.Muon([nn.Parameter(t.ones(3))])


@pytest.mark.parametrize("shape", [(4, 5), (2, 3, 4), (6,)])
def test_adafactor(shape: tuple[int, ...]) -> None:
    """Three steps against the formulas of the paper in NumPy."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=shape)
    p = nn.Parameter(t.tensor(x))
    optimizer = optim.Adafactor([p], lr=0.3, weight_decay=0.1)
    row = column = v = 0.0
    eps, axes = np.finfo(np.float64).eps, tuple(range(len(shape)))
    for step in range(1, 4):
        g = rng.normal(size=shape)
        p.grad = t.tensor(g)
        optimizer.step()
        share, rate = step**-0.8, min(0.3, step**-0.5)
        if len(shape) > 1:
            row = row + ((g**2).mean(-1, keepdims=True) - row) * share
            column = column + ((g**2).mean(-2, keepdims=True) - column) * share
            v = row * column / np.maximum(row.mean(-2, keepdims=True), eps)
        else:
            v = v + (g**2 - v) * share
        u = g / np.sqrt(np.maximum(v, eps**2))
        a = max(1e-3, np.sqrt((x**2).mean(axes))) * rate
        x = x * (1 - 0.03) - a * u / max(1.0, np.sqrt((u**2).mean(axes)))
        np.testing.assert_allclose(p.detach().numpy(), x, rtol=1e-10)


def test_state_is_saved() -> None:
    p, q = (nn.Parameter(t.ones(3, 2)) for _ in range(2))
    for make in (optim.Muon, optim.Adafactor):
        first, second = make([p]), make([q])
        p.grad = t.ones(3, 2)
        first.step()
        second.load_state_dict(first.state_dict())
        a, b = first.state_dict()["state"][0], second.state_dict()["state"][0]
        assert {k: v.tolist() for k, v in a.items()} == {k: v.tolist() for k, v in b.items()}
