"""Contractions against NumPy: every transposition, type, epilogue and window, at odd sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from contract_cases import CLASSES, Case, Ends, check, contraction, identity
from contract_launch import Compiled, guarded

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import CompileError
from treadle.codegen.contract import render_contraction, schedule
from treadle.codegen.jit import compile_module, new_module
from treadle.codegen.target import AARCH64, AVX2, AVX512, PORTABLE, host
from treadle.ir.contraction import Operand
from treadle.ir.loop import Binary, Cast, Const, Expr, Select, Unary, Var

SHAPES = [
    (1, 1, 1), (6, 16, 8), (7, 17, 9), (5, 3, 2), (13, 33, 70), (64, 10, 128), (2, 200, 31),
    (150, 48, 20), (30, 210, 140), (1, 40, 300), (40, 1, 65),
]  # fmt: skip


@pytest.mark.parametrize("b_unit", ["n", "k", ""])
@pytest.mark.parametrize("a_unit", ["k", "m", ""])
def test_transpositions(a_unit: str, b_unit: str) -> None:
    f = dt.float32
    code = Compiled(contraction((0, 1, 1, 1), (f, a_unit), (f, b_unit), f))
    for seed, shape in enumerate(SHAPES):
        check(code, identity(f), shape, seed)


@pytest.mark.parametrize(
    ("a", "b", "accumulator"),
    [
        (dt.float64, dt.float64, dt.float64),
        (dt.float16, dt.float16, dt.float32),
        (dt.bfloat16, dt.float32, dt.float32),
        (dt.int8, dt.uint8, dt.int32),
        (dt.int64, dt.int64, dt.int64),
        (dt.bool_, dt.int16, dt.int64),
        (dt.uint8, dt.uint8, dt.uint8),
    ],
    ids=lambda d: d.name,
)
@pytest.mark.parametrize("units", ["kn", "mk"])
def test_types(a: DType, b: DType, accumulator: DType, units: str) -> None:
    code = Compiled(contraction((0, 1, 1, 1), (a, units[0]), (b, units[1]), accumulator))
    for seed, shape in enumerate(SHAPES[2:9]):
        check(code, identity(accumulator), shape, seed)


@pytest.mark.parametrize("target", [PORTABLE, AVX2, AVX512], ids=lambda t: t.name)
@pytest.mark.parametrize("dtype", [dt.float32, dt.float64, dt.float16], ids=lambda d: d.name)
def test_targets(target: Any, dtype: DType) -> None:
    if target.vector_bits > host().vector_bits:
        pytest.skip("this machine has no such vectors")
    accumulator = dt.float32 if dtype is dt.float16 else dtype
    c = contraction((1, 1, 1, 1), (dtype, "k"), (dtype, "k"), accumulator)
    code = Compiled(c, target)
    for seed, shape in enumerate(SHAPES[2:9]):
        check(code, identity(accumulator), (2, *shape), seed)


@pytest.mark.parametrize("target", [AVX512, AARCH64], ids=lambda t: t.name)
def test_other_targets_compile(target: Any) -> None:
    f = dt.float32
    module = new_module(target)
    render_contraction(module, contraction((0, 1, 1, 1), (f, "k"), (f, "n"), f), target, "kernel")
    assert compile_module(str(module), target).object


@pytest.mark.parametrize(
    ("dims", "extents"),
    [
        ((0, 0, 1, 1), [(20, 30), (3, 1)]),
        ((0, 1, 0, 1), [(20, 30)]),
        ((0, 1, 1, 0), [(20, 30)]),
        ((0, 0, 0, 1), [(50,)]),
        ((1, 0, 0, 0), [(9,)]),
        ((0, 0, 0, 0), [()]),
        ((2, 1, 1, 1), [(2, 3, 20, 17, 9), (1, 4, 3, 40, 5)]),
        ((1, 2, 2, 2), [(2, 3, 7, 2, 9, 3, 5), (1, 1, 14, 5, 16, 1, 8), (3, 4, 1, 20, 1, 2, 1)]),
        ((0, 3, 1, 3), [(2, 3, 5, 20, 2, 3, 4), (2, 9, 7, 33, 1, 1, 16)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("units", ["kn", "mk"])
def test_dimensions(
    dims: tuple[int, int, int, int], extents: list[tuple[int, ...]], units: str
) -> None:
    f = dt.float32
    code = Compiled(contraction(dims, (f, units[0]), (f, units[1]), f))
    for seed, sizes in enumerate(extents):
        check(code, identity(f), sizes, seed)


@pytest.mark.parametrize("empty", ["b", "m", "n", "k"])
def test_empty_extents(empty: str) -> None:
    f = dt.float32
    code = Compiled(contraction((1, 1, 1, 1), (f, "k"), (f, "n"), f))
    extents = [0 if kind == empty else 5 for kind in CLASSES]
    check(code, identity(f), extents, 0)
    if empty != "k":
        case = Case(code.pattern, extents, 0)
        assert schedule(code.pattern, case.sizes, host()).steps == ()


def _relu(x: Expr) -> Expr:
    return Binary("max", x, Const(0.0, x.dtype))


F, E0, E1 = Var("acc", dt.float32), Var("e0", dt.float32), Var("e1", dt.float32)
EPILOGUES = {
    "bias and relu, with its mask": Ends(
        (Operand(dt.float32, "n"),),
        (Operand(dt.float32, "n"), Operand(dt.bool_, "n")),
        (_relu(Binary("add", F, E0)), Binary("gt", Binary("add", F, E0), Const(0.0, dt.float32))),
        lambda acc, e: [np.maximum(acc + e, 0), acc + e > 0],
    ),
    "broadcast along n": Ends(
        (Operand(dt.float32, ""), Operand(dt.bool_, "n")),
        (Operand(dt.float32, "n"),),
        (Select(Var("e1", dt.bool_), Binary("mul", F, E0), Unary("neg", F)),),
        lambda acc, e, mask: [np.where(mask, acc * e, -acc)],
    ),
    "along m": Ends(
        (Operand(dt.float32, "m"),),
        (Operand(dt.float32, "m"),),
        (Binary("sub", F, E0),),
        lambda acc, e: [acc - e],
    ),
    "other types, an output with gaps": Ends(
        (Operand(dt.float16, "n"),),
        (Operand(dt.bfloat16, "n"), Operand(dt.float64, ""), Operand(dt.int32, "n")),
        (
            Cast(Binary("add", F, Cast(Var("e0", dt.float16), dt.float32)), dt.bfloat16),
            Cast(F, dt.float64),
            Cast(F, dt.int32),
        ),
        lambda acc, e: [acc + e.astype(np.float32), acc, acc],
    ),
    "momentum": Ends(
        (Operand(dt.float32, "n"), Operand(dt.float32, "n")),
        (Operand(dt.float32, "n"), Operand(dt.float32, "n")),
        (
            Binary("add", Binary("mul", E0, Const(0.5, dt.float32)), F),
            Binary("sub", E1, Binary("add", Binary("mul", E0, Const(0.5, dt.float32)), F)),
        ),
        lambda acc, m, w: [m * np.float32(0.5) + acc, w - (m * np.float32(0.5) + acc)],
    ),
}


_BOUNDED = Binary("max", Binary("min", F, Const(20.0, dt.float32)), Const(-20.0, dt.float32))
EPILOGUES["long chains, for several rows at once"] = Ends(
    (Operand(dt.float32, "n"), Operand(dt.float16, "0")),
    (Operand(dt.float32, "n"), Operand(dt.bool_, "n"), Operand(dt.float32, "m")),
    (
        Binary("mul", Unary("exp2", _BOUNDED), E0),
        Binary("gt", F, Cast(Var("e1", dt.float16), dt.float32)),
        Binary("sub", Unary("exp2", _BOUNDED), E0),
    ),
    lambda acc, e, limit: [
        np.exp2(acc.clip(-20, 20)) * e, acc > limit, np.exp2(acc.clip(-20, 20)) - e,
    ],
)  # fmt: skip


@pytest.mark.parametrize("name", EPILOGUES)
@pytest.mark.parametrize("dims", [(0, 1, 1, 1), (1, 2, 2, 1)], ids=str)
def test_epilogues(name: str, dims: tuple[int, int, int, int]) -> None:
    ends = EPILOGUES[name]
    f = dt.float32
    code = Compiled(contraction(dims, (f, "k"), (f, "n"), f, ends))
    for seed, (m, n, k) in enumerate(SHAPES[:9]):
        extents = (m, n, k) if sum(dims) == 3 else (2, 3, m % 11 + 1, 2, n, k)
        check(code, ends, extents, seed)


WINDOWS = [(2, 9, 8, 5, 3, 3, 7), (1, 5, 5, 1, 2, 3, 33), (3, 6, 4, 16, 1, 1, 20)]


@pytest.mark.parametrize("shape", WINDOWS, ids=str)
@pytest.mark.parametrize("step", [1, 2])
def test_convolution(shape: tuple[int, ...], step: int) -> None:
    """Forward and by weight: A's windows overlap."""
    images, height, width, channels, kh, kw, filters = shape
    oh, ow = (height - kh) // step + 1, (width - kw) // step + 1
    random = np.random.default_rng(0)
    x = random.integers(-3, 4, (images, height, width, channels)).astype(np.float32)
    w = random.integers(-3, 4, (kh, kw, channels, filters)).astype(np.float32)
    g = random.integers(-3, 4, (images, oh, ow, filters)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(x, (kh, kw), axis=(1, 2))
    windows = windows[:, ::step, ::step]
    image, row = height * width * channels, width * channels
    f = dt.float32

    out = np.zeros_like(g)
    sizes = (
        images, oh, ow, filters, kh, kw, channels,
        image, step * row, step * channels, 0, row, channels, 1,
        0, 0, 0, 1, kw * channels * filters, channels * filters, filters,
        oh * ow * filters, ow * filters, filters, 1, 0, 0, 0,
    )  # fmt: skip
    code = Compiled(contraction((0, 3, 1, 3), (f, "k"), (f, "n"), f))
    code.bind(sizes, [guarded(x), guarded(w), out]).run()
    np.testing.assert_array_equal(out, np.tensordot(windows, w, ([4, 5, 3], [0, 1, 2])))

    out = np.zeros_like(w)
    sizes = (
        kh, kw, channels, filters, images, oh, ow,
        row, channels, 1, 0, image, step * row, step * channels,
        0, 0, 0, 1, oh * ow * filters, ow * filters, filters,
        kw * channels * filters, channels * filters, filters, 1, 0, 0, 0,
    )  # fmt: skip
    code = Compiled(contraction((0, 3, 1, 3), (f, "m"), (f, "n"), f))
    code.bind(sizes, [guarded(x), guarded(g), out]).run()
    expected = np.tensordot(windows, g, ([0, 1, 2], [0, 1, 2])).transpose(1, 2, 0, 3)
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    "extents",
    [(3, 50, 70, 40), (1, 300, 300, 130), (1, 260, 40, 2100), (1, 20, 24, 20000), (1, 3, 900, 700)],
    ids=str,
)
@pytest.mark.parametrize("units", ["kn", "mk", "mn"])
def test_cuts_change_no_bit(extents: tuple[int, ...], units: str) -> None:
    """However the tasks are cut, and on whatever thread: the same bits."""
    f = dt.float32
    code = Compiled(contraction((1, 1, 1, 1), (f, units[0]), (f, units[1]), f))
    case = Case(code.pattern, extents, 0, whole=False)
    bound = code.bind(case.sizes, case.buffers)
    bound.run()
    first = case.outputs[0].copy()
    a, b = (v.astype(np.float64) for v in case.views[:2])
    exact = np.einsum("bmk,bkn->bmn", a[:, :, 0], b[:, 0].swapaxes(1, 2))
    bound_on_error = np.einsum("bmk,bkn->bmn", abs(a[:, :, 0]), abs(b[:, 0].swapaxes(1, 2)))
    got = case.views[2][..., 0]
    assert (abs(got - exact) <= 2**-24 * (8 + extents[3] ** 0.5) * bound_on_error).all()
    for run in (
        lambda: bound.run(lambda tasks: range(tasks + 1)),
        lambda: bound.run(lambda tasks: sorted({0, tasks // 3, tasks})),
        bound.run_threads,
    ):
        case.outputs[0][...] = np.nan
        run()
        untouched = np.isnan(case.outputs[0])
        np.testing.assert_array_equal(
            case.outputs[0][~untouched].view(np.int32), first[~untouched].view(np.int32)
        )
        assert not np.isnan(case.views[2]).any()


def test_not_a_number_and_infinity_pass_through() -> None:
    f = dt.float32
    code = Compiled(contraction((0, 1, 1, 1), (f, "k"), (f, "n"), f))
    a, b = np.ones((7, 9), np.float32), np.ones((9, 17), np.float32)
    a[2, 3], b[4, 5] = np.nan, np.inf
    out = np.zeros((7, 17), np.float32)
    code.bind((7, 17, 9, 9, 0, 1, 0, 1, 17, 17, 1, 0), [a, b, out]).run()
    np.testing.assert_array_equal(out, a @ b)


def test_accumulators_that_cannot_accumulate() -> None:
    f = dt.float16
    with pytest.raises(CompileError, match="cannot accumulate in float16"):
        Compiled(contraction((0, 1, 1, 1), (f, "k"), (f, "n"), f))
