"""Generated code against the interpreter on random loop nests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from kernels import call, compiled
from nests import Case, nests

from treadle.codegen.interp import interpret
from treadle.codegen.target import BY_NAME, Target, _offered
from treadle.ir.show import show
from treadle.ir.verify_loop import verify

_SETTINGS = settings(
    max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)


@pytest.mark.parametrize("name", [t.name for t in _offered()])
def test_a_random_nest_gives_what_the_interpreter_gives(name: str) -> None:
    _compare(BY_NAME[name])


def _compare(target: Target) -> None:
    @_SETTINGS
    @given(nests())
    def check(case: Case) -> None:
        verify(case.kernel)
        expected = [a.copy() for a in case.arrays]
        fault = interpret(case.kernel, expected, case.sizes)
        address = compiled(case.kernel, target)
        assert call(address, case.arrays, case.sizes, 0, case.sizes[0]) == fault
        for got, want in zip(case.arrays, expected, strict=True):
            if not np.array_equal(got, want, equal_nan=got.dtype.kind == "f"):
                raise AssertionError(f"{show(case.kernel)}\n{case.sizes}\n{got}\n{want}")

    check()
