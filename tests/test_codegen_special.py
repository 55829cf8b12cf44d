"""Special functions of generated code against SciPy, in ulp where SciPy is that exact itself."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import apply
from scipy import special
from test_codegen_vector_math import HAS_LONG, SPECIAL, TARGETS, ulps

from treadle.base import dtype as dt
from treadle.codegen.target import BY_NAME

REFERENCE = {
    "erfc": special.erfc, "erfinv": special.erfinv, "lgamma": special.gammaln,
    "digamma": special.digamma,
}  # fmt: skip


def numbers(name: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if name == "erfc":
        return np.concatenate([np.linspace(-7, 26, 20_001), rng.standard_normal(20_000)])
    if name == "erfinv":
        near = 10.0 ** -rng.uniform(1, 15, 3000)
        return np.concatenate([np.linspace(-1, 1, 20_001), near, 1 - near, near - 1, [1.5]])
    sizes = 10.0 ** rng.uniform(-300, 300, 5000)
    whole = np.arange(-9.0, 200)
    return np.concatenate([rng.uniform(0, 30, 20_000), sizes, whole])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", REFERENCE)
def test_float64(name: str, target: str) -> None:
    x = numbers(name)
    with np.errstate(all="ignore"):
        want = REFERENCE[name](x)
        got = apply(name, dt.float64, x, target=BY_NAME[target])
        error = ulps(got, want)
    if name != "erfinv":
        # SciPy's own errors come on top, and near a zero those of the summands.
        finite = np.isfinite(want)
        relative, absolute = (1e-13, 0) if name == "erfc" else (4e-15, 4e-15)
        np.testing.assert_allclose(got[finite], want[finite], relative, absolute)
        error = error[~finite]
    assert error.max(initial=0) <= 8


@pytest.mark.skipif(not HAS_LONG, reason="needs a long double with more digits than float64")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", REFERENCE)
def test_float32_is_rounded_once(name: str, target: str) -> None:
    with np.errstate(all="ignore"):
        x = np.concatenate([numbers(name).astype(np.float32), SPECIAL])
        want = REFERENCE[name](x.astype(np.float64))
        got = apply(name, dt.float32, x, target=BY_NAME[target])
        # The limit at -inf is a convention: SciPy has -inf, C and PyTorch have inf.
        got, want = got[x != -np.inf], want[x != -np.inf]
        assert ulps(got, want).max() <= 0.51


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", ["lgamma", "digamma"])
def test_below_zero(name: str, target: str) -> None:
    x = np.concatenate([np.random.default_rng(0).uniform(-20, 0, 5000), [-1e-20, -1e-300]])
    got = apply(name, dt.float64, x, target=BY_NAME[target])
    # Between the poles the reflection loses what is lost of `pi x`.
    near = np.abs(x - np.round(x)) > 1e-3
    np.testing.assert_allclose(got[near], REFERENCE[name](x[near]), 1e-12, 1e-13)
    np.testing.assert_allclose(got, REFERENCE[name](x), 1e-9)
