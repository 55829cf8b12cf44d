"""The printer and the verifier of loop nests."""

from __future__ import annotations

import pytest

from treadle.base import dtype as dt
from treadle.base.errors import VerifyError
from treadle.ir.contraction import Contraction, Operand
from treadle.ir.key import pattern_key
from treadle.ir.loop import (
    Accumulate,
    Alloc,
    Binary,
    Block,
    Cast,
    Const,
    Expr,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Load,
    Param,
    Select,
    Size,
    Stmt,
    Store,
    Unary,
    Var,
)
from treadle.ir.show import show
from treadle.ir.verify_loop import verify

F32 = dt.float32
X = Load("x", Var("i"), F32)


def scale(name: str = "scale", x: str = "x", y: str = "y", i: str = "i", by: float = 2.0) -> Kernel:
    value = Binary("mul", Load(x, Var(i), F32), Const(by, F32))
    body = For(i, Size(0), Store(y, Var(i), value), "vector")
    return Kernel(name, (Param(x, F32), Param(y, F32, "out")), 1, body)


def test_a_kernel_is_readable() -> None:
    t = Var("t")
    body = For(
        "t",
        Size(0),
        Block(
            (
                Alloc("s", F32, Const(1)),
                Store("s", Const(0), Const(0.0, F32)),
                Let("b", Binary("mul", t, Size(1))),
                For("i", Size(1), Accumulate("s", Const(0), "add", X), "vector"),
                If(
                    Binary("gt", Load("s", Const(0), F32), Const(0.0, F32)),
                    Store("y", t, Unary("exp", Cast(Var("b"), F32))),
                    Store("y", t, Select(Const(True, dt.bool_), X0, X0)),
                ),
            )
        ),
        "parallel",
    )
    kernel = Kernel("rows", (Param("x", F32), Param("y", F32, "out")), 2, body)
    assert show(kernel) == (
        "kernel rows(in x: float32, out y: float32), 2 sizes\n"
        "    parallel t in 0..$0\n"
        "        register s: float32[1]\n"
        "        s[0] = 0.0:float32\n"
        "        let b: int64 = (t * $1)\n"
        "        vector i in 0..$1\n"
        "            s[0] add= x[i]\n"
        "        if (s[0] > 0.0:float32)\n"
        "            y[t] = exp(float32(b))\n"
        "        else\n"
        "            %0 = x[0]\n"
        "            y[t] = select(True:bool, %0, %0)\n"
    )


X0 = Load("x", Const(0), F32)


def test_names_do_not_matter_and_everything_else_does() -> None:
    base = pattern_key(scale())
    assert pattern_key(scale("other", "a", "b", "j")) == base
    assert pattern_key(scale(by=3.0)) != base
    assert pattern_key(scale(by=-0.0)) != pattern_key(scale(by=0.0))
    serial = scale()
    serial.body = For("i", Size(0), serial.body.body, "serial")  # type: ignore[attr-defined]
    assert pattern_key(serial) != base
    inout = scale()
    inout.params = (inout.params[0], Param("y", F32, "inout"))
    assert pattern_key(inout) != base


def test_buffers_that_swap_are_told_apart() -> None:
    def difference(a: str, b: str) -> str:
        value = Binary("sub", Load(a, Var("i"), F32), Load(b, Var("i"), F32))
        params = (Param("p", F32), Param("q", F32), Param("y", F32, "out"))
        return pattern_key(Kernel("k", params, 1, For("i", Size(0), Store("y", Var("i"), value))))

    assert difference("p", "q") != difference("q", "p")


def test_a_shared_expression_is_written_once() -> None:
    value: Expr = X
    for _ in range(60):
        value = Binary("add", value, value)
    kernel = scale()
    kernel.body = For("i", Size(0), Store("y", Var("i"), value), "vector")
    text = show(kernel)
    assert "%59 = " in text and len(text) < 3000


def contraction(value: Expr, name: str = "c") -> Contraction:
    operand = Operand(F32, "k")
    return Contraction(
        name, (0, 1, 1, 1), operand, operand, (), (Operand(F32, "n"),), F32, (value,)
    )


def test_contractions_have_a_text() -> None:
    plain = contraction(Var("acc", F32))
    relu = contraction(Binary("max", Var("acc", F32), Const(0.0, F32)))
    assert pattern_key(plain) == pattern_key(contraction(Var("acc", F32), "other"))
    assert pattern_key(plain) != pattern_key(relu)
    assert "max(acc, 0.0:float32)" in show(relu)


