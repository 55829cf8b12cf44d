"""Joins stored part by part, and what is read across or added at random: values and kernels."""

from __future__ import annotations

import numpy as np
import pytest

import treadle
from treadle.graph.build import build
from treadle.ops.gather import JOIN
from treadle.ops.table import input_node, make

CASES = [
    ([(100, 400)] * 6, 0), ([(100, 400)] * 6, 1), ([(100, 400), (3, 400), (0, 400)], 0),
    ([(200, 300), (200, 2), (200, 64)], 1), ([(40, 50, 60)] * 3, -1), ([(300, 1)] * 120, 1),
    ([(40, 50, 60), (40, 7, 60)], 1), ([(50_000,), (3,)], 0), ([(3, 5), (2, 5)], 0),
]  # fmt: skip


@pytest.mark.parametrize(("shapes", "axis"), CASES, ids=str)
def test_joins(shapes: list[tuple[int, ...]], axis: int) -> None:
    random = np.random.default_rng(0)
    arrays = [random.standard_normal(shape).astype(np.float32) for shape in shapes]
    parts = [treadle.tensor(a) for a in arrays]
    want = np.concatenate(arrays, axis)
    np.testing.assert_array_equal(treadle.cat(parts, axis).numpy(), want)
    joined = treadle.cat([2 * p + 1 for p in parts], axis)
    np.testing.assert_array_equal((joined - 1).numpy(), 2 * want + 1 - 1)
    np.testing.assert_array_equal(joined.numpy(), 2 * want + 1)
    np.testing.assert_allclose(joined.sum(axis).numpy(), (2 * want + 1).sum(axis), 1e-4, 1e-3)
    np.testing.assert_array_equal(
        treadle.roll(parts[0], 3, axis).numpy(), np.roll(arrays[0], 3, axis)
    )


def test_long_parts_are_kernels_and_short_ones_are_one() -> None:
    long = [input_node((300, 400), treadle.float32) for _ in range(3)]
    assert len(build([make(JOIN, tuple(long), (1,))], long).launches) == 3
    short = [input_node((40_000, 1), treadle.float32) for _ in range(3)]
    assert len(build([make(JOIN, tuple(short), (1,))], short).launches) == 1


@pytest.mark.parametrize("shape", [(70, 45), (300, 201), (17, 1000)])
def test_reading_across(shape: tuple[int, int]) -> None:
    a, b = (np.random.default_rng(i).standard_normal(shape).astype(np.float32) for i in range(2))
    x, y = treadle.tensor(a), treadle.tensor(np.ascontiguousarray(b.T))
    np.testing.assert_array_equal((x.t() + y).numpy(), a.T + b.T)
    three = treadle.tensor(np.stack([a, b, a]))
    got = (three.permute(1, 2, 0) * 2).numpy()
    np.testing.assert_array_equal(got, np.stack([a, b, a]).transpose(1, 2, 0) * 2)


@pytest.mark.parametrize("width", [1, 30, 64, 200])
def test_adding_rows_at_random(width: int) -> None:
    random = np.random.default_rng(0)
    at, rows = random.integers(0, 50, 3000), random.integers(-9, 9, (3000, width))
    want = np.zeros((50, width), np.int64)
    np.add.at(want, at, rows)
    table = treadle.zeros(50, width, dtype=treadle.int64)
    got = table.index_add(0, treadle.tensor(at), treadle.tensor(rows))
    np.testing.assert_array_equal(got.numpy(), want)
