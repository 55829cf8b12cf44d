"""Loop nests picked by hand: what each kind of loop, buffer and index must do on every target."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from kernels import apply, call, compiled, elementwise, operand

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.target import BY_NAME, Target, _offered
from treadle.ir.loop import (
    Accumulate,
    Alloc,
    Binary,
    Block,
    Cast,
    Const,
    Expr,
    For,
    Intrinsic,
    Kernel,
    Let,
    Load,
    Param,
    Prefetch,
    Select,
    Size,
    Stmt,
    Store,
    Unary,
    Var,
)
from treadle.ir.philox import philox
from treadle.ir.verify_loop import verify

LENGTHS = [1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 129]
F32 = dt.float32
ONE, ZERO = Const(1.0, F32), Const(0.0, F32)


@pytest.fixture(params=[t.name for t in _offered()])
def target(request: pytest.FixtureRequest) -> Target:
    return BY_NAME[request.param]


def add(a: Expr, b: Expr) -> Expr:
    return Binary("add", a, b)


def mul(a: Expr, b: Expr) -> Expr:
    return Binary("mul", a, b)


def kernel(body: Stmt, *params: Param, sizes: int = 2) -> Kernel:
    made = Kernel("hand", params, sizes, body)
    verify(made)
    return made


def x_y(x: DType = F32, y: DType = F32) -> tuple[Param, Param]:
    return Param("x", x), Param("y", y, "out")


def row_sums(op: str = "add", value: Expr | None = None, first: float = 0.0) -> Kernel:
    """y[t] = reduction over i of x[t, i]."""
    element = Load("x", add(mul(Var("t"), Size(1)), Var("i")), F32)
    body = (
        Alloc("s", F32, Const(1)),
        Store("s", Const(0), Const(first, F32)),
        For("i", Size(1), Accumulate("s", Const(0), op, value or element), "vector"),
        Store("y", Var("t"), Load("s", Const(0), F32)),
    )
    return kernel(For("t", Size(0), Block(body), "parallel"), *x_y())


@pytest.mark.parametrize("n", LENGTHS)
def test_nothing_is_touched_outside_of_the_loop(target: Target, n: int) -> None:
    address = compiled(elementwise(add(operand(0, F32), Const(1.0, F32)), F32), target)
    x, y = np.arange(n, dtype=np.float32), np.full(n + 8, -7, dtype=np.float32)
    assert call(address, [x, y], [n]) == 0
    np.testing.assert_array_equal(y[:n], x + 1)
    np.testing.assert_array_equal(y[n:], -7)


def aligned(count: int) -> np.ndarray:
    """Elements from a multiple of 64 bytes on."""
    raw = np.full(4 * count + 64, 0, dtype=np.uint8)
    whole = raw[-raw.ctypes.data % 64 :][: 4 * count].view(np.float32)
    whole[:] = -7
    return whole


@pytest.mark.parametrize("n", LENGTHS)
def test_streams_begin_anywhere(target: Target, n: int) -> None:
    """Where whole registers can be written past the caches, and where they cannot."""
    ahead = Prefetch("x", add(Var("i"), Const(64)))
    value = Load("x", Var("i"), F32)
    stores = [Store(name, Var("i"), value, True) for name in ("y", "z")]
    body = For("i", Size(0), Block((ahead, *stores)), "vector")
    params = (Param("x", F32), Param("y", F32, "out"), Param("z", F32, "out"))
    address = compiled(kernel(body, *params), target)
    x = np.arange(n, dtype=np.float32)
    for offset in range(20):
        y, z = aligned(n + 40), aligned(n + 40)
        assert call(address, [x, y[offset:], z[16:]], [n, 0]) == 0
        for whole, at in ((y, offset), (z, 16)):
            np.testing.assert_array_equal(whole[at : at + n], x)
            assert (whole[:at] == -7).all()
            assert (whole[at + n :] == -7).all()


def test_an_empty_loop_reads_nothing(target: Target) -> None:
    address = compiled(elementwise(add(operand(0, F32), operand(1, F32)), F32, F32), target)
    nothing = np.zeros(0, dtype=np.float32)
    assert call(address, [nothing, nothing, nothing], [0]) == 0
    sums = compiled(row_sums(first=3.0), target)
    y = np.zeros(2, dtype=np.float32)
    assert call(sums, [nothing, y], [2, 0], 0, 2) == 0
    np.testing.assert_array_equal(y, 3)


@pytest.mark.parametrize("n", LENGTHS)
def test_row_sums_do_not_depend_on_the_cut(target: Target, n: int) -> None:
    x = np.random.default_rng(n).standard_normal((6, n)).astype(np.float32)
    address = compiled(row_sums(), target)
    whole, parts = np.zeros(6, dtype=np.float32), np.zeros(6, dtype=np.float32)
    call(address, [x, whole], [6, n], 0, 6)
    for begin, end in ((4, 6), (0, 1), (1, 4)):
        call(address, [x, parts], [6, n], begin, end)
    np.testing.assert_array_equal(whole, parts)
    np.testing.assert_allclose(whole, x.astype(np.float64).sum(1), rtol=1e-4, atol=1e-5)


def test_a_sum_straight_into_memory(target: Target) -> None:
    """The destination is an element of the output, at an index computed for it."""
    place = Binary("sub", Binary("sub", Size(0), Const(1)), Var("t"))
    x = Load("x", add(mul(Var("t"), Size(1)), Var("i")), F32)
    inner = For("i", Size(1), Accumulate("y", place, "add", mul(x, x)), "vector")
    params = (Param("x", F32), Param("y", F32, "inout"))
    address = compiled(kernel(For("t", Size(0), inner, "parallel"), *params), target)
    for n in LENGTHS:
        data = np.arange(3 * n, dtype=np.float32).reshape(3, n) % 7
        y = np.ones(3, dtype=np.float32)
        call(address, [data, y], [3, n], 0, 3)
        np.testing.assert_array_equal(y, 1 + (data * data).sum(1)[::-1])


@pytest.mark.parametrize("n", [5, 40])
@pytest.mark.parametrize(("op", "reference"), [("max", np.max), ("min", np.min)])
def test_extremes_keep_nan(target: Target, n: int, op: str, reference: object) -> None:
    address = compiled(row_sums(op, first=0.0), target)
    x = np.random.default_rng(0).standard_normal((n, n)).astype(np.float32)
    x[np.arange(n), np.arange(n)] = np.nan
    y = np.zeros(n, dtype=np.float32)
    call(address, [x, y], [n, n], 0, n)
    assert np.isnan(y).all()


def test_maximum_of_two_numbers_keeps_nan(target: Target) -> None:
    nan = np.float32(np.nan)
    a = np.array([nan, 1, nan, 2, -np.inf] * 5, dtype=np.float32)
    b = np.array([1, nan, nan, 3, np.inf] * 5, dtype=np.float32)
    np.testing.assert_array_equal(apply("max", F32, a, b, target=target), np.maximum(a, b))
    np.testing.assert_array_equal(apply("min", F32, a, b, target=target), np.minimum(a, b))
    for zero in (Binary("max", operand(0, F32), Const(0.0, F32)),
                 Binary("max", Const(0.0, F32), operand(0, F32))):  # fmt: skip
        y = np.empty_like(a)
        call(compiled(elementwise(zero, F32), target), [a, y], [a.size])
        np.testing.assert_array_equal(y, np.maximum(a, 0))


def test_column_sums(target: Target) -> None:
    """Serial rows around vector columns: the accumulation is an ordinary store."""
    at = add(mul(Var("r"), Size(1)), Var("c"))
    inner = For("c", Size(1), Accumulate("y", Var("c"), "add", Load("x", at, F32)), "vector")
    address = compiled(
        kernel(For("r", Size(0), inner), Param("x", F32), Param("y", F32, "inout")), target
    )
    x = np.arange(5 * 37, dtype=np.float32).reshape(5, 37)
    y = np.ones(37, dtype=np.float32)
    call(address, [x, y], [5, 37])
    np.testing.assert_array_equal(y, x.sum(0) + 1)


@pytest.mark.parametrize("source", [dt.uint8, dt.int8, dt.int16, dt.int64, dt.float64, dt.bool_])
@pytest.mark.parametrize("n", [3, 50])
def test_mixed_dtypes(target: Target, source: DType, n: int) -> None:
    value = Binary("gt", mul(Cast(operand(0, source), F32), Const(0.5, F32)), Const(20.0, F32))
    address = compiled(elementwise(value, source), target)
    x = np.arange(n).astype(source.numpy)
    y = np.full(n + 1, 9, dtype=np.uint8)
    call(address, [x, y], [n])
    np.testing.assert_array_equal(y[:n], (x * np.float32(0.5) > 20))
    assert y[n] == 9


def test_an_update_in_place(target: Target) -> None:
    """p -= lr * (m = 0.9 m + g), with the outputs on top of the inputs."""
    v = Var("i")
    p, g, m, lr = (Load(n, v if n != "lr" else Const(0), F32) for n in ("p", "g", "m", "lr"))
    new = Var("new", F32)
    body = Block(
        (
            Let("new", add(mul(Const(0.9, F32), m), g)),
            Let("p1", Binary("sub", p, mul(lr, new))),
            Store("m_out", v, new),
            Store("p_out", v, Var("p1", F32)),
        )
    )
    params = [Param(n, F32) for n in ("p", "g", "m", "lr")]
    outs = [Param(n, F32, "out") for n in ("m_out", "p_out")]
    address = compiled(kernel(For("i", Size(0), body, "vector"), *params, *outs, sizes=1), target)
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(45).astype(np.float32) for _ in range(3)]
    p0, g0, m0 = (a.copy() for a in arrays)
    rate = np.array([0.1], dtype=np.float32)
    call(address, [*arrays, rate, arrays[2], arrays[0]], [45])
    np.testing.assert_allclose(arrays[2], 0.9 * m0 + g0, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(arrays[0], p0 - 0.1 * (0.9 * m0 + g0), rtol=1e-5, atol=1e-6)


def test_a_row_in_scratch_memory(target: Target) -> None:
    """Softmax in one kernel: exp kept in scratch, then divided by the sum."""
    at = add(mul(Var("t"), Size(1)), Var("i"))
    body = (
        Alloc("e", F32, Size(1), "scratch"),
        Alloc("pad", dt.int8, Const(3), "scratch"),
        Alloc("twice", F32, Size(1), "scratch"),
        Alloc("s", F32, Const(1)),
        Store("s", Const(0), Const(0.0, F32)),
        For("i", Size(1), Store("e", Var("i"), Unary("exp", Load("x", at, F32))), "vector"),
        For("j", Size(1), Store("twice", Var("j"), Load("e", Var("j"), F32)), "vector"),
        For("k", Size(1), Accumulate("s", Const(0), "add", Load("twice", Var("k"), F32)), "vector"),
        For(
            "i",
            Size(1),
            Store("y", at, Binary("div", Load("e", Var("i"), F32), Load("s", Const(0), F32))),
            "vector",
        ),
    )
    address = compiled(kernel(For("t", Size(0), Block(body), "parallel"), *x_y()), target)
    x = np.random.default_rng(1).standard_normal((3, 70)).astype(np.float32)
    y = np.empty_like(x)
    call(address, [x, y], [3, 70], 0, 3)
    want = np.exp(x.astype(np.float64))
    np.testing.assert_allclose(y, want / want.sum(1, keepdims=True), rtol=1e-6)


def test_a_gather_reports_bad_indices_and_goes_on(target: Target) -> None:
    index = Load("where", Var("i"), dt.int64)
    good = Binary("and", Binary("ge", index, Const(0)), Binary("lt", index, Size(1)))
    safe = Intrinsic("check", (Select(good, index, Const(0)), good, Const(5)), dt.int64)
    body = For("i", Size(0), Store("y", Var("i"), Load("x", safe, F32)), "vector")
    address = compiled(kernel(body, Param("x", F32), Param("where", dt.int64), x_y()[1]), target)
    x = np.arange(10, dtype=np.float32) + 1
    y = np.zeros(21, dtype=np.float32)
    where = np.random.default_rng(0).integers(0, 10, 21)
    assert call(address, [x, where, y], [21, 10]) == 0
    np.testing.assert_array_equal(y, x[where])
    for bad in (10, -1, 1 << 40):
        for place in (0, 13, 20):
            wrong = where.copy()
            wrong[place] = bad
            assert call(address, [x, wrong, y], [21, 10]) == 5
            assert y[place] == 1


def test_a_scatter_that_adds_up_in_order(target: Target) -> None:
    index = Load("where", Var("i"), dt.int32)
    body = For(
        "i", Size(0), Accumulate("y", Cast(index, dt.int64), "add", operand(0, F32)), "vector"
    )
    params = (Param("x0", F32), Param("where", dt.int32), Param("y", F32, "inout"))
    address = compiled(kernel(body, *params, sizes=1), target)
    rng = np.random.default_rng(2)
    x, where = rng.standard_normal(50).astype(np.float32), rng.integers(0, 4, 50).astype(np.int32)
    y, want = np.zeros(4, dtype=np.float32), np.zeros(4, dtype=np.float32)
    call(address, [x, where, y], [50])
    np.add.at(want, where, x)
    np.testing.assert_array_equal(y, want)


def test_a_window_inside_of_a_vector_loop(target: Target) -> None:
    """Pooling: the greatest of three neighbours, a register per lane."""
    at = add(mul(Var("i"), Const(2)), Var("w"))
    body = (
        Alloc("m", F32, Const(1)),
        Store("m", Const(0), Const(float("-inf"), F32)),
        For("w", Const(3), Accumulate("m", Const(0), "max", Load("x", at, F32)), "unroll"),
        Store("y", Var("i"), Load("m", Const(0), F32)),
    )
    address = compiled(kernel(For("i", Size(0), Block(body), "vector"), *x_y(), sizes=1), target)
    x = np.random.default_rng(3).standard_normal(2 * 45 + 1).astype(np.float32)
    y = np.empty(45, dtype=np.float32)
    call(address, [x, y], [45])
    np.testing.assert_array_equal(y, np.max([x[0:90:2], x[1:90:2], x[2:91:2]], axis=0))


@pytest.mark.parametrize("n", [4, 100])
def test_random_words(target: Target, n: int) -> None:
    word = Intrinsic("philox", (Load("key", Const(0), dt.int64), add(Var("i"), Size(1))), dt.uint32)
    body = For("i", Size(0), Store("y", Var("i"), word), "vector")
    params = (Param("key", dt.int64), Param("y", dt.uint32, "out"))
    address = compiled(kernel(body, *params), target)
    y = np.empty(n, dtype=np.uint32)
    for key, start in ((0, 0), (-1, -1), (1 << 40 | 77, (1 << 32) - 3)):
        call(address, [np.array([key]), y], [n, start])
        np.testing.assert_array_equal(y, philox(key, start + np.arange(n)))


def test_random_words_are_those_of_the_paper() -> None:
    assert int(philox(0, 0)) == 0xFF1DAE59  # Random123's known answers for philox2x32-10
    assert int(philox(0xFFFFFFFF, -1)) == 0x2C3F628B
    assert int(philox(0x13198A2E, 0x85A308D3_243F6A88 - (1 << 64))) == 0xDD7CE038


INTEGERS = [dt.int8, dt.int16, dt.int32, dt.int64, dt.uint8]
DIVIDED = [*INTEGERS, dt.uint32]


@pytest.mark.parametrize("dtype", DIVIDED)
@pytest.mark.parametrize("op", ["div", "floordiv", "mod", "rem"])
def test_integer_division(target: Target, dtype: DType, op: str) -> None:
    info = np.iinfo(dtype.numpy)
    edges = np.array([0, 1, 2, 3, 7, 100, info.max, info.min, info.min + 1], dtype=dtype.numpy)
    if dtype.kind == "i":
        edges = np.concatenate([edges, -edges])
    a, b = (v.ravel() for v in np.meshgrid(edges, edges))
    got = apply(op, dtype, a, b, target=target)
    for x, y, result in zip(a.tolist(), b.tolist(), got.tolist(), strict=True):
        want = 0
        if y:
            toward_zero = abs(x) // abs(y) * (1 if (x < 0) == (y < 0) else -1)
            want = {"div": toward_zero, "floordiv": x // y, "mod": x % y,
                    "rem": x - toward_zero * y}[op]  # fmt: skip
        assert result == np.array(want).astype(dtype.numpy), (x, y)


@pytest.mark.parametrize("divisor", [1, -1, 2, 3, 8, -4, 0, 7])
@pytest.mark.parametrize("op", ["div", "floordiv", "mod", "rem"])
def test_division_by_a_constant_is_the_same(target: Target, op: str, divisor: int) -> None:
    x = np.arange(-20, 21, dtype=np.int64)
    y = np.empty_like(x)
    value = Binary(op, operand(0, dt.int64), Const(divisor))
    call(compiled(elementwise(value, dt.int64), target), [x, y], [x.size])
    want = apply(op, dt.int64, x, np.full_like(x, divisor), target=target)
    np.testing.assert_array_equal(y, want)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_shifts_and_powers(target: Target, dtype: DType) -> None:
    x = np.array([0, 1, 3, 100, 127, 5, 2], dtype=dtype.numpy)
    if dtype.kind == "i":
        x = np.concatenate([x, -x])
    count = np.arange(x.size).astype(dtype.numpy)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(apply("pow", dtype, x, count, target=target), x**count)
    np.testing.assert_array_equal(apply("shl", dtype, x, count, target=target), x << count)
    np.testing.assert_array_equal(apply("shr", dtype, x, count, target=target), x >> count)


@pytest.mark.parametrize("op", ["lt", "le", "gt", "ge", "eq", "ne"])
@pytest.mark.parametrize("swapped", [False, True])
def test_an_index_compared_in_lanes(target: Target, op: str, swapped: bool) -> None:
    index, bound = add(Var("i"), Const(3)), Load("b", Const(0), dt.int64)
    compared = Binary(op, bound, index) if swapped else Binary(op, index, bound)
    body = For("i", Size(0), Store("y", Var("i"), Select(compared, ONE, ZERO)), "vector")
    address = compiled(kernel(body, Param("b", dt.int64), Param("y", F32, "out")), target)
    names = {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
             "eq": "equal", "ne": "not_equal"}  # fmt: skip
    for b in (-(2**63), -1, 0, 3, 4, 20, 35, 36, 70, 2**63 - 1):
        y, i = np.empty(50, dtype=np.float32), np.arange(50) + 3
        call(address, [np.array([b]), y], [50, 0])
        want = getattr(np, names[op])(b, i) if swapped else getattr(np, names[op])(i, b)
        np.testing.assert_array_equal(y, want)


def convert(x: np.ndarray, source: DType, to: DType, target: Target) -> np.ndarray:
    y = np.empty(x.shape, dtype=to.numpy)
    call(compiled(elementwise(Cast(operand(0, source), to), source), target), [x, y], [x.size])
    return y


@pytest.mark.parametrize("half", [dt.float16, dt.bfloat16])
def test_halves_are_read_exactly(target: Target, half: DType) -> None:
    every = np.arange(65536, dtype=np.uint16).view(half.numpy)
    got, want = convert(every, half, F32, target), every.astype(np.float32)
    np.testing.assert_array_equal(got, want)
    np.testing.assert_array_equal(
        np.signbit(got)[~np.isnan(want)], np.signbit(want)[~np.isnan(want)]
    )


@pytest.mark.parametrize("half", [dt.float16, dt.bfloat16])
def test_halves_are_rounded_to_even(target: Target, half: DType) -> None:
    x = np.arange(0, 2**32, 65521 // 7, dtype=np.uint64).astype(np.uint32).view(np.float32)
    ties = np.arange(65536, dtype=np.uint16).view(half.numpy).astype(np.float32)
    with np.errstate(all="ignore"):
        ties = np.concatenate([ties, (ties[:-1] + ties[1:]) / 2])
        x = np.concatenate([x, ties]).astype(np.float32)
        want = x.astype(half.numpy)
    got = convert(x, F32, half, target)
    finite = ~np.isnan(x)
    np.testing.assert_array_equal(got[finite].view(np.uint16), want[finite].view(np.uint16))
    assert np.isnan(got[~finite].astype(np.float32)).all()


@pytest.mark.parametrize(
    "to", [*INTEGERS, dt.uint32, dt.bool_, dt.float16, dt.bfloat16, dt.float64]
)
@pytest.mark.parametrize("source", [*INTEGERS, dt.uint32, dt.bool_, dt.float16, dt.float64, F32])
def test_casts(target: Target, source: DType, to: DType) -> None:
    x = np.array([0, 1, 2, 3, 100, 127], dtype=np.float64)
    if source.kind in "fi" and to.kind in "fi":
        x = np.concatenate([x, -x])
    if source.kind == "f":
        x = np.concatenate([x, x + 0.75])[: -1 if to is dt.int8 else None]
    x = np.tile(x.astype(source.numpy), 3)
    if source.kind == "f" and to.kind in "iu":
        x = x[np.abs(x.astype(np.float64)) < 127]
    np.testing.assert_array_equal(convert(x, source, to, target), x.astype(to.numpy))


def test_bits_are_reinterpreted(target: Target) -> None:
    x = np.random.default_rng(5).integers(0, 2**32, 20, dtype=np.uint32)
    for source, to, array in (
        (dt.uint32, F32, x), (F32, dt.int32, x.view(np.float32)),
        (dt.float16, dt.int16, x.view(np.uint16).view(np.float16)),
        (dt.int16, dt.bfloat16, x.view(np.int16)),
    ):  # fmt: skip
        value = Intrinsic("bitcast", (operand(0, source),), to)
        y = np.empty(array.size, dtype=to.numpy)
        call(compiled(elementwise(value, source), target), [array, y], [array.size])
        same = y.view(f"u{to.itemsize}") == array.view(f"u{to.itemsize}")
        quiet = np.isnan(array.astype(np.float32)) if source.kind == "f" else False
        assert (same | quiet | (np.isnan(y.astype(np.float32)) if to.kind == "f" else False)).all()


def test_brain_floats_are_of_ml_dtypes() -> None:
    assert dt.bfloat16.numpy == np.dtype(ml_dtypes.bfloat16)
