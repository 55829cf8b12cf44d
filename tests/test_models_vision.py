"""ResNet and the vision transformer: published sizes and names, learning, and agreement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn, optim
from treadle.base.errors import ShapeError
from treadle.nn import functional as F
from treadle.vision import models


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def images(n: int, size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3, size, size)).astype(np.float32)


def small_resnet(block: Any) -> models.ResNet:
    return models.ResNet(block, (1, 1, 1, 1), num_classes=5)


def small_vit(**options: Any) -> models.VisionTransformer:
    return models.VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=5, **options)


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (models.resnet18, 11_689_512),
        (models.resnet34, 21_797_672),
        (models.resnet50, 25_557_032),
        (models.vit_b_16, 86_567_656),
    ],
)
def test_published_sizes(make: Any, parameters: int) -> None:
    assert count(make()) == parameters


def test_resnet_keys() -> None:
    keys = set(models.resnet18().state_dict())
    assert len(keys) == 122
    assert keys >= {
        "conv1.weight", "bn1.running_var", "bn1.num_batches_tracked", "layer1.0.conv1.weight",
        "layer2.0.downsample.0.weight", "layer2.0.downsample.1.running_mean",
        "layer4.1.bn2.bias", "fc.weight", "fc.bias",
    }  # fmt: skip
    assert not any("downsample" in key for key in keys if key.startswith("layer1"))
    deep = models.resnet50().state_dict()
    assert len(deep) == 320
    assert deep["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert deep["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)


def test_vit_keys() -> None:
    state = models.vit_b_16().state_dict()
    assert len(state) == 152
    assert state["class_token"].shape == (1, 1, 768)
    assert state["encoder.pos_embedding"].shape == (1, 197, 768)
    assert state["conv_proj.weight"].shape == (768, 3, 16, 16)
    block = "encoder.layers.encoder_layer_11."
    assert state[block + "self_attention.in_proj_weight"].shape == (2304, 768)
    assert state[block + "mlp.0.weight"].shape == (3072, 768)
    assert {
        block + "ln_1.weight",
        block + "mlp.3.bias",
        "encoder.ln.bias",
        "heads.head.bias",
    } < set(state)


def test_vit_loads_the_first_published_names() -> None:
    model = small_vit()
    state = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value
        for key, value in small_vit().state_dict().items()
    }
    model.load_state_dict(state)
    key = "encoder.layers.encoder_layer_1.mlp."
    np.testing.assert_array_equal(
        model.state_dict()[key + "3.weight"].numpy(), state[key + "linear_2.weight"].numpy()
    )


def test_errors() -> None:
    with pytest.raises(ValueError, match="do not tile"):
        models.VisionTransformer(30, 4, 1, 1, 8, 8)
    with pytest.raises(ShapeError, match="expected images"):
        small_vit()(treadle.zeros(1, 3, 8, 8))


def test_initialisation() -> None:
    treadle.manual_seed(0)
    model = models.resnet18()
    weight = model.layer3[0].conv2.weight.detach().numpy()
    assert abs(weight.std() - (2 / (256 * 9)) ** 0.5) < 1e-3
    zeroed = models.ResNet(models.Bottleneck, (1, 1, 1, 1), zero_init_residual=True)
    assert not zeroed.layer1[0].bn3.weight.detach().numpy().any()
    assert not small_vit().heads.head.weight.detach().numpy().any()


@pytest.mark.parametrize(
    ("make", "size", "lr"),
    [
        (lambda: small_resnet(models.BasicBlock), 32, 0.01),
        (lambda: small_vit(dropout=0.1), 16, 0.05),
    ],
    ids=["resnet", "vit"],
)
def test_training_lowers_the_loss(make: Any, size: int, lr: float) -> None:
    treadle.manual_seed(0)
    model = make()
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    x, y = treadle.from_numpy(images(8, size)), treadle.arange(8) % 5
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


def test_a_look_at_the_scores_changes_no_gradient() -> None:
    """What follows the adjoint of a max pool is not to be stored in its place."""

    def gradient(look: bool) -> np.ndarray:
        treadle.manual_seed(3)
        layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
        model = nn.Sequential(*layers).double().eval()
        nn.init.constant_(model[1].running_var, 4.0)
        scores = model(treadle.from_numpy(images(2, 12).astype(np.float64)))
        if look:
            scores.detach().numpy()
        (scores**2).sum().backward()
        return model[0].weight.grad.numpy()

    np.testing.assert_allclose(gradient(True), gradient(False), rtol=1e-12)


# --- agreement with PyTorch ----------------------------------------------------------------------


def torch_resnet(torch: Any, x: Any, s: Any, block: Any, training: bool) -> Any:
    """The forward pass of a one-block-a-stage network, from its state alone."""
    f = torch.nn.functional

    def norm(x: Any, name: str) -> Any:
        stats = s[f"{name}.running_mean"].clone(), s[f"{name}.running_var"].clone()
        return f.batch_norm(x, *stats, s[f"{name}.weight"], s[f"{name}.bias"], training)

    x = f.relu(norm(f.conv2d(x, s["conv1.weight"], stride=2, padding=3), "bn1"))
    x = f.max_pool2d(x, 3, 2, 1)
    last = 2 if block is models.BasicBlock else 3
    for stage in range(1, 5):
        name, stride, y = f"layer{stage}.0", min(stage, 2), x
        for i in range(1, last + 1):
            weight = s[f"{name}.conv{i}.weight"]
            at = stride if i == last - 1 else 1
            y = norm(f.conv2d(y, weight, stride=at, padding=weight.shape[2] // 2), f"{name}.bn{i}")
            y = f.relu(y) if i < last else y
        if f"{name}.downsample.0.weight" in s:
            x = f.conv2d(x, s[f"{name}.downsample.0.weight"], stride=stride)
            x = norm(x, f"{name}.downsample.1")
        x = f.relu(x + y)
    return f.linear(x.mean((2, 3)), s["fc.weight"], s["fc.bias"])


def torch_vit(torch: Any, x: Any, s: Any) -> Any:
    f = torch.nn.functional

    def norm(x: Any, name: str) -> Any:
        return f.layer_norm(x, (16,), s[f"{name}.weight"], s[f"{name}.bias"], 1e-6)

    def linear(x: Any, name: str) -> Any:
        return f.linear(x, s[f"{name}.weight"], s[f"{name}.bias"])

    x = f.conv2d(x, s["conv_proj.weight"], s["conv_proj.bias"], stride=4).flatten(2).mT
    x = torch.cat([s["class_token"].expand(len(x), -1, -1), x], 1) + s["encoder.pos_embedding"]
    for i in range(2):
        name = f"encoder.layers.encoder_layer_{i}"
        y, at = norm(x, f"{name}.ln_1"), f"{name}.self_attention"
        y = f.linear(y, s[f"{at}.in_proj_weight"], s[f"{at}.in_proj_bias"])
        q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in y.chunk(3, -1))
        y = f.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + linear(y, f"{at}.out_proj")
        y = f.gelu(linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.0"))
        x = x + linear(y, f"{name}.mlp.3")
    return linear(norm(x, "encoder.ln")[:, 0], "heads.head")


def agree(ours: Any, theirs: Any) -> None:
    a, b = ours.detach().numpy(), theirs.detach().numpy()
    np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10 * max(1, abs(b).max()))


def compare(model: nn.Module, forward: Any, size: int) -> None:
    """Scores and gradients of a model and of PyTorch's functions on the same state.

    In float64: in float32 a value next to a rectifier's kink may fall on either side of it.
    """
    torch = pytest.importorskip("torch")
    model.double()
    state = {k: torch.from_numpy(v.numpy().copy()) for k, v in model.state_dict().items()}
    for name, _ in model.named_parameters():
        state[name].requires_grad_()
    x, y = images(4, size).astype(np.float64), np.arange(4) % 5
    theirs = forward(torch, torch.from_numpy(x), state)
    ours = model(treadle.from_numpy(x))
    agree(ours, theirs)
    torch.nn.functional.cross_entropy(theirs, torch.from_numpy(y)).backward()
    F.cross_entropy(ours, treadle.from_numpy(y)).backward()
    for name, parameter in model.named_parameters():
        agree(parameter.grad, state[name].grad)


@pytest.mark.parametrize(
    ("block", "training"), [(models.BasicBlock, True), (models.Bottleneck, False)]
)
def test_resnet_agrees_with_pytorch(block: Any, training: bool) -> None:
    treadle.manual_seed(1)
    model = small_resnet(block).train(training)
    compare(model, lambda torch, x, s: torch_resnet(torch, x, s, block, training), 64)


def test_vit_agrees_with_pytorch() -> None:
    treadle.manual_seed(1)
    model = small_vit()
    nn.init.normal_(model.heads.head.weight)
    nn.init.normal_(model.class_token)
    compare(model, torch_vit, 16)
