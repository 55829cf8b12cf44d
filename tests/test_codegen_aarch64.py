"""Kernels cross-compiled for AArch64 and run there, against the interpreter and NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from aarch64 import needs_qemu, run
from hypothesis import HealthCheck, given, settings
from kernels import elementwise, operand
from nests import Case, nests
from test_codegen_vector_math import BOUND_32, FUNCTIONS, SPECIAL, check

from treadle.base import dtype as dt
from treadle.codegen.interp import interpret
from treadle.ir.loop import Cast, Unary
from treadle.ir.show import show

pytestmark = needs_qemu


@pytest.mark.parametrize("name", FUNCTIONS)
def test_elementary_functions(name: str, tmp_path: Path) -> None:
    sweep = np.arange(0, 2**32, 262_147, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = np.concatenate([sweep, SPECIAL, np.linspace(-20, 20, 1001, dtype=np.float32)])
    y = np.empty_like(x)
    kernel = elementwise(Unary(name, operand(0, dt.float32)), dt.float32)
    assert run(kernel, [x, y], [x.size], tmp_path) == 0
    with np.errstate(all="ignore"):
        check(y, FUNCTIONS[name](x.astype(np.float64)), x, BOUND_32[name])


@pytest.mark.parametrize("half", [dt.float16, dt.bfloat16])
def test_halves(half: dt.DType, tmp_path: Path) -> None:
    x = np.arange(0, 2**32, 65_537, dtype=np.uint64).astype(np.uint32).view(np.float32)
    x = x[~np.isnan(x)]
    y = np.empty(x.size, dtype=half.numpy)
    assert run(elementwise(Cast(operand(0, dt.float32), half), dt.float32), [x, y], [x.size],
               tmp_path) == 0  # fmt: skip
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(y.view(np.uint16), x.astype(half.numpy).view(np.uint16))


def test_random_nests(tmp_path: Path) -> None:
    @settings(
        max_examples=25, deadline=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(nests())
    def compare(case: Case) -> None:
        expected = [a.copy() for a in case.arrays]
        fault = interpret(case.kernel, expected, case.sizes)
        assert run(case.kernel, case.arrays, case.sizes, tmp_path, case.sizes[0]) == fault
        for got, want in zip(case.arrays, expected, strict=True):
            same = np.array_equal(got, want, equal_nan=got.dtype.kind == "f")
            assert same, f"{show(case.kernel)}\n{got}\n{want}"

    compare()
