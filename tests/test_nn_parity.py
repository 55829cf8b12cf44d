"""Layers and losses against PyTorch: values, gradients, names and printed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.nn import functional as F

torch = pytest.importorskip("torch")

T = 1e-5


def draw(shape: tuple[int, ...], seed: int = 0, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def pair(module: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
    """One layer of each library with the same parameters."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, name)(*args, **kwargs).double()
    ours = getattr(module, name)(*args, **kwargs).double()
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict({k: treadle.from_numpy(v.numpy().copy()) for k, v in state.items()})
    return ours, theirs


def agree(ours: Any, theirs: Any, tolerance: float = T) -> None:
    a, b = ours.detach().numpy(), theirs.detach().numpy()
    assert a.shape == b.shape and a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def outputs(x: Any) -> list[Any]:
    return list(x) if isinstance(x, (tuple, list)) else [x]


def compare(ours: Any, theirs: Any, arrays: list[np.ndarray], call: str = "__call__") -> None:
    """The same inputs through both: values, and gradients of inputs and parameters."""
    mine = [treadle.from_numpy(a) for a in arrays]
    yours = [torch.from_numpy(a) for a in arrays]
    for x, y in zip(mine, yours, strict=True):
        if x.dtype.is_floating_point:
            x.requires_grad_()
            y.requires_grad_()
    out, wanted = outputs(getattr(ours, call)(*mine)), outputs(getattr(theirs, call)(*yours))
    loss = wish = None
    for i, (a, b) in enumerate(zip(out, wanted, strict=True)):
        agree(a, b)
        if not a.requires_grad:
            continue
        weight = draw(tuple(a.shape), 7 + i)
        part, other = (a * treadle.from_numpy(weight)).sum(), (b * torch.from_numpy(weight)).sum()
        loss = part if loss is None else loss + part
        wish = other if wish is None else wish + other
    if loss is not None:
        loss.backward()
        wish.backward()
    for x, y in zip(mine, yours, strict=True):
        if y.grad is not None:
            agree(x.grad, y.grad)
    if isinstance(ours, nn.Module):
        expected = dict(theirs.named_parameters())
        for key, p in ours.named_parameters():
            if expected[key].grad is not None:
                agree(p.grad, expected[key].grad)
        buffers = dict(theirs.named_buffers())
        for key, b in ours.named_buffers():
            agree(b, buffers[key])


