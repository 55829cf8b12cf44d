"""Scans in vector loops: a register that every turn of the loop adds to and reads."""

from __future__ import annotations

import numpy as np
import pytest
from kernels import call, compiled
from test_codegen_loops import LENGTHS, add, kernel, mul, target, x_y

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.interp import interpret
from treadle.codegen.target import Target
from treadle.ir.loop import (
    Accumulate,
    Alloc,
    Binary,
    Block,
    Const,
    For,
    Kernel,
    Let,
    Load,
    Size,
    Store,
    Var,
)

__all__ = ["target"]

START = {"add": 0, "mul": 1, "max": -100, "min": 100, "logaddexp": float("-inf")}
FOLD = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
    "logaddexp": np.logaddexp,
}  # fmt: skip
DTYPES = [dt.float32, dt.float64, dt.int64, dt.int32, dt.int16, dt.uint8]


def running(op: str, dtype: DType, reverse: bool = False) -> Kernel:
    """y[t, i] = 2 * (x[t, 0] op ... op x[t, i]), or from the other end on."""
    at: Binary | Var = Var("i")
    if reverse:
        at = Binary("sub", Binary("sub", Size(1), Const(1)), Var("i"))
    place = add(mul(Var("t"), Size(1)), at)
    step = (
        Accumulate("s", Const(0), op, Load("x", place, dtype)),
        Let("v", Load("s", Const(0), dtype)),
        Store("y", place, Binary("mul", Var("v", dtype), Const(2, dtype))),
    )
    row = (
        Alloc("s", dtype, Const(1)),
        Store("s", Const(0), Const(START[op], dtype)),
        For("i", Size(1), Block(step), "vector"),
    )
    return kernel(For("t", Size(0), Block(row), "parallel"), *x_y(dtype, dtype))


def operands(dtype: DType, rows: int, n: int) -> np.ndarray:
    random = np.random.default_rng(n)
    if dtype.kind == "f":
        return random.uniform(0.5, 1.5, (rows, n)).astype(dtype.numpy)
    return random.integers(0, 4, (rows, n)).astype(dtype.numpy)


@pytest.mark.parametrize("n", LENGTHS)
@pytest.mark.parametrize("reverse", [False, True])
def test_running_sums(target: Target, n: int, reverse: bool) -> None:
    made = running("add", dt.float32, reverse)
    x = operands(dt.float32, 3, n)
    y = np.full_like(x, -7)
    call(compiled(made, target), [x, y], [3, n], 0, 3)
    ordered = x[:, ::-1] if reverse else x
    expected = 2 * np.cumsum(ordered.astype(np.float64), 1)
    np.testing.assert_allclose(y[:, ::-1] if reverse else y, expected, 1e-6)


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: d.name)
@pytest.mark.parametrize("op", sorted(START))
def test_every_operator_and_dtype(target: Target, op: str, dtype: DType) -> None:
    if (op == "logaddexp" and dtype.kind != "f") or (dtype is dt.uint8 and op == "max"):
        pytest.skip("has no such operator, or no start below 0")
    made = running(op, dtype)
    x = operands(dtype, 2, 45)
    y, slow = np.zeros_like(x), np.zeros_like(x)
    call(compiled(made, target), [x, y], [2, 45], 0, 2)
    assert interpret(made, [x, slow], [2, 45], 0, 2) == 0
    expected = FOLD[op].accumulate(x, 1, x.dtype) * np.asarray(2, x.dtype)
    tolerance = 1e-5 if dtype is dt.float32 else 1e-13
    np.testing.assert_allclose(y, expected, tolerance)
    np.testing.assert_allclose(slow, expected, tolerance)


@pytest.mark.parametrize("op", ["max", "min", "add", "logaddexp"])
def test_a_nan_stays(target: Target, op: str) -> None:
    x = operands(dt.float32, 1, 40)
    x[0, 17] = np.nan
    y = np.zeros_like(x)
    call(compiled(running(op, dt.float32), target), [x, y], [1, 40], 0, 1)
    assert np.isfinite(y[0, :17]).all()
    assert np.isnan(y[0, 17:]).all()


def test_logarithms_of_sums_at_infinity(target: Target) -> None:
    x = np.array([[-np.inf, -np.inf, 1.0, -np.inf, 1000.0, 1000.0, np.inf, 3.0]], np.float32)
    y = np.zeros_like(x)
    call(compiled(running("logaddexp", dt.float32), target), [x, y], [1, 8], 0, 1)
    sums = [-np.inf, -np.inf, 1, 1, 1000, 1000 + np.log(2), np.inf, np.inf]
    np.testing.assert_allclose(y[0], 2 * np.array(sums), 1e-6)