def check(body: Stmt, *params: Param, sizes: int = 1) -> None:
    given = params or (Param("x", F32), Param("y", F32, "out"))
    verify(Kernel("k", given, sizes, body))


ONE = Const(1.0, F32)
WRONG: list[tuple[Stmt, str]] = [
    (Store("x", Const(0), ONE), "'x' is an `in` buffer"),
    (Store("z", Const(0), ONE), "no buffer is called 'z' here"),
    (Store("y", Const(0.0, F32), ONE), "an index must be int64, not float32"),
    (Store("y", Const(0), Const(1)), "an element of 'y' must be float32, not int64"),
    (Store("y", Var("i"), ONE), "the variable 'i' has no value here"),
    (Store("y", Size(1), ONE), "there are 1 sizes, none has number 1"),
    (Store("y", Const(0), Load("x", Const(0), dt.int8)), "'x' holds float32, not int8"),
    (Store("y", Const(0), Unary("sine", ONE)), "no unary operator is called 'sine'"),
    (Store("y", Const(0), Binary("plus", ONE, ONE)), "no binary operator is called 'plus'"),
    (Store("y", Const(0), Binary("add", ONE, Const(1))), "add of float32 and int64"),
    (Store("y", Const(0), Select(ONE, ONE, ONE)), "a condition must be bool, not float32"),
    (Store("y", Const(0), Intrinsic("magic", (), F32)), "no intrinsic is called 'magic'"),
    (Accumulate("y", Const(0), "pow", ONE), "nothing accumulates by 'pow'"),
    (For("i", Size(0), Block(()), "fast"), "no kind of loop is called 'fast'"),
    (For("i", Size(0), Block(()), "unroll"), "an unrolled loop has a constant extent"),
    (For("i", Size(0), For("i", Size(0), Block(()))), "the variable 'i' exists already"),
    (
        For("i", Size(0), For("j", Size(0), Block(()), "parallel")),
        "only one loop is parallel, and it is outermost",
    ),
    (
        For("i", Size(0), For("j", Size(0), Block(()), "vector"), "vector"),
        "a vector loop holds no vector loop",
    ),
    (Block((Let("a", ONE), Let("a", ONE))), "the variable 'a' exists already"),
    (Block((Let("a", ONE), Store("y", Var("a"), ONE))), "the variable 'a' is float32, not int64"),
    (Alloc("x", F32, Const(1)), "the buffer 'x' exists already"),
    (Alloc("s", F32, Const(2)), "a register holds one element"),
    (Alloc("s", F32, Size(0), "stack"), "a stack buffer has a constant size"),
    (Alloc("s", F32, Size(0), "heap"), "no space is called 'heap'"),
    (If(ONE, Block(())), "a condition must be bool"),
    (
        Let("c", Intrinsic("check", (Const(1), Const(True, dt.bool_), Const(0)), dt.int64)),
        "check takes a value, a bool and a constant code above 0",
    ),
    (Let("c", Intrinsic("bitcast", (ONE,), dt.int64)), "bitcast takes one value of the same size"),
    (Let("c", Intrinsic("philox", (ONE, ONE), dt.uint32)), "philox takes two int64"),
]


@pytest.mark.parametrize(("body", "why"), WRONG, ids=[why for _, why in WRONG])
def test_what_breaks_the_grammar(body: Stmt, why: str) -> None:
    with pytest.raises(VerifyError, match="kernel k: "):
        check(body)
    with pytest.raises(VerifyError) as caught:
        check(body)
    assert why in str(caught.value)


def test_expressions_are_not_too_deep() -> None:
    value: Expr = ONE
    for _ in range(99):
        value = Binary("add", value, ONE)
    check(Store("y", Const(0), value))
    with pytest.raises(VerifyError, match="nests deeper than 100"):
        verify(Kernel("k", (Param("y", F32, "out"),), 0, Store("y", Const(0), Unary("neg", value))))


def test_parameters_are_distinct_and_have_a_mode() -> None:
    with pytest.raises(VerifyError, match="two parameters share a name"):
        check(Block(()), Param("x", F32), Param("x", F32))
    with pytest.raises(VerifyError, match="parameter x has mode 'read'"):
        check(Block(()), Param("x", F32, "read"))


def test_names_end_with_their_block() -> None:
    inner = Block((Let("a", ONE), Alloc("s", F32, Const(1))))
    check(Block((inner, inner, For("i", Size(0), inner), Let("i", ONE))))