LAYERS: list[tuple[str, tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = [
    ("Linear", (5, 3), {}, (4, 5)),
    ("Linear", (5, 3), {"bias": False}, (2, 4, 5)),
    ("Linear", (5, 3), {}, (5,)),
    ("Identity", (), {}, (4, 5)),
    ("Flatten", (), {}, (2, 3, 4)),
    ("Flatten", (0, 1), {}, (2, 3, 4)),
    ("Unflatten", (1, (2, 3)), {}, (2, 6)),
    ("ReLU", (), {}, (4, 5)),
    ("ReLU6", (), {}, (4, 5)),
    ("ELU", (0.7,), {}, (4, 5)),
    ("CELU", (0.7,), {}, (4, 5)),
    ("SELU", (), {}, (4, 5)),
    ("GELU", (), {}, (4, 5)),
    ("GELU", ("tanh",), {}, (4, 5)),
    ("SiLU", (), {}, (4, 5)),
    ("Mish", (), {}, (4, 5)),
    ("LeakyReLU", (0.2,), {}, (4, 5)),
    ("PReLU", (), {}, (4, 5)),
    ("PReLU", (3,), {}, (4, 3, 2)),
    ("Softplus", (2.0, 1.0), {}, (4, 5)),
    ("Hardtanh", (-0.5, 0.7), {}, (4, 5)),
    ("Hardswish", (), {}, (4, 5)),
    ("Hardsigmoid", (), {}, (4, 5)),
    ("Sigmoid", (), {}, (4, 5)),
    ("LogSigmoid", (), {}, (4, 5)),
    ("Tanh", (), {}, (4, 5)),
    ("Tanhshrink", (), {}, (4, 5)),
    ("Softsign", (), {}, (4, 5)),
    ("Softshrink", (0.3,), {}, (4, 5)),
    ("Hardshrink", (0.3,), {}, (4, 5)),
    ("Threshold", (0.1, 2.0), {}, (4, 5)),
    ("GLU", (), {}, (4, 6)),
    ("GLU", (0,), {}, (4, 6)),
    ("Softmax", (1,), {}, (4, 5)),
    ("Softmin", (0,), {}, (4, 5)),
    ("LogSoftmax", (-1,), {}, (2, 4, 5)),
    ("Softmax2d", (), {}, (2, 3, 4, 5)),
    ("Conv1d", (4, 6, 3), {"stride": 2, "padding": 1}, (2, 4, 9)),
    ("Conv2d", (3, 4, 3), {}, (2, 3, 7, 6)),
    ("Conv2d", (3, 4, 3), {}, (3, 7, 6)),
    ("Conv2d", (4, 6, (3, 2)), {"stride": (2, 1), "padding": (1, 0), "groups": 2}, (2, 4, 7, 6)),
    ("Conv2d", (3, 4, 3), {"padding": "same", "bias": False}, (2, 3, 7, 6)),
    ("Conv2d", (3, 4, 2), {"padding": "same", "dilation": 2}, (2, 3, 7, 6)),
    ("Conv2d", (3, 4, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 3, 7, 6)),
    ("Conv2d", (3, 4, 3), {"padding": 2, "padding_mode": "circular"}, (2, 3, 7, 6)),
    ("Conv2d", (3, 4, 3), {"padding": 2, "padding_mode": "replicate"}, (2, 3, 7, 6)),
    ("Conv2d", (4, 4, 3), {"groups": 4, "dilation": 2, "padding": 2}, (2, 4, 7, 6)),
    ("Conv3d", (2, 3, 2), {"stride": 2}, (2, 2, 4, 5, 4)),
    ("ConvTranspose1d", (4, 6, 3), {"stride": 2, "padding": 1, "output_padding": 1}, (2, 4, 5)),
    ("ConvTranspose2d", (4, 6, 3), {"stride": 2, "groups": 2}, (2, 4, 4, 3)),
    ("ConvTranspose2d", (3, 2, (3, 2)), {"dilation": 2, "padding": 1}, (2, 3, 4, 3)),
    ("ConvTranspose3d", (2, 3, 2), {"stride": 2, "bias": False}, (1, 2, 2, 3, 2)),
    ("MaxPool1d", (2,), {}, (2, 3, 7)),
    ("MaxPool2d", (2,), {}, (2, 3, 6, 7)),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1}, (2, 3, 6, 7)),
    ("MaxPool2d", (3,), {"stride": 2, "ceil_mode": True}, (2, 3, 6, 8)),
    ("MaxPool2d", (2,), {"dilation": 2, "stride": 1}, (3, 6, 7)),
    ("MaxPool2d", ((2, 3),), {"return_indices": True}, (2, 3, 6, 7)),
    ("MaxPool2d", (3,), {"stride": 2, "padding": 1, "return_indices": True}, (2, 3, 6, 7)),
    ("MaxPool3d", (2,), {}, (2, 3, 4, 5, 4)),
    ("AvgPool1d", (3,), {"stride": 2, "padding": 1}, (2, 3, 7)),
    ("AvgPool2d", (2,), {}, (2, 3, 6, 7)),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "count_include_pad": False}, (2, 3, 6, 7)),
    ("AvgPool2d", (3,), {"stride": 2, "padding": 1, "ceil_mode": True}, (2, 3, 6, 8)),
    ("AvgPool2d", (3,), {"divisor_override": 5}, (2, 3, 6, 7)),
    ("AvgPool3d", (2,), {"stride": 1}, (2, 3, 4, 5, 4)),
    ("AdaptiveAvgPool1d", (3,), {}, (2, 3, 7)),
    ("AdaptiveAvgPool2d", ((3, 4),), {}, (2, 3, 6, 7)),
    ("AdaptiveAvgPool2d", ((None, 1),), {}, (2, 3, 6, 7)),
    ("AdaptiveAvgPool3d", (2,), {}, (2, 3, 4, 5, 4)),
    ("AdaptiveMaxPool1d", (3,), {}, (2, 3, 7)),
    ("AdaptiveMaxPool2d", ((3, 4),), {}, (2, 3, 6, 7)),
    ("AdaptiveMaxPool2d", ((2, 3),), {"return_indices": True}, (2, 3, 6, 7)),
    ("AdaptiveMaxPool3d", (2,), {}, (2, 3, 4, 5, 4)),
    ("LPPool1d", (2, 3), {}, (2, 3, 7)),
    ("LPPool2d", (2, 2), {"stride": 1}, (2, 3, 6, 7)),
    ("BatchNorm1d", (3,), {}, (4, 3)),
    ("BatchNorm1d", (3,), {"affine": False}, (4, 3, 5)),
    ("BatchNorm2d", (3,), {"momentum": 0.3, "eps": 1e-3}, (2, 3, 4, 5)),
    ("BatchNorm2d", (3,), {"momentum": None}, (2, 3, 4, 5)),
    ("BatchNorm2d", (3,), {"track_running_stats": False}, (2, 3, 4, 5)),
    ("BatchNorm3d", (3,), {}, (2, 3, 2, 3, 2)),
    ("InstanceNorm1d", (3,), {}, (2, 3, 5)),
    ("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, (2, 3, 4, 5)),
    ("LayerNorm", (5,), {}, (4, 5)),
    ("LayerNorm", ((4, 5),), {"bias": False}, (2, 4, 5)),
    ("LayerNorm", (5,), {"elementwise_affine": False}, (4, 5)),
    ("GroupNorm", (2, 6), {}, (2, 6, 3, 4)),
    ("GroupNorm", (3, 6), {"affine": False}, (2, 6)),
    ("RMSNorm", (5,), {"eps": 1e-3}, (4, 5)),
    ("RMSNorm", ((4, 5),), {}, (2, 4, 5)),
    ("LocalResponseNorm", (3,), {"alpha": 0.1}, (2, 5, 3, 4)),
    ("PixelShuffle", (2,), {}, (2, 8, 3, 4)),
    ("PixelUnshuffle", (2,), {}, (2, 3, 4, 6)),
    ("ChannelShuffle", (2,), {}, (2, 6, 3, 4)),
    ("Unfold", ((2, 3),), {"padding": 1, "stride": 2, "dilation": 1}, (2, 3, 5, 6)),
    ("Upsample", (), {"scale_factor": 2}, (2, 3, 3, 4)),
    ("Upsample", (), {"size": (5, 3), "mode": "bilinear"}, (2, 3, 3, 4)),
    ("Upsample", (), {"scale_factor": 2, "mode": "bilinear", "align_corners": True}, (2, 3, 3, 4)),
    ("Upsample", (), {"scale_factor": 2, "mode": "bicubic"}, (2, 3, 5, 4)),
    ("Upsample", (), {"scale_factor": 2, "mode": "linear"}, (2, 3, 5)),
    ("ZeroPad2d", (1,), {}, (2, 3, 4, 5)),
    ("ConstantPad1d", ((1, 2), 1.5), {}, (2, 3, 4)),
    ("ConstantPad2d", ((-1, 2, 1, 0), 1.5), {}, (2, 3, 4, 5)),
    ("ReflectionPad2d", ((1, 2, 2, 1),), {}, (2, 3, 4, 5)),
    ("ReplicationPad1d", ((2, 3),), {}, (2, 3, 4)),
    ("CircularPad2d", ((1, 2, 2, 1),), {}, (2, 3, 4, 5)),
]  # fmt: skip


