"""Which convolutions go by transformed tiles, and that they are right everywhere in an image."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
import treadle.nn.functional as F
from treadle.base import dtype as dt
from treadle.graph.build import build
from treadle.ir.contraction import Contraction
from treadle.ops.contract import conv
from treadle.ops.table import input_node
from treadle.ops.view import permute


def ways(
    image: tuple[int, ...],
    filters: int,
    window: int = 3,
    step: int = 1,
    pads: tuple[int, int] = (1, 1),
    dilation: int = 1,
) -> list[str]:
    """How the contractions of a convolution's plan are computed."""
    n, c, h, w = image
    x = input_node((n, 1, c, h, w), dt.float32)
    weight = input_node((1, filters, c, window, window), dt.float32)
    out = conv(x, weight, (step,) * 2, (pads,) * 2, (1, 1), (dilation,) * 2)
    plan = build([permute(out, (0, 3, 4, 1, 2))], [x, weight])
    kernels = [getattr(s, "kernel", None) for s in plan.steps]
    return [k.winograd for k in kernels if isinstance(k, Contraction)]


def test_many_channels_and_even_extents_are_asked_for() -> None:
    assert ways((4, 32, 8, 8), 64) == ["data"]
    assert ways((4, 64, 10, 14), 32, pads=(0, 0)) == ["data"]
    assert ways((4, 32, 8, 8), 32, pads=(2, 1), dilation=2) == ["data"]
    assert ways((4, 32, 8, 8), 32, pads=(1, 2), dilation=2) == ["dilated"]
    for other in (
        ways((4, 3, 8, 8), 64), ways((4, 32, 8, 8), 48), ways((4, 32, 9, 8), 32),
        ways((4, 32, 8, 8), 32, window=5, pads=(2, 2)), ways((4, 32, 16, 16), 32, step=2),
        ways((1, 32, 4, 4), 32),
    ):  # fmt: skip
        assert other == [""]


def convolved(x: np.ndarray, w: np.ndarray, step: int, pad: int) -> np.ndarray:
    wide = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    view = np.lib.stride_tricks.sliding_window_view(wide, (3, 3), (2, 3))[:, :, ::step, ::step]
    return np.einsum("ncyxpq,ocpq->noyx", view, w)


def gradients(
    x: np.ndarray, w: np.ndarray, g: np.ndarray, step: int, pad: int
) -> tuple[np.ndarray, np.ndarray]:
    """By image and by filter: every tap of every pixel, one by one."""
    wide = np.pad(x, ((0, 0), (0, 0), (pad, pad), (pad, pad)))
    by_x, by_w = np.zeros_like(wide), np.zeros_like(w)
    height, width = g.shape[2] * step, g.shape[3] * step
    for p in range(3):
        for q in range(3):
            at = np.s_[:, :, p : p + height : step, q : q + width : step]
            by_x[at] += np.einsum("noyx,oc->ncyx", g, w[:, :, p, q])
            by_w[:, :, p, q] = np.einsum("noyx,ncyx->oc", g, wide[at])
    return by_x[:, :, pad : pad + x.shape[2], pad : pad + x.shape[3]], by_w


@pytest.mark.parametrize(
    ("image", "filters", "step", "pad"),
    [
        ((3, 32, 8, 12), 64, 1, 1), ((2, 64, 10, 10), 32, 1, 0), ((4, 32, 7, 9), 32, 1, 2),
        ((2, 32, 16, 16), 64, 2, 1), ((1, 96, 16, 12), 32, 2, 1), ((40, 32, 4, 4), 32, 1, 1),
    ],
    ids=str,
)  # fmt: skip
def test_results_and_gradients(image: tuple[int, ...], filters: int, step: int, pad: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(image)
    w = rng.standard_normal((filters, image[1], 3, 3))
    want = convolved(x, w, step, pad)
    g = rng.standard_normal(want.shape)
    tx, tw = (treadle.from_numpy(a.astype(np.float32)).requires_grad_() for a in (x, w))
    y = F.conv2d(tx, tw, stride=step, padding=pad)
    by_x, by_w = treadle.autograd.grad(y, (tx, tw), treadle.from_numpy(g.astype(np.float32)))
    expected = (want, *gradients(x, w, g, step, pad))
    for got, right in zip((y.detach(), by_x, by_w), expected, strict=True):
        assert np.abs(got.numpy() - right).max() < 3e-6 * np.abs(right).max()
