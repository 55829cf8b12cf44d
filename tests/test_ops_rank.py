"""Positions by rank against a stable sort written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treadle.ops.host import SHARE
from treadle.ops.rank import positions

DTYPES = [np.float16, np.float32, np.float64, np.int8, np.int16, np.int32, np.int64, np.uint8,
          np.uint16, np.uint32, np.uint64, np.bool_]  # fmt: skip


def by_hand(x: np.ndarray, axis: int, start: int, stop: int, descending: bool) -> np.ndarray:
    """Python's own sort, which is stable, by the pair (is NaN, element)."""

    def order(row: np.ndarray) -> np.ndarray:
        keys = [(bool(v != v), 0 if v != v else v.item()) for v in row]
        # Python keeps equal elements in order also where it sorts in reverse.
        return np.array(sorted(range(len(row)), key=keys.__getitem__, reverse=descending))

    return np.apply_along_axis(order, axis, x).take(range(start, stop), axis)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("descending", [False, True])
def test_ties_zeros_infinities_and_nan(dtype: Any, descending: bool) -> None:
    x = np.random.default_rng(0).integers(-3, 4, (9, 40)).astype(dtype)
    if x.dtype.kind == "f":
        x[:, 3], x[:, 7], x[:, 11:13], x[::2, 20], x[:, 21] = np.inf, -np.inf, np.nan, -0.0, 0.0
        x[1, 30] = -np.array(np.nan, dtype)
    else:
        x[0, :2] = np.iinfo(dtype).min if dtype is not np.bool_ else 0
        x[1, :2] = np.iinfo(dtype).max if dtype is not np.bool_ else 1
    for axis, start, stop in ((1, 0, 40), (1, 0, 5), (1, 17, 18), (1, 39, 40), (0, 2, 7)):
        got = positions(x, axis, start, stop, descending)
        assert got.dtype == np.int64
        np.testing.assert_array_equal(got, by_hand(x, axis, start, stop, descending))


def test_rows_shared_among_threads_and_empty_ones() -> None:
    x = np.random.default_rng(0).integers(0, 50, (70, SHARE // 64)).astype(np.float32)
    got = positions(x, 1, 3, 9, True)
    np.testing.assert_array_equal(got, np.argsort(-x, 1, kind="stable")[:, 3:9])
    assert positions(x[:0], 1, 0, 2, False).shape == (0, 2)
    assert positions(x[:, :0], 1, 0, 0, False).shape == (70, 0)
    assert positions(np.float32([[[4], [2]]]), 1, 0, 2, False).tolist() == [[[1], [0]]]
