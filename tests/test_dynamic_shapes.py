"""Many shapes in a row: no machine code after a few of them, and the right values for all."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

import treadle
import treadle.nn.functional as f
from treadle import nn
from treadle.codegen.compile import counts

SHAPES = [(9, 23), (3, 50), (31, 4), (12, 12), (4, 33), (7, 64), (16, 16), (5, 7), (2, 41), (8, 9)]


def trained(model: Any, optimizer: Any, x: Any, y: Any) -> float:
    optimizer.zero_grad()
    loss = f.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()
    return float(loss.item())


class Words(nn.Module):
    """Scores of words from themselves and, by attention, from all of their text."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 16)
        self.encoder = nn.TransformerEncoderLayer(16, 2, 32, 0.0, batch_first=True)
        self.out = nn.Linear(16, 5)

    def forward(self, words: Any) -> Any:
        return self.out(self.encoder(self.embedding(words)).mean(1))


def test_training_on_many_shapes_compiles_nothing() -> None:
    treadle.manual_seed(0)
    rng = np.random.default_rng(0)
    model = Words()
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step(n: int, length: int) -> None:
        words = treadle.from_numpy(rng.integers(0, 20, (n, length)))
        trained(model, optimizer, words, treadle.from_numpy(rng.integers(0, 5, n)))

    for shape in [(6, 20), (10, 11), (14, 37), (3, 5)]:
        step(*shape)
    before = counts.compiled + counts.loaded
    for shape in SHAPES:
        step(*shape)
    assert counts.compiled + counts.loaded == before


def test_each_shape_trains_as_if_it_were_the_only_one() -> None:
    """The same batches, one by one: with PyTorch's arithmetic written out in NumPy."""
    rng = np.random.default_rng(1)
    w = rng.standard_normal((5, 7))
    weight = treadle.from_numpy(w.copy()).requires_grad_()
    for n, _ in SHAPES:
        x, y = rng.standard_normal((n, 7)), rng.integers(0, 5, n)
        scores = treadle.from_numpy(x) @ weight.t()
        loss = f.cross_entropy(scores, treadle.from_numpy(y))
        weight.grad = None
        loss.backward()
        z = x @ w.T
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        assert loss.item() == pytest.approx(-np.log(p[np.arange(n), y]).mean())
        p[np.arange(n), y] -= 1
        np.testing.assert_allclose(weight.grad.numpy(), p.T @ x / n, rtol=1e-9, atol=1e-12)


def test_a_cache_grows_without_new_code() -> None:
    rng = np.random.default_rng(2)
    keys = values = treadle.zeros(1, 2, 0, 8, dtype=treadle.float64)
    seen: list[Any] = []
    before = 0
    for length in range(1, 24):
        if length == 8:
            before = counts.compiled + counts.loaded
        seen.append(rng.standard_normal((3, 1, 2, 1, 8)))
        q, k, v = map(treadle.from_numpy, seen[-1])
        with treadle.no_grad():
            keys, values = treadle.cat([keys, k], 2), treadle.cat([values, v], 2)
            out = f.scaled_dot_product_attention(q, keys, values).numpy()
        k_all, v_all = (np.concatenate([s[i] for s in seen], 2) for i in (1, 2))
        scores = seen[-1][0] @ k_all.transpose(0, 1, 3, 2) / np.sqrt(8)
        p = np.exp(scores - scores.max(3, keepdims=True))
        np.testing.assert_allclose(out, p / p.sum(3, keepdims=True) @ v_all, rtol=1e-9)
    assert counts.compiled + counts.loaded == before


def test_numbers_made_from_sizes_are_new_for_each() -> None:
    for n in (10, 12, 15, 20, 3):
        x = np.arange(n * 4.0).reshape(n, 4)
        t = treadle.from_numpy(x)
        np.testing.assert_allclose((t / n).numpy(), x / n)
        np.testing.assert_allclose((t * treadle.full((4,), 1 / n)).numpy(), x / n, rtol=1e-6)
        np.testing.assert_allclose(t.var(0).numpy(), x.var(0, ddof=1))
        np.testing.assert_array_equal(treadle.arange(n).flip(0).numpy(), np.arange(n)[::-1])


def test_wrong_shapes_are_errors_also_after_right_ones() -> None:
    for n in (10, 12, 15):
        treadle.ones(n, 4).matmul(treadle.ones(4, 3)).numpy()
    with pytest.raises(ValueError, match=r"[45]"):
        treadle.ones(17, 5).matmul(treadle.ones(4, 3))


def test_planning_leaves_the_collector_as_it_was() -> None:
    treadle.ones(41, 3).exp().numpy()
    assert gc.isenabled()
    gc.disable()
    try:
        treadle.ones(43, 3, 2).exp().numpy()
        assert not gc.isenabled()
    finally:
        gc.enable()
