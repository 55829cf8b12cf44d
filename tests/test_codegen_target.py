"""Targets, images and what cannot be compiled."""

from __future__ import annotations

import pytest
from kernels import elementwise, operand

from treadle.base import dtype as dt
from treadle.base.errors import CompileError
from treadle.base.settings import settings
from treadle.codegen import jit, target
from treadle.codegen.compile import image_of, stages
from treadle.codegen.image import link
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


def test_the_host_is_one_of_the_offered() -> None:
    assert target.host() in target._offered()


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("sse2", ["portable"]),
        ("avx2 fma bmi1 bmi2 f16c movbe sse2", ["avx2", "portable"]),
        (
            "avx2 fma bmi1 bmi2 f16c movbe avx512f avx512bw avx512cd avx512dq avx512vl",
            ["avx512", "avx2", "portable"],
        ),
        ("avx2 fma bmi1 bmi2 f16c movbe avx512f", ["avx2", "portable"]),
        ("avx2", ["portable"]),
    ],
)
def test_what_a_processor_offers(
    flags: str, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "_flags", lambda: frozenset(flags.split()))
    monkeypatch.setattr(target.os, "uname", lambda: type("U", (), {"machine": "x86_64"}))
    assert [t.name for t in target._offered()] == names


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    least = target._offered()[-1]
    monkeypatch.setattr(settings, "target", least.name)
    assert target.host.__wrapped__() is least
    monkeypatch.setattr(settings, "target", "vax")
    with pytest.raises(CompileError, match="TREADLE_TARGET='vax' is not a target of this machine"):
        target.host.__wrapped__()


@pytest.mark.parametrize("name", target.BY_NAME)
@pytest.mark.parametrize("op", ["exp", "sin", "round", "sqrt", "tanh"])
def test_images_call_nobody(name: str, op: str) -> None:
    for dtype in (dt.float32, dt.float64, dt.float16, dt.bfloat16):
        kernel = elementwise(Unary(op, operand(0, dtype)), dtype)
        image = image_of(kernel, target.BY_NAME[name])
        assert image.symbols["kernel"] < len(image.code)


def test_a_call_from_outside_is_refused() -> None:
    text = "declare void @puts()\ndefine void @f() {\n  call void @puts()\n  ret void\n}\n"
    with pytest.raises(CompileError, match="'puts', which nobody provides"):
        link(jit.compile_module(text, target.AVX2).object)


def test_what_is_no_object_is_refused() -> None:
    with pytest.raises(CompileError, match="not a little-endian 64-bit ELF object"):
        link(b"MZ" + bytes(100))


def test_malformed_ir_is_our_fault() -> None:
    with pytest.raises(CompileError, match="LLVM refuses the code made for thing"):
        jit.compile_module("define i64 @f( {", target.AVX2, "thing")


def _kernel(body: object) -> Kernel:
    params = (Param("x", dt.float32), Param("y", dt.float32, "out"))
    return Kernel("wrong", params, 1, body)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (Call("f", ()), "no Call on avx2"),
        (For("i", Size(0), Block(()), "grid"), "no grid loop on avx2"),
        (For("i", Size(0), Block(()), "unroll"), "an unrolled loop needs a constant extent"),
        (Store("z", Const(0), Const(0.0, dt.float32)), "no buffer 'z' here"),
        (Store("y", Var("i"), Const(0.0, dt.float32)), "the variable 'i' has no value here"),
        (Store("y", Const(0), Unary("not", Load("x", Const(0), dt.float32))), "no operator 'not'"),
        (
            Store("y", Const(0), Binary("xor", *[Load("x", Const(0), dt.float32)] * 2)),
            "no operator 'xor' on float32",
        ),
    ],
)
def test_nests_without_a_meaning(body: object, why: str) -> None:
    with pytest.raises(CompileError, match=why):
        stages(_kernel(body), target.AVX2)
