"""Running sums, products and extrema through the whole stack, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ml_dtypes import bfloat16

import treadle
from treadle.graph.build import build
from treadle.ops import scan
from treadle.ops.table import input_node, make

SHAPES = [(6,), (3, 5), (4, 6, 7), (1, 9), (2, 3, 1), (40, 33, 17), (150_000,), (3, 50_001),
          (50_001, 3), (2, 40_000, 2), (4096, 40)]  # fmt: skip
CASES = [(shape, axis) for shape in SHAPES for axis in range(len(shape))]
ACCUMULATE = {
    "cumsum": np.cumsum, "cumprod": np.cumprod, "logcumsumexp": np.logaddexp.accumulate,
}  # fmt: skip


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(-2, 2, shape)


@pytest.mark.parametrize(("shape", "axis"), CASES, ids=str)
@pytest.mark.parametrize("name", sorted(ACCUMULATE))
def test_running_results(name: str, shape: tuple[int, ...], axis: int) -> None:
    x = numbers(shape)
    if name == "cumprod":
        x = np.exp(x / shape[axis])
    got = getattr(treadle, name)(treadle.tensor(x, dtype=treadle.float64), axis)
    np.testing.assert_allclose(got.numpy(), ACCUMULATE[name](x, axis), 1e-9, 1e-9)


@pytest.mark.parametrize(("shape", "axis"), CASES, ids=str)
def test_running_extrema_and_their_places(shape: tuple[int, ...], axis: int) -> None:
    x = np.round(numbers(shape), 1)
    got = treadle.cummax(treadle.tensor(x, dtype=treadle.float64), axis)
    values, places = np.moveaxis(x, axis, 0), np.moveaxis(got.indices.numpy(), axis, 0)
    best = np.maximum.accumulate(values, 0)
    np.testing.assert_array_equal(np.moveaxis(got.values.numpy(), axis, 0), best)
    np.testing.assert_array_equal(np.take_along_axis(values, places, 0), best)
    # The last of equals: nothing behind it, up to here, is as large.
    later = np.maximum.accumulate(np.where(values == best, np.arange(len(values)).reshape(
        -1, *[1] * (x.ndim - 1)), 0), 0)  # fmt: skip
    np.testing.assert_array_equal(places, later)


def test_nan_is_an_extremum_and_stays() -> None:
    x = treadle.tensor([1.0, 3.0, float("nan"), 9.0, float("nan"), 0.0])
    for found in (treadle.cummax(x, 0), treadle.cummin(x, 0)):
        assert np.isnan(found.values.numpy()).tolist() == [False, False, True, True, True, True]
        assert found.indices.tolist()[2:] == [2, 2, 4, 4]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.bool_])
def test_integers_and_bools_sum_as_int64(dtype: Any) -> None:
    x = np.random.default_rng(0).integers(0, 2, (5, 70)).astype(dtype)
    got = treadle.tensor(x).cumsum(1)
    assert got.dtype is treadle.int64
    np.testing.assert_array_equal(got.numpy(), np.cumsum(x, 1, np.int64))
    best = treadle.tensor(x).cummin(1).values
    np.testing.assert_array_equal(best.numpy(), np.minimum.accumulate(x, 1))


@pytest.mark.parametrize("dtype", [np.float16, bfloat16])
@pytest.mark.parametrize("shape", [(3, 100), (200_000,)])
def test_small_floats_are_rounded_once(dtype: Any, shape: tuple[int, ...]) -> None:
    x = (np.random.default_rng(0).integers(-3, 4, shape) / 4).astype(dtype)
    got = treadle.tensor(x).cumsum(-1).numpy()
    exact = np.cumsum(x.astype(np.float64), -1)
    np.testing.assert_array_equal(got, exact.astype(dtype))


def test_what_leads_to_a_scan_and_what_follows_is_one_kernel() -> None:
    x = input_node((300, 400), treadle.float32)
    from_x = make(scan.CUMSUM, (scan.pw.mul(x, x),), (1, False))
    plan = build([scan.pw.exp(scan.pw.neg(from_x))], [x])
    assert len(plan.launches) == 1
    assert plan.arena_bytes == 0


def test_values_and_places_are_one_kernel() -> None:
    x = input_node((300, 400), treadle.float32)
    best = make(scan.CUMMAX, (x,), (1, False))
    assert len(build([best, scan.place_of(x, best, 1)], [x]).launches) == 1


@pytest.mark.parametrize("shape", [(300_000,), (2, 70_000), (70_000, 3), (64, 500)])
def test_any_number_of_threads_gives_the_same_bits(shape: tuple[int, ...]) -> None:
    x = treadle.tensor(numbers(shape), dtype=treadle.float32)
    before = treadle.get_num_threads()
    results = []
    for threads in (1, 2, 5):
        treadle.set_num_threads(threads)
        results.append([x.cumsum(axis).numpy().tobytes() for axis in range(len(shape))])
    treadle.set_num_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("name", ["cumsum", "cumprod", "logcumsumexp", "cummax", "cummin"])
@pytest.mark.parametrize("axis", [0, 1])
def test_gradients(name: str, axis: int) -> None:
    x = treadle.tensor(numbers((4, 5)), dtype=treadle.float64, requires_grad=True)

    def function(t: Any) -> Any:
        out = getattr(treadle, name)(t, axis)
        return out if isinstance(out, treadle.Tensor) else out.values

    assert treadle.autograd.gradcheck(function, (x,))


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 3)])
@pytest.mark.parametrize("name", ["cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"])
def test_scans_of_nothing(name: str, shape: tuple[int, ...]) -> None:
    for dim in range(len(shape)):
        x = treadle.zeros(shape, requires_grad=True)
        out = getattr(x, name)(dim)
        out = out[0] if isinstance(out, tuple) else out
        out.sum().backward()
        assert out.shape == shape and x.grad.shape == shape
