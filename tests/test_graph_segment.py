"""Segments: composites that are copied from where they were recorded before give the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.graph.capture import TRIE
from treadle.tensor.record import block, scalar

ARRAY = np.random.default_rng(0).standard_normal((4, 6))


def _scaled(x: Any, y: Any, by: float) -> Any:
    return (x + y) * scalar(by, x.dtype), x - y


def _both(a: Any, b: Any, by: float = 3.0) -> list[Any]:
    return [t.numpy() for t in block(_scaled, (a, b), (by,))]


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing is known beforehand."""
    TRIE.forget()


def test_copies_compute_what_the_first_recording_did() -> None:
    a, b = treadle.from_numpy(ARRAY), treadle.from_numpy(ARRAY + 1)
    first = _both(a, b)
    known = len(TRIE.segments)
    assert known
    # Another trace, other positions, and values in between.
    c = (a * 2).exp()
    second = _both(c, b)
    assert len(TRIE.segments) == known
    np.testing.assert_allclose(first[0], (2 * ARRAY + 1) * 3, rtol=1e-12)
    want = np.exp(2 * ARRAY)
    np.testing.assert_allclose(second[0], (want + ARRAY + 1) * 3, rtol=1e-12)
    np.testing.assert_allclose(second[1], want - ARRAY - 1, rtol=1e-12)


def test_what_is_one_input_stays_one() -> None:
    a, b = treadle.from_numpy(ARRAY), treadle.from_numpy(ARRAY + 1)
    _both(a, b)
    np.testing.assert_array_equal(_both(a, a)[1], np.zeros_like(ARRAY))
    np.testing.assert_allclose(_both((b * 2), b)[1], ARRAY + 1, rtol=1e-12, atol=1e-14)


def test_other_types_and_numbers_are_recorded_anew() -> None:
    a = treadle.from_numpy(ARRAY)
    _both(a, a)
    narrow = treadle.from_numpy(ARRAY[:2].astype(np.float32))
    assert _both(narrow, narrow)[0].dtype == np.float32
    np.testing.assert_allclose(_both(a, a, 5.0)[0], ARRAY * 10, rtol=1e-12)


def test_gradients_flow_through_copies() -> None:
    want = None
    for depth in (0, 1, 2):
        x = treadle.from_numpy(ARRAY.copy()).requires_grad_()
        y = x
        for _ in range(depth):
            y = y + 0.0
        sums, difference = block(_scaled, (y, y * y), (2.0,))
        (sums + difference).sum().backward()
        want = 2 * (1 + 2 * ARRAY) + 1 - 2 * ARRAY
        np.testing.assert_allclose(x.grad.numpy(), want)
        assert sums.requires_grad
        with treadle.no_grad():
            assert not block(_scaled, (y, y), (2.0,))[0].requires_grad


def test_equal_layers_train_as_different_ones() -> None:
    """Three layers of one shape: all but the first are copies."""
    treadle.manual_seed(0)
    layers = [nn.Linear(6, 6, dtype=treadle.float64) for _ in range(3)]
    norms = [nn.LayerNorm(6, dtype=treadle.float64) for _ in range(3)]
    weights = [layer.weight.detach().numpy().copy() for layer in layers]
    biases = [layer.bias.detach().numpy().copy() for layer in layers]
    parameters = [p for m in (*layers, *norms) for p in m.parameters()]
    optimizer = treadle.optim.SGD(parameters, lr=0.1)
    x = treadle.from_numpy(ARRAY)
    for layer, norm in zip(layers, norms, strict=True):
        x = norm(layer(x))
    got = x.detach().numpy()
    want = ARRAY
    for w, b in zip(weights, biases, strict=True):
        y = want @ w.T + b
        y = y - y.mean(1, keepdims=True)
        want = y / np.sqrt((y * y).mean(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    before = [p.detach().numpy().copy() for p in parameters]
    (x * x * x).sum().backward()
    grads = [p.grad.numpy().copy() for p in parameters]
    optimizer.step()
    for p, old, g in zip(parameters, before, grads, strict=True):
        np.testing.assert_allclose(p.detach().numpy(), old - 0.1 * g, rtol=1e-9, atol=1e-12)
