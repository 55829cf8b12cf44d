"""Elementary functions of generated code: error in ulp over the whole range, on every target."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from kernels import apply
from scipy import special

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.target import BY_NAME, _offered

TARGETS = [t.name for t in _offered()]
LONG = np.longdouble
HAS_LONG = np.finfo(LONG).nmant > 60

FUNCTIONS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log2": np.log2,
    "log1p": np.log1p,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "tanh": np.tanh,
    "sigmoid": lambda x: np.where(x > 0, 1, np.exp(-np.abs(x))) / (1 + np.exp(-np.abs(x))),
    "erf": special.erf,
}
BOUND_32 = {name: 1.0 if name == "tan" else 2.0 for name in FUNCTIONS}
BOUND_64 = {name: 3.0 if name in ("tan", "tanh", "sigmoid", "erf") else 2.0 for name in FUNCTIONS}

SPECIAL = np.array(
    [0.0, -0.0, 1, -1, 0.5, -0.5, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1.1754944e-38, 88.72,
     88.73, -87.34, -103.97, -104, 127.99, 128, -126, -149, -150, 3.4028235e38, -3.4028235e38],
    dtype=np.float32,
)  # fmt: skip


def ulps(got: np.ndarray, want: np.ndarray) -> np.ndarray:
    """The distance in units in the last place of the type of `got`; infinite for other kinds."""
    info = np.finfo(got.dtype)
    exact = want.astype(LONG)
    rounded = want.astype(got.dtype)
    size = np.maximum(np.abs(exact), info.smallest_subnormal)
    exponent = np.maximum(np.floor(np.log2(size)), np.log2(LONG(info.smallest_normal)))
    distance = np.abs(got.astype(LONG) - exact) / np.exp2(exponent - info.nmant)
    same = (got == rounded) | (np.isnan(got) & np.isnan(rounded))
    distance = np.where(same & ~np.isfinite(distance), 0, distance)
    return np.where(np.isnan(distance), np.inf, distance)


def check(got: np.ndarray, want: np.ndarray, x: np.ndarray, bound: float) -> None:
    """Asserts the bound, and that zeros and infinities have the right sign."""
    error = ulps(got, want)
    worst = int(np.argmax(error))
    assert error[worst] <= bound, (x[worst], got[worst], want[worst], float(error[worst]))
    signs = (np.signbit(got) != np.signbit(want)) & ~np.isnan(want)
    assert not signs.any(), x[signs][:5]


@pytest.fixture(scope="module")
def float32_range() -> np.ndarray:
    sweep = np.arange(0, 2**32, 4099, dtype=np.uint64).astype(np.uint32).view(np.float32)
    near = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    dense = np.linspace(-20, 20, 100_001, dtype=np.float32)
    return np.concatenate([sweep, SPECIAL, dense, near * 1e-3, near * 1e-3 + 1])


@pytest.fixture(scope="module")
def float64_range() -> np.ndarray:
    rng = np.random.default_rng(1)
    near = rng.standard_normal(60_000)
    quarters = rng.integers(1, 2**40, 1000) * (np.pi / 2)
    return np.concatenate(
        [rng.integers(0, 2**64, 100_000, dtype=np.uint64).view(np.float64), near, near * 100,
         near * 1e-3 + 1, SPECIAL.astype(np.float64), [5e-324, -5e-324, 709.7, -745, -708.4],
         np.arange(1, 1000) * (np.pi / 2), quarters]
    )  # fmt: skip


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_float32_over_its_whole_range(name: str, target: str, float32_range: np.ndarray) -> None:
    x = float32_range
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](x.astype(np.float64))
        got = apply(name, dt.float32, x, target=BY_NAME[target])
        check(got, want, x, BOUND_32[name])


@pytest.mark.skipif(not HAS_LONG, reason="needs a long double with more digits than float64")
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "erf"])
def test_float64(name: str, target: str, float64_range: np.ndarray) -> None:
    x = float64_range
    with np.errstate(all="ignore"):
        want = FUNCTIONS[name](x.astype(LONG))
        got = apply(name, dt.float64, x, target=BY_NAME[target])
        check(got, want, x, BOUND_64[name])


@pytest.mark.parametrize("target", TARGETS)
def test_erf_of_float64(target: str) -> None:
    x = np.concatenate([np.linspace(-7, 7, 20_001), [0.0, -0.0, np.inf, -np.inf, np.nan, 5e-324]])
    got = apply("erf", dt.float64, x, target=BY_NAME[target])
    # SciPy's own error comes on top.
    check(got, special.erf(x), x, BOUND_64["erf"] + 1)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64])
@pytest.mark.parametrize(("name", "reference"), [("pow", np.power), ("atan2", np.arctan2)])
def test_functions_of_two_numbers(
    name: str, reference: Callable[..., np.ndarray], dtype: DType, target: str
) -> None:
    rng = np.random.default_rng(2)
    edges = np.array([0, -0.0, 1, -1, 2, -2, 3, 0.5, -0.5, np.inf, -np.inf, np.nan, -3, 1e30, 7.5])
    a, b = (v.ravel() for v in np.meshgrid(edges, edges))
    bits = rng.integers(0, 2**32, (2, 100_000), dtype=np.uint32).view(np.float32)
    spread = np.exp(rng.standard_normal(100_000) * 5)
    with np.errstate(all="ignore"):
        a = np.concatenate([a, bits[0], spread]).astype(dtype.numpy)
        b = np.concatenate([b, bits[1], rng.standard_normal(100_000) * 20]).astype(dtype.numpy)
        want = reference(a.astype(LONG), b.astype(LONG))
        got = apply(name, dtype, a, b, target=BY_NAME[target])
        check(got, want, a, 1.0 if dtype is dt.float32 else 3.0)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_bits_do_not_depend_on_the_place_in_the_loop(name: str, dtype: DType, target: str) -> None:
    x = np.random.default_rng(3).standard_normal(101).astype(dtype.numpy) * 30
    x[::10] = 1e30
    whole = apply(name, dtype, x, target=BY_NAME[target])
    for start, count in ((1, 100), (7, 9), (40, 1), (96, 5)):
        part = apply(name, dtype, x[start : start + count], target=BY_NAME[target])
        np.testing.assert_array_equal(part, whole[start : start + count])


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64])
@pytest.mark.parametrize(
    ("name", "reference"),
    [("floor", np.floor), ("ceil", np.ceil), ("trunc", np.trunc), ("round", np.rint),
     ("sqrt", np.sqrt), ("sign", np.sign), ("abs", np.abs), ("neg", np.negative)],
)  # fmt: skip
def test_exact_functions(
    name: str, reference: Callable[..., np.ndarray], dtype: DType, target: str,
    float32_range: np.ndarray,
) -> None:  # fmt: skip
    halves = np.arange(-5, 5, dtype=np.float32) + 0.5
    with np.errstate(all="ignore"):
        x = np.concatenate([float32_range[::7], halves]).astype(dtype.numpy)
        check(apply(name, dtype, x, target=BY_NAME[target]), reference(x), x, 0)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64])
@pytest.mark.parametrize(("name", "reference"), [("mod", np.mod), ("rem", np.fmod)])
def test_remainders_are_exact(
    name: str, reference: Callable[..., np.ndarray], dtype: DType, target: str
) -> None:
    bits = np.random.default_rng(4).integers(0, 2**32, (2, 50_000), dtype=np.uint32)
    a, b = bits.view(np.float32)
    with np.errstate(all="ignore"):
        a = np.concatenate([a, SPECIAL]).astype(dtype.numpy)
        b = np.concatenate([b, SPECIAL[::-1]]).astype(dtype.numpy)
        check(apply(name, dtype, a, b, target=BY_NAME[target]), reference(a, b), a, 0)
