"""Convolutions by transformed tiles against a plain sum in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract_launch import Compiled
from winograd_cases import Data, Dilated, Filter

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.target import AVX2, PORTABLE, host

SHAPES = [(1, 2, 2, 32, 32), (2, 6, 10, 64, 32), (3, 8, 8, 32, 96), (5, 4, 6, 288, 64)]
"""Images, rows and columns of the result, channels, filters."""
TARGETS = [AVX2, PORTABLE]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("target", TARGETS, ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64], ids=lambda d: d.name)
@pytest.mark.parametrize(("make", "unit"), [(Data, "n"), (Data, ""), (Dilated, ""), (Filter, "")])
def test_against_a_plain_sum(
    make: Any, unit: str, shape: tuple[int, ...], dtype: DType, target: Any
) -> None:
    if target.vector_bits > host().vector_bits:
        pytest.skip("this machine has no such vectors")
    case = make(shape, dtype, unit)
    bound = Compiled(case.pattern, target).bind(case.sizes, case.buffers)
    bound.run()
    epsilon = np.finfo(dtype.numpy).eps
    for got, want in zip(case.buffers[3:], case.expected, strict=True):
        error = np.abs(got - want).max() / np.abs(want).max()
        assert error < 32 * epsilon
    first = [b.copy() for b in case.buffers[3:]]
    bound.run(lambda tasks: range(tasks + 1))
    bound.run_threads()
    for got, want in zip(case.buffers[3:], first, strict=True):
        np.testing.assert_array_equal(got, want)
