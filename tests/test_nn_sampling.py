"""Images and volumes read between their elements, against SciPy's interpolation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

import treadle as t
import treadle.nn.functional as F
from treadle.autograd import gradcheck, gradgradcheck

# SciPy's reflection about the middles of the outermost elements, and about their edges.
MODES = {("border", True): "nearest", ("border", False): "nearest", ("reflection", True): "mirror",
         ("reflection", False): "reflect"}  # fmt: skip


@pytest.mark.parametrize(("padding", "aligned"), MODES)
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("space", [(4, 5), (3, 4, 5)])
def test_against_scipy(space: tuple[int, ...], mode: str, padding: str, aligned: bool) -> None:
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, 2, *space))
    grid = rng.uniform(-2.4, 2.4, (1, *(3,) * (len(space) - 1), 7, len(space)))
    places = []
    for j, m in zip(reversed(range(len(space))), space, strict=True):
        at = grid[0, ..., j]
        places.append((at + 1) * (m - 1) / 2 if aligned else ((at + 1) * m - 1) / 2)
    if padding == "border" or not aligned:
        # SciPy's modes differ from PyTorch's at the very ends: clip as both define it.
        low = [_reflected(p, m) if padding == "reflection" else p
               for p, m in zip(places, space, strict=True)]  # fmt: skip
        places = [np.clip(p, 0, m - 1) for p, m in zip(low, space, strict=True)]
    order = 1 if mode == "bilinear" else 0
    if order == 0:
        mirrored = padding == "reflection" and aligned
        places = [
            np.round(_mirrored(p, m) if mirrored else p)
            for p, m in zip(places, space, strict=True)
        ]  # fmt: skip
    wish = np.stack([map_coordinates(c, places, order=order, mode=MODES[padding, aligned])
                     for c in image[0]])  # fmt: skip
    out = F.grid_sample(t.tensor(image), t.tensor(grid), mode, padding, aligned)
    np.testing.assert_allclose(out.numpy()[0], wish, rtol=1e-9, atol=1e-9)


def _mirrored(p: np.ndarray, m: int) -> np.ndarray:
    """Triangular waves of the period `2 (m - 1)`."""
    return np.abs((p + m - 1) % (2 * (m - 1)) - (m - 1))


def _reflected(p: np.ndarray, m: int) -> np.ndarray:
    return np.abs((p + 0.5 + m) % (2 * m) - m) - 0.5


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("aligned", [True, False])
def test_the_identity(mode: str, aligned: bool) -> None:
    """At the middles of the elements every mode gives the elements."""
    image = t.randn(2, 3, 4, 5, dtype=t.float64)
    theta = t.tensor([[[1.0, 0, 0], [0, 1, 0]]] * 2, dtype=t.float64)
    grid = F.affine_grid(theta, (2, 3, 4, 5), aligned)
    out = F.grid_sample(image, grid, mode, "zeros", aligned)
    np.testing.assert_allclose(out.numpy(), image.numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_derivatives(mode: str, padding: str) -> None:
    t.manual_seed(2)
    image = t.randn(1, 1, 3, 4, dtype=t.float64, requires_grad=True)
    grid = (t.rand(1, 2, 3, 2, dtype=t.float64) * 2.6 - 1.3).requires_grad_()

    def sample(image: object, grid: object) -> object:
        return F.grid_sample(image, grid, mode, padding, False)

    assert gradcheck(sample, [image, grid], atol=1e-5)
    assert gradgradcheck(sample, [image, grid], atol=1e-4)


def test_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="bicubic"):
        F.grid_sample(t.ones(1, 1, 2, 2, 2), t.ones(1, 1, 1, 1, 3), "bicubic")
    with pytest.raises(RuntimeError, match="grid"):
        F.grid_sample(t.ones(1, 1, 2, 2), t.ones(1, 1, 1, 3))
    with pytest.raises(ValueError, match="padding_mode"):
        F.grid_sample(t.ones(1, 1, 2, 2), t.ones(1, 1, 1, 2), padding_mode="wrap")