@pytest.mark.parametrize("case", LAYERS, ids=lambda c: f"{c[0]}{c[1]}{c[2]}{c[3]}")
def test_layer(case: Any) -> None:
    name, args, kwargs, shape = case
    ours, theirs = pair(nn, name, args, kwargs)
    assert repr(ours) == repr(theirs)
    compare(ours, theirs, [draw(shape)])
    compare(ours, theirs, [draw(shape, 1)])
    compare(ours.eval(), theirs.eval(), [draw(shape, 2)])


@pytest.mark.parametrize("kwargs", [{}, {"padding_idx": 2}, {"scale_grad_by_freq": True},
                                    {"max_norm": 1.0}], ids=str)  # fmt: skip
def test_embedding(kwargs: dict[str, Any]) -> None:
    ours, theirs = pair(nn, "Embedding", (7, 3), kwargs)
    assert repr(ours) == repr(theirs)
    index = np.array([[0, 2, 2], [6, 0, 2]])
    compare(ours, theirs, [index])


def probabilities(shape: tuple[int, ...], seed: int) -> np.ndarray:
    p = np.exp(draw(shape, seed))
    return p / p.sum(1, keepdims=True)


LABELS = np.array([1, 0, 3, 2, 1])
IMAGE_LABELS = np.random.default_rng(3).integers(0, 4, (2, 3, 2))
WEIGHT = np.array([0.5, 1.0, 2.0, 0.25])
CLASSES: list[tuple[str, dict[str, Any], tuple[int, ...], np.ndarray]] = [
    ("CrossEntropyLoss", {}, (5, 4), LABELS),
    ("CrossEntropyLoss", {"reduction": "sum"}, (5, 4), LABELS),
    ("CrossEntropyLoss", {"reduction": "none"}, (5, 4), LABELS),
    ("CrossEntropyLoss", {"ignore_index": 1}, (5, 4), LABELS),
    ("CrossEntropyLoss", {}, (5, 4), np.array([1, -100, 3, -100, 1])),
    ("CrossEntropyLoss", {"label_smoothing": 0.2}, (5, 4), LABELS),
    ("CrossEntropyLoss", {"label_smoothing": 0.2, "ignore_index": 0, "weight": WEIGHT}, (5, 4),
     LABELS),
    ("CrossEntropyLoss", {"weight": WEIGHT}, (5, 4), LABELS),
    ("CrossEntropyLoss", {"weight": WEIGHT, "reduction": "none"}, (2, 4, 3, 2), IMAGE_LABELS),
    ("CrossEntropyLoss", {}, (2, 4, 3, 2), IMAGE_LABELS),
    ("CrossEntropyLoss", {}, (4,), np.array(2)),
    ("CrossEntropyLoss", {}, (5, 4), probabilities((5, 4), 5)),
    ("CrossEntropyLoss", {"weight": WEIGHT, "label_smoothing": 0.1}, (5, 4),
     probabilities((5, 4), 5)),
    ("CrossEntropyLoss", {"reduction": "none"}, (2, 4, 3), probabilities((2, 4, 3), 5)),
    ("NLLLoss", {}, (5, 4), LABELS),
    ("NLLLoss", {"weight": WEIGHT, "ignore_index": 2}, (5, 4), LABELS),
    ("NLLLoss", {"reduction": "none"}, (2, 4, 3, 2), IMAGE_LABELS),
    ("MultiMarginLoss", {}, (5, 4), LABELS),
    ("MultiMarginLoss", {"p": 2, "margin": 0.7, "weight": WEIGHT}, (5, 4), LABELS),
]  # fmt: skip


