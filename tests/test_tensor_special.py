"""Special functions, number theory and windows against SciPy and NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import signal, special

import treadle as t
from treadle.autograd import gradcheck, gradgradcheck

X = np.array([-60.0, -30.0, -7.5, -1.0, -1e-3, 0.0, 0.2, 3.0, 29.9, 30.1, 400.0])
FUNCTIONS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    **{name: (X, getattr(special, name)) for name in ("i0", "i0e", "i1", "i1e", "ndtr", "entr")},
    "expit": (X, special.expit),
    "gammaln": (np.array([0.3, 1.0, 7.5]), special.gammaln),
    "psi": (np.array([0.3, 1.0, 7.5]), special.psi),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_of_one_number(name: str) -> None:
    x, reference = FUNCTIONS[name]
    out = getattr(t.special, name)(t.tensor(x))
    np.testing.assert_allclose(out.numpy(), reference(x), rtol=1e-10, atol=1e-300)
    single = getattr(t.special, name)(t.tensor(x, dtype=t.float32))
    with np.errstate(over="ignore"):
        wish = reference(x).astype(np.float32)
    np.testing.assert_allclose(single.numpy(), wish, rtol=3e-5)


@pytest.mark.parametrize("name", ["i0", "i0e", "i1", "i1e", "ndtr", "entr"])
def test_derivatives(name: str) -> None:
    low = 0.1 if name == "entr" else -3.0
    x = t.tensor(np.linspace(low, 3.2, 6), requires_grad=True)
    assert gradcheck(getattr(t.special, name), [x], atol=1e-6)
    assert gradgradcheck(getattr(t.special, name), [x], atol=1e-5)


def test_slopes_at_zero() -> None:
    """`i1(x) / x` is 1/2 there."""
    x = t.zeros(1, dtype=t.float64, requires_grad=True)
    for name in ("i1", "i1e"):
        (g,) = t.autograd.grad(getattr(t.special, name)(x).sum(), x)
        assert g.item() == 0.5


def test_of_two_numbers() -> None:
    x, y = np.array([0.0, 0.5, -2.0, 0.0]), np.array([3.0, 0.1, 4.0, np.nan])
    np.testing.assert_allclose(
        t.special.xlog1py(t.tensor(x), t.tensor(y)).numpy(), special.xlog1py(x, y), rtol=1e-12
    )
    a = np.array([2.0, 5.5])
    np.testing.assert_allclose(
        t.special.multigammaln(t.tensor(a), 3).numpy(),
        [special.multigammaln(v, 3) for v in a], rtol=1e-12,
    )  # fmt: skip
    with pytest.raises(ValueError, match="p has to be"):
        t.special.multigammaln(t.tensor(a), 0)


@pytest.mark.parametrize("dtype", [t.int32, t.int64, t.uint8])
def test_divisors(dtype: Any) -> None:
    a, b = np.array([[12, 0, 7], [18, 1, 0]]), np.array([8, 0, 21])
    if dtype is not t.uint8:
        a = -a
    x, y = t.tensor(a, dtype=dtype), t.tensor(b, dtype=dtype)
    assert t.gcd(x, y).tolist() == np.gcd(a, b).tolist()
    assert x.lcm(y).tolist() == np.lcm(a, b).tolist()
    assert t.gcd(x, y).dtype is dtype
    with pytest.raises(TypeError, match="integers"):
        t.gcd(t.ones(2), t.ones(2))


@pytest.mark.parametrize("n", [0, 1, 2, 7, 10])
@pytest.mark.parametrize("periodic", [True, False])
def test_windows(n: int, periodic: bool) -> None:
    names = {"hann": "hann", "hamming": "hamming", "blackman": "blackman", "bartlett": "bartlett",
             "kaiser": ("kaiser", 12.0)}  # fmt: skip
    for name, theirs in names.items():
        out = getattr(t, f"{name}_window")(n, periodic, dtype=t.float64).numpy()
        wish = signal.get_window(theirs, n, periodic) if n else np.zeros(0)
        np.testing.assert_allclose(out, wish, rtol=1e-9, atol=1e-12)
