"""Layers and losses against NumPy and finite differences, and what users do wrong."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.base.errors import DTypeError, IndexBoundsError, ShapeError
from treadle.nn import functional as F


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def slope(f: Callable[..., Any], arrays: list[np.ndarray], i: int, step: float = 1e-6) -> Any:
    """Central differences of a scalar function by one of its arguments."""
    out = np.zeros_like(arrays[i])
    for place in np.ndindex(out.shape):
        values = []
        for sign in (1, -1):
            moved = [a.copy() for a in arrays]
            moved[i][place] += sign * step
            values.append(f(*[treadle.from_numpy(a) for a in moved]).item())
        out[place] = (values[0] - values[1]) / (2 * step)
    return out


GRADIENTS: dict[str, tuple[Callable[..., Any], list[np.ndarray]]] = {
    "linear": (lambda x, w, b: F.linear(x, w, b), [draw(3, 4), draw(2, 4, seed=1), draw(2)]),
    "conv2d": (
        lambda x, w: F.conv2d(x, w, stride=2, padding=1),
        [draw(1, 2, 4, 3), draw(2, 2, 2, 2, seed=1)],
    ),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), [draw(1, 2, 4, 5)]),
    "max_pool2d overlapping": (lambda x: F.max_pool2d(x, 3, 1, 1), [draw(1, 1, 4, 4)]),
    "avg_pool2d": (lambda x: F.avg_pool2d(x, 2, 1, 1), [draw(1, 1, 3, 4)]),
    "softmax": (lambda x: F.softmax(x, 1), [draw(3, 4)]),
    "log_softmax": (lambda x: F.log_softmax(x, 0), [draw(3, 4)]),
    "gelu": (lambda x: F.gelu(x), [draw(3, 4)]),
    "mish": (lambda x: F.mish(x), [draw(3, 4)]),
    "layer_norm": (lambda x, w: F.layer_norm(x, (4,), w), [draw(3, 4), draw(4, seed=1)]),
    "batch_norm": (
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        [draw(4, 3), draw(3, seed=1), draw(3, seed=2)],
    ),
    "group_norm": (lambda x: F.group_norm(x, 2), [draw(2, 4, 3)]),
    "cross_entropy": (
        lambda x: F.cross_entropy(x, treadle.tensor([1, 0, 3]), label_smoothing=0.1),
        [draw(3, 4)],
    ),
    "bce_with_logits": (
        lambda x: F.binary_cross_entropy_with_logits(x, treadle.from_numpy(np.full((2, 3), 0.3))),
        [draw(2, 3)],
    ),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_is_the_slope(name: str) -> None:
    function, arrays = GRADIENTS[name]
    shape = tuple(function(*[treadle.from_numpy(a) for a in arrays]).shape)
    weight = treadle.from_numpy(draw(*shape, seed=9))

    def loss(*tensors: Any) -> Any:
        return (function(*tensors) * weight).sum()

    tensors = [treadle.from_numpy(a).requires_grad_() for a in arrays]
    loss(*tensors).backward()
    for i, t in enumerate(tensors):
        np.testing.assert_allclose(t.grad.numpy(), slope(loss, arrays, i), rtol=1e-5, atol=1e-7)


def test_linear_is_a_product() -> None:
    x, w, b = draw(2, 3, 4), draw(5, 4, seed=1), draw(5, seed=2)
    out = F.linear(*map(treadle.from_numpy, (x, w, b)))
    np.testing.assert_allclose(out.numpy(), x @ w.T + b)


def test_cross_entropy_is_the_log_of_the_softmax() -> None:
    x, y = draw(6, 4) * 5, np.array([0, 1, 2, 3, 1, 0])
    p = np.exp(x) / np.exp(x).sum(1, keepdims=True)
    out = F.cross_entropy(treadle.from_numpy(x), treadle.from_numpy(y))
    np.testing.assert_allclose(out.item(), -np.log(p[np.arange(6), y]).mean())


def test_cross_entropy_does_not_overflow() -> None:
    x = treadle.tensor([[1e4, -1e4, 0.0]]).requires_grad_()
    loss = F.cross_entropy(x, treadle.tensor([1]))
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert x.grad.tolist() == [[1.0, -1.0, 0.0]]


def test_half_precision_sums_in_float32() -> None:
    x = treadle.from_numpy(draw(4, 3000).astype(np.float32)).half()
    out = F.layer_norm(x, (3000,))
    assert out.dtype is treadle.float16
    y = x.float().numpy()
    wanted = (y - y.mean(1, keepdims=True)) / np.sqrt(y.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(out.float().numpy(), wanted, atol=2e-3)


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [4, -1])
def test_labels_out_of_range_fail_the_run(label: int) -> None:
    x = treadle.zeros(2, 4).requires_grad_()
    loss = F.cross_entropy(x, treadle.tensor([0, label]))
    with pytest.raises(IndexBoundsError, match=r"Target is out of bounds.*\[0, 4\)"):
        loss.item()


def test_ignored_labels_may_be_anything() -> None:
    x = treadle.zeros(2, 4)
    assert F.cross_entropy(x, treadle.tensor([0, -100])).item() == pytest.approx(math.log(4))
    assert F.cross_entropy(x, treadle.tensor([0, 9]), ignore_index=9).item() == pytest.approx(
        math.log(4)
    )


def test_labels_that_do_not_fit_are_refused_at_once() -> None:
    x = treadle.zeros(2, 4)
    with pytest.raises(ShapeError, match=r"shape \(2, 4\).*should have \(2,\).*\(2, 1\).*squeeze"):
        F.cross_entropy(x, treadle.tensor([[0], [1]]))
    with pytest.raises(DTypeError, match=r"whole numbers.*float32.*\(2,\).*target.long"):
        F.cross_entropy(x, treadle.tensor([0.0, 1.0]))
    with pytest.raises(ShapeError, match=r"argmax"):
        F.cross_entropy(x, treadle.tensor([[0, 0, 0, 1], [1, 0, 0, 0]]))


def test_shapes_that_do_not_fit_are_named() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 5\) has 5 features.*\(3, 4\)\s+takes 4.*reshape"):
        nn.Linear(4, 3)(treadle.zeros(2, 5))
    with pytest.raises(ShapeError, match=r"expected input.*to have 3 channels, but got 2"):
        nn.Conv2d(3, 4, 3)(treadle.zeros(1, 2, 8, 8))
    with pytest.raises(DTypeError, match="float64"):
        nn.Linear(4, 3)(treadle.zeros(2, 4, dtype=treadle.float64))
    with pytest.raises(ShapeError, match="larger than the padded input"):
        F.max_pool2d(treadle.zeros(1, 1, 2, 2), 3)
    with pytest.raises(ValueError, match="expected 4D input"):
        nn.BatchNorm2d(3)(treadle.zeros(2, 3))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        nn.BatchNorm1d(3)(treadle.zeros(1, 3))


def test_embedding_out_of_range_fails_the_run() -> None:
    out = nn.Embedding(3, 2)(treadle.tensor([0, 3]))
    with pytest.raises(IndexBoundsError, match="3 rows"):
        out.tolist()


def test_losses_warn_of_broadcasting() -> None:
    with pytest.warns(UserWarning, match="target size"):
        F.mse_loss(treadle.zeros(2, 1), treadle.zeros(2))


# --- random layers -----------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_dropout_keeps_the_mean(p: float) -> None:
    treadle.manual_seed(1)
    x = treadle.ones(200, 100).requires_grad_()
    out = F.dropout(x, p)
    out.sum().backward()
    values = out.detach().numpy()
    kept = values != 0
    assert abs(kept.mean() - (1 - p)) < 0.02
    np.testing.assert_allclose(values[kept], 1 / (1 - p) if p < 1 else 0, rtol=1e-6)
    np.testing.assert_array_equal(x.grad.numpy() != 0, kept)


def test_dropout_draws_anew_and_repeats_by_seed() -> None:
    layer, x = nn.Dropout(0.5), treadle.ones(100)
    treadle.manual_seed(3)
    a, b = layer(x).numpy(), layer(x).numpy()
    treadle.manual_seed(3)
    c = layer(x).numpy()
    assert (a != b).any() and (a == c).all()
    assert layer.eval()(x) is x


def test_dropout_of_channels() -> None:
    treadle.manual_seed(0)
    out = nn.Dropout2d(0.5)(treadle.ones(8, 16, 3, 3)).numpy()
    assert (out.reshape(128, 9).std(1) == 0).all() and 0 < (out[:, :, 0, 0] == 0).mean() < 1


def test_running_statistics_move_towards_the_batch() -> None:
    layer = nn.BatchNorm1d(3, momentum=0.25)
    x = draw(50, 3).astype(np.float32) * 2 + 1
    layer(treadle.from_numpy(x))
    assert not layer.running_mean.requires_grad
    np.testing.assert_allclose(layer.running_mean.numpy(), 0.25 * x.mean(0), rtol=1e-5)
    wanted = 0.75 + 0.25 * x.var(0, ddof=1)
    np.testing.assert_allclose(layer.running_var.numpy(), wanted, rtol=1e-5)
    assert layer.num_batches_tracked.item() == 1


# --- initial values ----------------------------------------------------------------------------

SPREAD: list[tuple[Callable[..., Any], float]] = [
    (lambda t: nn.init.uniform_(t, -1, 2), 3 / math.sqrt(12)),
    (lambda t: nn.init.normal_(t, 1, 0.5), 0.5),
    (lambda t: nn.init.xavier_uniform_(t, 2.0), 2 * math.sqrt(2 / 500)),
    (lambda t: nn.init.xavier_normal_(t), math.sqrt(2 / 500)),
    (lambda t: nn.init.kaiming_uniform_(t, nonlinearity="relu"), math.sqrt(2 / 300)),
    (lambda t: nn.init.kaiming_normal_(t, 1.0, "fan_out"), math.sqrt(1 / 200)),
    (lambda t: nn.init.trunc_normal_(t, std=0.5), 0.5),
]


@pytest.mark.parametrize("case", range(len(SPREAD)))
def test_initial_values_have_the_right_spread(case: int) -> None:
    treadle.manual_seed(case)
    fill, std = SPREAD[case]
    p = nn.Parameter(treadle.empty(200, 300))
    assert fill(p) is p and p.requires_grad and p.is_leaf
    assert p.detach().numpy().std() == pytest.approx(std, rel=0.02)


def test_initial_values_with_structure() -> None:
    w = nn.init.orthogonal_(treadle.empty(4, 6), gain=2).numpy()
    np.testing.assert_allclose(w @ w.T, 4 * np.eye(4), atol=1e-5)
    x = treadle.from_numpy(draw(1, 3, 5, 5).astype(np.float32))
    kernel = nn.init.dirac_(treadle.empty(3, 3, 3, 3))
    np.testing.assert_allclose(F.conv2d(x, kernel, padding=1).numpy(), x.numpy())
    assert (nn.init.sparse_(treadle.empty(10, 5), 0.3).numpy() == 0).sum(0).tolist() == [3] * 5
    assert nn.init.eye_(treadle.empty(2, 2)).tolist() == [[1.0, 0.0], [0.0, 1.0]]
    t = nn.init.trunc_normal_(treadle.empty(10000), std=5.0).numpy()
    assert t.min() >= -2 and t.max() <= 2


def test_gains() -> None:
    assert nn.init.calculate_gain("relu") == math.sqrt(2)
    assert nn.init.calculate_gain("leaky_relu", 1) == 1
    with pytest.raises(ValueError, match="Unsupported nonlinearity"):
        nn.init.calculate_gain("cube")


# --- clipping ----------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0, math.inf])
def test_clipping_by_norm(p: float) -> None:
    layer = nn.Linear(3, 2)
    (layer(treadle.ones(1, 3)) * 5).sum().backward()
    before = [q.grad.numpy().copy() for q in layer.parameters()]
    flat = np.concatenate([g.ravel() for g in before])
    norm = np.linalg.norm(flat, p)
    total = nn.utils.clip_grad_norm_(layer.parameters(), 1.0, p)
    assert total.item() == pytest.approx(norm, rel=1e-5)
    for g, q in zip(before, layer.parameters(), strict=True):
        np.testing.assert_allclose(q.grad.numpy(), g / (norm + 1e-6), rtol=1e-5)


def test_clipping_by_value() -> None:
    p = nn.Parameter(treadle.tensor([1.0, -2.0]))
    (p * p).sum().backward()
    nn.utils.clip_grad_value_([p], 3.0)
    assert p.grad is not None and p.grad.tolist() == [2.0, -3.0]
    with pytest.raises(RuntimeError, match="non-finite"):
        p.grad.fill_(math.inf)
        nn.utils.clip_grad_norm_([p], 1.0, error_if_nonfinite=True)