def as_loss(name: str, kwargs: dict[str, Any]) -> tuple[Any, Any]:
    def options(library: Any) -> dict[str, Any]:
        return {k: library.from_numpy(v) if isinstance(v, np.ndarray) else v
                for k, v in kwargs.items()}  # fmt: skip

    return getattr(nn, name)(**options(treadle)), getattr(torch.nn, name)(**options(torch))


@pytest.mark.parametrize("case", CLASSES, ids=lambda c: f"{c[0]}{sorted(c[1])}{c[2]}")
def test_classification_loss(case: Any) -> None:
    name, kwargs, shape, target = case
    ours, theirs = as_loss(name, kwargs)
    assert repr(ours) == repr(theirs)
    x = treadle.from_numpy(draw(shape) * 3).requires_grad_()
    y = torch.from_numpy(draw(shape) * 3).requires_grad_()
    a, b = ours(x, treadle.from_numpy(target)), theirs(y, torch.from_numpy(target))
    agree(a, b)
    a.sum().backward()
    b.sum().backward()
    agree(x.grad, y.grad)


SIGNS = np.array([1.0, -1.0, 1.0, -1.0])
UNIT = 1 / (1 + np.exp(-draw((4, 5), 3)))
LOSSES: list[tuple[str, dict[str, Any], list[np.ndarray]]] = [
    *((name, {"reduction": r}, [draw((4, 5)), draw((4, 5), 1)])
      for name in ("MSELoss", "L1Loss", "SmoothL1Loss", "HuberLoss")
      for r in ("mean", "sum", "none")),
    ("SmoothL1Loss", {"beta": 0.3}, [draw((4, 5)), draw((4, 5), 1)]),
    ("HuberLoss", {"delta": 0.3}, [draw((4, 5)), draw((4, 5), 1)]),
    ("BCELoss", {}, [UNIT, UNIT[::-1].copy()]),
    ("BCELoss", {"weight": UNIT}, [UNIT, UNIT[::-1].copy()]),
    ("BCELoss", {"reduction": "none"}, [np.array([0.0, 1.0, 1e-14]), np.array([1.0, 0.0, 0.5])]),
    ("BCEWithLogitsLoss", {}, [draw((4, 5)) * 4, UNIT]),
    ("BCEWithLogitsLoss", {"pos_weight": np.arange(1.0, 6.0), "weight": UNIT},
     [draw((4, 5)) * 4, UNIT]),
    ("KLDivLoss", {"reduction": "batchmean"}, [draw((4, 5)), probabilities((4, 5), 2)]),
    ("KLDivLoss", {"reduction": "sum", "log_target": True}, [draw((4, 5)), draw((4, 5), 1)]),
    ("PoissonNLLLoss", {"full": True}, [draw((4, 5)), np.arange(20.0).reshape(4, 5)]),
    ("PoissonNLLLoss", {"log_input": False}, [UNIT, np.arange(20.0).reshape(4, 5)]),
    ("GaussianNLLLoss", {"full": True}, [draw((4, 5)), draw((4, 5), 1), UNIT]),
    ("SoftMarginLoss", {}, [draw((4,)), SIGNS]),
    ("MultiLabelSoftMarginLoss", {}, [draw((4, 5)), (UNIT > 0.5) * 1.0]),
    ("HingeEmbeddingLoss", {"margin": 0.5}, [draw((4,)), SIGNS]),
    ("MarginRankingLoss", {"margin": 0.1}, [draw((4,)), draw((4,), 1), SIGNS]),
    ("CosineEmbeddingLoss", {"margin": 0.1}, [draw((4, 5)), draw((4, 5), 1), SIGNS]),
    ("TripletMarginLoss", {}, [draw((4, 5)), draw((4, 5), 1), draw((4, 5), 2)]),
    ("TripletMarginLoss", {"swap": True, "p": 1}, [draw((4, 5)), draw((4, 5), 1), draw((4, 5), 2)]),
    ("CosineSimilarity", {"dim": 1}, [draw((4, 5)), draw((4, 5), 1)]),
    ("PairwiseDistance", {"p": 2}, [draw((4, 5)), draw((4, 5), 1)]),
]  # fmt: skip


