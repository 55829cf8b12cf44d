"""The interpreter itself, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from treadle.base import dtype as dt
from treadle.base.errors import CompileError
from treadle.codegen.interp import interpret, interpret_contraction
from treadle.ir.contraction import Contraction, Operand
from treadle.ir.loop import (
    Binary,
    Block,
    Call,
    Const,
    For,
    Kernel,
    Load,
    Param,
    Size,
    Store,
    Unary,
    Var,
)

F32 = dt.float32


def test_a_part_of_the_parallel_range() -> None:
    value = Unary("neg", Load("x", Var("t"), F32))
    body = For("t", Size(0), Store("y", Var("t"), value), "parallel")
    kernel = Kernel("k", (Param("x", F32), Param("y", F32, "out")), 1, body)
    x, y = np.arange(6, dtype=np.float32), np.zeros(6, dtype=np.float32)
    assert interpret(kernel, [x, y], [6], 2, 4) == 0
    np.testing.assert_array_equal(y, [0, 0, -2, -3, 0, 0])
    interpret(kernel, [x, y], [6])
    np.testing.assert_array_equal(y, -x)


def test_an_index_outside_of_its_buffer() -> None:
    kernel = Kernel("k", (Param("y", F32, "out"),), 0, Store("y", Const(-1), Const(1.0, F32)))
    with pytest.raises(IndexError, match="index -1 of 'y', which has 3 elements"):
        interpret(kernel, [np.zeros(3, dtype=np.float32)], [])


def test_statements_of_other_devices() -> None:
    with pytest.raises(CompileError, match="the interpreter knows no Call"):
        interpret(Kernel("k", (), 0, Block((Call("f", ()),))), [], [])


def test_a_batched_product_with_an_epilogue() -> None:
    acc, bias = Var("acc", F32), Var("e0", F32)
    total = Binary("add", acc, bias)
    contraction = Contraction(
        "c",
        (1, 1, 1, 1),
        Operand(F32, "k"),
        Operand(F32, "n"),
        (Operand(F32, "n"),),
        (Operand(F32, "n"), Operand(dt.bool_, "n")),
        F32,
        (Binary("max", total, Const(0.0, F32)), Binary("gt", total, Const(0.0, F32))),
    )
    batch, m, n, k = 2, 3, 4, 5
    rng = np.random.default_rng(0)
    a = rng.standard_normal((batch, m, k)).astype(np.float32)
    b = rng.standard_normal((batch, k, n)).astype(np.float32)
    row = rng.standard_normal(n).astype(np.float32)
    out, mask = np.zeros((batch, m, n), dtype=np.float32), np.zeros((batch, m, n), dtype=bool)
    across = [m * n, n, 1, 0]
    strides = [m * k, k, 0, 1, k * n, 0, 1, n, 0, 0, 1, 0, *across, *across]
    arrays = [v.reshape(-1) for v in (a, b, row, out, mask)]
    interpret_contraction(contraction, arrays, [batch, m, n, k, *strides])
    want = a @ b + row
    np.testing.assert_allclose(out, np.maximum(want, 0), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(mask, want > 0)
