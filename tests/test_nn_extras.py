"""Layers on computed places, lazy layers, computed members, and calls with other parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.nn import functional as F
from treadle.nn.utils import functional_call, parametrizations, parametrize


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def both(name: str, arrays: list[np.ndarray], **options: Any) -> None:
    """A function in both libraries: values, and gradients of floating-point inputs."""
    torch = pytest.importorskip("torch")
    mine = [treadle.from_numpy(a.copy()) for a in arrays]
    yours = [torch.from_numpy(a.copy()) for a in arrays]
    for x, y in zip(mine, yours, strict=True):
        if x.dtype.is_floating_point:
            x.requires_grad_()
            y.requires_grad_()
    a, b = getattr(F, name)(*mine, **options), getattr(torch.nn.functional, name)(*yours, **options)
    np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-7, atol=1e-9)
    weight = draw(*a.shape, seed=9)
    (a * treadle.from_numpy(weight)).sum().backward()
    (b * torch.from_numpy(weight)).sum().backward()
    for x, y in zip(mine, yours, strict=True):
        if x.grad is None:
            assert y.grad is None or not y.grad.any()
        else:
            np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"padding": 1}, {"dilation": 2, "padding": 1}], ids=str)
def test_fold(options: dict[str, Any]) -> None:
    columns = F.unfold(treadle.zeros(2, 3, 6, 5), (3, 2), stride=1, **options)
    both("fold", [draw(*columns.shape)], output_size=(6, 5), kernel_size=(3, 2), **options)


def test_unpooling() -> None:
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(draw(2, 3, 6, 8))
    _, index = torch.nn.functional.max_pool2d(x, 2, return_indices=True)
    both("max_unpool2d", [draw(2, 3, 3, 4), index.numpy()], kernel_size=2)
    values, places = nn.MaxPool2d(2, return_indices=True)(treadle.from_numpy(x.numpy()))
    back = nn.MaxUnpool2d(2)(values, places)
    assert back.sum().item() == pytest.approx(values.sum().item())


GRID = np.random.default_rng(3).uniform(-1.3, 1.3, (2, 4, 5, 2))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("aligned", [True, False])
def test_sampling(mode: str, padding: str, aligned: bool) -> None:
    both("grid_sample", [draw(2, 3, 6, 7), GRID], mode=mode, padding_mode=padding,
         align_corners=aligned)  # fmt: skip


@pytest.mark.parametrize("aligned", [True, False])
def test_affine_grids(aligned: bool) -> None:
    both("affine_grid", [draw(2, 2, 3)], size=(2, 1, 3, 4), align_corners=aligned)


INDEX = np.array([0, 2, 2, 5, 1, 0, 3])


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 2])
def test_bags(mode: str, padding: int | None) -> None:
    offsets = np.array([0, 3, 3, 5])
    both("embedding_bag", [INDEX, draw(6, 4), offsets], mode=mode, padding_idx=padding)
    both("embedding_bag", [INDEX[:6].reshape(2, 3), draw(6, 4)], mode=mode, padding_idx=padding)


def test_bags_with_weights() -> None:
    torch = pytest.importorskip("torch")
    w = draw(7)
    options = {"mode": "sum"}
    a = F.embedding_bag(*map(treadle.from_numpy, (INDEX, draw(6, 4), np.array([0, 3]))),
                        per_sample_weights=treadle.from_numpy(w), **options)  # fmt: skip
    b = torch.nn.functional.embedding_bag(
        *map(torch.from_numpy, (INDEX, draw(6, 4), np.array([0, 3]))),
        per_sample_weights=torch.from_numpy(w), **options)  # fmt: skip
    np.testing.assert_allclose(a.numpy(), b.numpy())


# --- lazy layers -------------------------------------------------------------------------------


def test_lazy_layers_learn_from_their_first_input() -> None:
    net = nn.Sequential(
        nn.LazyConv2d(4, 3, padding=1), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(),
        nn.LazyLinear(2),
    )  # fmt: skip
    assert repr(net[-1]) == "LazyLinear(in_features=0, out_features=2, bias=True)"
    optimizer = optim.SGD(net.parameters(), lr=0.1)
    out = net(treadle.ones(5, 3, 4, 4))
    assert [type(m).__name__ for m in net] == [
        "Conv2d", "BatchNorm2d", "ReLU", "Flatten", "Linear",
    ]  # fmt: skip
    assert tuple(net[0].weight.shape) == (4, 3, 3, 3) and net[-1].in_features == 64
    before = net[-1].weight.detach().numpy().copy()
    assert np.abs(before).max() > 0
    (out * out).sum().backward()
    optimizer.step()
    assert (net[-1].weight.detach().numpy() != before).any()
    fresh = nn.LazyLinear(2)
    fresh.load_state_dict(net[-1].state_dict())
    assert fresh(treadle.ones(1, 64)).shape == (1, 2)
    np.testing.assert_array_equal(fresh.weight.detach().numpy(), net[-1].weight.detach().numpy())


def test_lazy_transposed_convolution() -> None:
    layer = nn.LazyConvTranspose1d(4, 3, groups=2)
    assert layer(treadle.ones(1, 6, 5)).shape == (1, 4, 7)
    assert tuple(layer.weight.shape) == (6, 2, 3)


# --- computed members --------------------------------------------------------------------------


def test_weight_norm_keeps_the_function_and_learns_norms_apart() -> None:
    layer = nn.Linear(4, 3)
    x = treadle.from_numpy(draw(2, 4).astype(np.float32))
    before, weight = layer(x).detach().numpy(), layer.weight.detach().numpy()
    parametrizations.weight_norm(layer)
    names = ["bias", "parametrizations.weight.original0", "parametrizations.weight.original1"]
    assert list(layer.state_dict()) == names
    np.testing.assert_allclose(layer(x).detach().numpy(), before, rtol=1e-5)
    layer(x).sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    assert parametrize.is_parametrized(layer, "weight")
    parametrize.remove_parametrizations(layer, "weight")
    assert type(layer) is nn.Linear and isinstance(layer.weight, nn.Parameter)
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-5)


def test_spectral_norm_is_one() -> None:
    treadle.manual_seed(0)
    layer = parametrizations.spectral_norm(nn.Linear(6, 5), n_power_iterations=20)
    largest = np.linalg.svd(layer.weight.detach().numpy(), compute_uv=False)[0]
    assert largest == pytest.approx(1.0, rel=1e-3)


def test_own_parametrizations_may_be_chained_and_assigned() -> None:
    class Double(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2

        def right_inverse(self, x: Any) -> Any:
            return x / 2

    layer = nn.Linear(2, 2, bias=False)
    weight = layer.weight.detach().numpy().copy()
    parametrize.register_parametrization(layer, "weight", Double())
    np.testing.assert_allclose(layer.weight.detach().numpy(), weight, rtol=1e-6)
    parametrize.register_parametrization(layer, "weight", Double())
    np.testing.assert_allclose(layer.weight.detach().numpy(), 2 * weight, rtol=1e-6)
    layer.weight = treadle.ones(2, 2)
    assert layer.weight.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    with parametrize.cached():
        assert layer.weight is layer.weight


def test_a_call_with_other_parameters() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2).eval())
    own = net[0].weight
    values = {name: p * 0 for name, p in net.named_parameters()}
    x = treadle.ones(3, 2).requires_grad_()
    assert functional_call(net, values, x).abs().sum().item() == 0
    assert net[0].weight is own
    with pytest.raises(KeyError, match="no parameter"):
        functional_call(net, {"0.other": x}, x)

    def loss(w: Any) -> Any:
        return functional_call(net[0], {"weight": w, "bias": treadle.zeros(2)}, x).sum()

    w = treadle.ones(2, 2).requires_grad_()
    loss(w).backward()
    assert w.grad is not None and w.grad.tolist() == [[3.0, 3.0], [3.0, 3.0]]


def test_activations_in_place() -> None:
    for name in ("elu_", "leaky_relu_", "hardtanh_", "selu_", "celu_", "relu_"):
        x = treadle.tensor([-2.0, 0.5])
        out = getattr(F, name)(x)
        assert out is x
        wanted = getattr(F, name[:-1])(treadle.tensor([-2.0, 0.5])).tolist()
        assert x.tolist() == wanted


def test_a_batch_of_nothing_moves_no_running_statistics() -> None:
    norm = treadle.nn.BatchNorm1d(3)
    norm(treadle.tensor(np.ones((4, 3), np.float32) * [[1.0], [2.0], [3.0], [5.0]]).float())
    before = norm.running_mean.tolist(), norm.running_var.tolist()
    assert norm(treadle.zeros(0, 3)).shape == (0, 3)
    assert (norm.running_mean.tolist(), norm.running_var.tolist()) == before
    assert norm.num_batches_tracked.item() == 2


@pytest.mark.parametrize("bias", [True, False])
def test_normalisations_are_folded_into_the_layer_before(bias: bool) -> None:
    treadle.manual_seed(0)
    for layer, norm, shape, fuse in (
        (
            nn.Conv2d(3, 4, 3, bias=bias),
            nn.BatchNorm2d(4),
            (2, 3, 5, 5),
            nn.utils.fuse_conv_bn_eval,
        ),
        (nn.Linear(3, 4, bias=bias), nn.BatchNorm1d(4), (5, 3), nn.utils.fuse_linear_bn_eval),
    ):
        x = treadle.randn(*shape)
        norm(layer(x))
        both = nn.Sequential(layer, norm).eval()
        fused = fuse(layer, norm)
        np.testing.assert_allclose(
            fused(x).detach().numpy(), both(x).detach().numpy(), rtol=1e-4, atol=1e-5
        )
        with pytest.raises(ValueError, match="eval"):
            fuse(layer.train(), norm)