@pytest.mark.parametrize("case", LOSSES, ids=lambda c: f"{c[0]}{sorted(c[1].items(), key=str)}")
def test_loss(case: Any) -> None:
    name, kwargs, arrays = case
    ours, theirs = as_loss(name, kwargs)
    assert repr(ours) == repr(theirs)
    mine = [treadle.from_numpy(a) for a in arrays]
    yours = [torch.from_numpy(a) for a in arrays]
    mine[0].requires_grad_()
    yours[0].requires_grad_()
    a, b = ours(*mine), theirs(*yours)
    agree(a, b)
    a.sum().backward()
    b.sum().backward()
    agree(mine[0].grad, yours[0].grad)


@pytest.mark.parametrize("x", [0.0, -0.0, 1e-30, 80.0, -80.0, 1e4, -1e4])
@pytest.mark.parametrize(
    "name", ["softplus", "logsigmoid", "mish", "silu", "elu", "selu", "gelu", "hardswish",
             "hardsigmoid", "hardtanh", "softsign", "relu6", "leaky_relu"],
)  # fmt: skip
def test_activation_at_the_edges(name: str, x: float) -> None:
    a = treadle.tensor([x], dtype=treadle.float64).requires_grad_()
    b = torch.tensor([x], dtype=torch.float64).requires_grad_()
    p, q = getattr(F, name)(a), getattr(torch.nn.functional, name)(b)
    agree(p, q, 1e-8)
    p.sum().backward()
    q.sum().backward()
    agree(a.grad, b.grad, 1e-8)


FUNCTIONS: list[tuple[str, list[np.ndarray], dict[str, Any]]] = [
    ("normalize", [draw((4, 5))], {}),
    ("normalize", [np.zeros((2, 3))], {}),
    ("normalize", [draw((4, 5))], {"p": 1, "dim": 0}),
    ("cosine_similarity", [draw((4, 5)), draw((4, 5), 1)], {"dim": 0}),
    ("bilinear", [draw((4, 3)), draw((4, 2), 1), draw((5, 3, 2), 2)], {}),
    ("one_hot", [np.array([[0, 2], [1, 3]])], {}),
    ("one_hot", [np.array([0, 2])], {"num_classes": 5}),
    ("softmax", [draw((2, 3))], {"dim": 0}),
    ("pad", [draw((2, 3, 4))], {"pad": (1, 2), "mode": "reflect"}),
    ("pad", [draw((2, 3, 4))], {"pad": (1, 2, -1, 1), "value": 3.0}),
    ("interpolate", [draw((1, 2, 4, 6))], {"size": (2, 3), "mode": "area"}),
    ("interpolate", [draw((1, 2, 4, 6))], {"size": (3, 5), "mode": "nearest-exact"}),
    ("glu", [draw((4, 6))], {"dim": 1}),
]  # fmt: skip


@pytest.mark.parametrize("case", FUNCTIONS, ids=lambda c: f"{c[0]}{sorted(c[2].items(), key=str)}")
def test_function(case: Any) -> None:
    name, arrays, kwargs = case

    class Call:
        def __init__(self, library: Any) -> None:
            self.f = getattr(library, name)

        def __call__(self, *tensors: Any) -> Any:
            return self.f(*tensors, **kwargs)

    compare(Call(F), Call(torch.nn.functional), arrays)
