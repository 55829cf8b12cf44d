"""The attention kernel on its own: against NumPy, for every target, size, mask and cut."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from aarch64 import needs_qemu, run
from contract_launch import Compiled, aligned, guarded
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import CompileError
from treadle.codegen.attention import render_attention, schedule_attention
from treadle.codegen.interp_attention import interpret_attention
from treadle.codegen.jit import new_module
from treadle.codegen.target import AARCH64, PORTABLE, Target, host
from treadle.ir.attention import BACKWARD, FORWARD, Attention, Matrix

SHAPES = {
    "q": "td", "k": "sd", "v": "se", "mask": "ts", "lse": "t", "delta": "t", "g": "te",
    "out": "te", "dq": "td", "dk": "sd", "dv": "se",
}  # fmt: skip
MASKS = {"": None, "bool": dt.bool_, "float": dt.float32}


@dataclass
class Sizes:
    """The extents of one launch."""

    batches: int
    heads: int
    t: int
    s: int
    d: int
    e: int

    def shape(self, name: str) -> tuple[int, ...]:
        """Of an operand or output; all but lse, delta and mask have their heads after the rows."""
        rows, *columns = (getattr(self, axis) for axis in SHAPES[name])
        if name in ("lse", "delta", "mask"):
            return (self.batches, self.heads, rows, *columns)
        return (self.batches, rows, self.heads, *columns)


def pattern(
    dtype: DType, causal: bool, mask: DType | None, backward: bool, outputs: tuple[str, ...] = ()
) -> Attention:
    """A pattern whose mask lies along keys."""
    names = ("q", "k", "v", "lse", "g", "delta") if backward else ("q", "k", "v")
    outputs = outputs or (BACKWARD if backward else FORWARD)
    operands = [
        Matrix(name, dtype, "column") for name in names if name != "v" or outputs != ("lse",)
    ]
    if mask is not None:
        operands.append(Matrix("mask", mask if mask is dt.bool_ else dtype, "column"))
    results = tuple(Matrix(name, dtype, "column") for name in outputs)
    return Attention("attention", dtype, causal, tuple(operands), results)


class Case:
    """Arrays for a pattern of given sizes, and what it should make of them."""

    def __init__(self, pattern: Attention, n: Sizes, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.pattern = pattern
        extents = [n.batches, n.heads, n.t, n.s, n.d, n.e if pattern.find("v") else 0]
        (bits,) = struct.unpack("<q", struct.pack("<d", n.d**-0.5))
        self.sizes = [*extents, bits]
        self.arrays: list[Any] = []
        for m in pattern.operands:
            x: Any = rng.standard_normal(n.shape(m.name)).astype(m.dtype.numpy)
            if m.dtype is dt.bool_:
                x = rng.random(x.shape) < 0.7
                x[:, :, 0] = False
            elif m.name == "lse":
                x += 2
            self.arrays.append(x)
        self.arrays += [np.full(n.shape(m.name), 7, m.dtype.numpy) for m in pattern.outputs]
        for m, x in zip((*pattern.operands, *pattern.outputs), self.arrays, strict=True):
            steps = [step // x.itemsize for step in x.strides] + [0]
            plain = m.name in ("lse", "delta", "mask")
            self.sizes += [steps[i] for i in ((0, 1, 2, 3) if plain else (0, 2, 1, 3))]

    def expected(self) -> list[Any]:
        """The outputs by NumPy, in float64."""
        arrays = [x.astype(np.float64) if x.dtype != bool else x.copy() for x in self.arrays]
        interpret_attention(self.pattern, [x.reshape(-1) for x in arrays], self.sizes)
        return arrays[len(self.pattern.operands) :]

    def check(self, arrays: list[Any]) -> None:
        """Compares outputs with what they should be."""
        bound = 3e-6 if self.pattern.dtype is dt.float32 else 2e-14
        for x, want in zip(arrays[len(self.pattern.operands) :], self.expected(), strict=True):
            finite = np.isfinite(want)
            np.testing.assert_array_equal(np.isfinite(x.reshape(want.shape)), finite)
            large = max(1.0, float(np.abs(want[finite]).max(initial=0)))
            got = np.where(finite, x.reshape(want.shape), 0)
            np.testing.assert_allclose(got, np.where(finite, want, 0), atol=bound * large, rtol=0)


CODE: dict[Any, Compiled] = {}


def compiled(p: Attention, target: Target) -> Compiled:
    """The code of a pattern, made once."""
    return CODE.setdefault((p.text(), target.name), Compiled(p, target))


EXTENTS = [
    Sizes(1, 1, 1, 1, 1, 1),
    Sizes(2, 3, 17, 40, 5, 9),
    Sizes(1, 2, 130, 70, 33, 16),
    Sizes(1, 1, 150, 210, 64, 64),
]


@pytest.mark.parametrize("target", [host(), PORTABLE], ids=lambda t: t.name)
@pytest.mark.parametrize("n", EXTENTS, ids=str)
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_attention(backward: bool, causal: bool, mask: str, n: Sizes, target: Target) -> None:
    for dtype in (dt.float32, dt.float64):
        case = Case(pattern(dtype, causal, MASKS[mask], backward), n)
        # Nothing is read behind the end of an operand.
        arrays = [guarded(x) for x in case.arrays]
        compiled(case.pattern, target).bind(case.sizes, arrays).run()
        case.check(arrays)


@settings(max_examples=25, deadline=None)
@given(
    st.builds(
        Sizes, st.integers(1, 2), st.integers(1, 3), st.integers(1, 200), st.integers(1, 300),
        st.integers(1, 70), st.integers(1, 70),
    ),
    st.booleans(),
    st.booleans(),
    st.sampled_from(sorted(MASKS)),
)  # fmt: skip
def test_any_sizes(n: Sizes, backward: bool, causal: bool, mask: str) -> None:
    case = Case(pattern(dt.float32, causal, MASKS[mask], backward), n, n.t)
    arrays = [guarded(x) for x in case.arrays]
    compiled(case.pattern, host()).bind(case.sizes, arrays).run()
    case.check(arrays)


@pytest.mark.parametrize("outputs", [("lse",), ("out",), ("dq",), ("dk",), ("dq", "dv")], ids=str)
def test_some_of_the_outputs(outputs: tuple[str, ...]) -> None:
    backward = outputs[0] in BACKWARD
    case = Case(pattern(dt.float32, True, None, backward, outputs), Sizes(1, 2, 70, 70, 16, 8))
    arrays = [x.copy() for x in case.arrays]
    compiled(case.pattern, host()).bind(case.sizes, arrays).run()
    case.check(arrays)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_results_do_not_depend_on_who_does_what(backward: bool) -> None:
    case = Case(pattern(dt.float32, True, None, backward), Sizes(2, 1, 300, 400, 16, 16))
    code = compiled(case.pattern, host())
    results = []
    for how in ("whole", "single", "threads"):
        arrays = [x.copy() for x in case.arrays]
        bound = code.bind(case.sizes, arrays)
        if how == "threads":
            bound.run_threads()
        else:
            bound.run((lambda n: (0, n)) if how == "whole" else (lambda n: range(n + 1)))
        results.append([x.tobytes() for x in arrays])
    assert results[0] == results[1] == results[2]


def test_memory_is_linear_in_the_lengths() -> None:
    for backward in (False, True):
        p = pattern(dt.float32, False, None, backward)
        used = []
        for length in (4096, 8192):
            sizes = Case(
                pattern(dt.float32, False, None, backward), Sizes(1, 2, length, length, 8, 8)
            )
            plan = schedule_attention(p, sizes.sizes, host())
            used.append(plan.scratch + plan.workspace)
        assert used[1] <= 2.1 * used[0]


@needs_qemu
@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("mask", ["", "bool"])
def test_aarch64(mask: str, backward: bool, tmp_path: Path) -> None:
    for dtype in (dt.float32, dt.float64):
        case = Case(pattern(dtype, True, MASKS[mask], backward), Sizes(1, 2, 45, 50, 10, 20))
        plan = schedule_attention(case.pattern, case.sizes, AARCH64)
        arrays = [*[x.copy() for x in case.arrays], aligned(plan.workspace)]
        for step in plan.steps:
            assert run(case.pattern, arrays, step.sizes, tmp_path, step.tasks) == 0
        case.check(arrays[:-1])


def test_half_floats_have_no_kernel() -> None:
    p = pattern(dt.float16, False, None, False)
    with pytest.raises(CompileError, match="float16"):
        render_attention(new_module(host(), "x"), p, host(), "kernel")
