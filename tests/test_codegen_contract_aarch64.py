"""Contractions cross-compiled for AArch64 and run there, against NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aarch64 import needs_qemu, run
from contract_cases import Case, contraction, identity
from winograd_cases import Data, Dilated, Filter

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.contract import schedule
from treadle.codegen.target import AARCH64

pytestmark = needs_qemu


@pytest.mark.parametrize(
    ("dtype", "accumulator"),
    [
        (dt.float32, dt.float32),
        (dt.float64, dt.float64),
        (dt.bfloat16, dt.float32),
        (dt.int8, dt.int32),
    ],
    ids=lambda d: d.name,
)
@pytest.mark.parametrize("units", ["kn", "mk"])
@pytest.mark.parametrize("extents", [(13, 33, 70), (100, 20, 30), (3, 210, 17)], ids=str)
def test_products(
    dtype: DType, accumulator: DType, units: str, extents: tuple[int, ...], tmp_path: Path
) -> None:
    ends = identity(accumulator)
    c = contraction((0, 1, 1, 1), (dtype, units[0]), (dtype, units[1]), accumulator, ends)
    case = Case(c, extents, 0)
    expected = case.expected(ends)
    plan = schedule(c, case.sizes, AARCH64)
    arrays = [*case.buffers, np.zeros(plan.workspace, np.uint8)]
    for step in plan.steps:
        assert run(c, arrays, step.sizes, tmp_path, step.tasks) == 0
    np.testing.assert_array_equal(arrays[2], expected[0])


@pytest.mark.parametrize("dtype", [dt.float32, dt.float64], ids=lambda d: d.name)
@pytest.mark.parametrize("make", [Data, Dilated, Filter])
def test_convolutions_by_transformed_tiles(make: Any, dtype: DType, tmp_path: Path) -> None:
    case = make((2, 6, 10, 64, 32), dtype, "")
    plan = schedule(case.pattern, case.sizes, AARCH64)
    assert plan.steps
    arrays = [*case.buffers, np.zeros(plan.workspace, np.uint8)]
    for step in plan.steps:
        assert run(case.pattern, arrays, step.sizes, tmp_path, step.tasks) == 0
    epsilon = np.finfo(dtype.numpy).eps
    for got, want in zip(arrays[3:], case.expected, strict=False):
        assert np.abs(got - want).max() < 32 * epsilon * np.abs(want).max()
