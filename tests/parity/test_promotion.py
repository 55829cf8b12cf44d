"""The dtype of every pair of dtypes, dimensions and numbers under arithmetic, comparison and more;
and what is refused. Nothing is computed: dtypes are known when an operation is recorded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from convert import dtype_name

import treadle

DTYPES = (
    "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64",
)  # fmt: skip
BINARY = (
    "add", "sub", "mul", "div", "floor_divide", "remainder", "fmod", "pow", "maximum", "minimum",
    "atan2", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "bitwise_and",
    "bitwise_or", "bitwise_xor", "hypot", "logaddexp", "xlogy", "copysign", "fmax", "fmin",
    "float_power", "heaviside", "true_divide",
)  # fmt: skip
UNARY = (
    "sum", "mean", "prod", "amax", "any", "all", "argmax", "var", "std", "logsumexp", "cumsum",
    "cumprod", "norm", "count_nonzero", "median", "exp", "sqrt", "abs", "neg", "sign", "floor",
    "round", "square", "isnan", "reciprocal", "sigmoid", "relu", "bitwise_not", "logical_not",
    "softmax", "nansum", "erf", "sinh", "lgamma", "deg2rad", "frac", "logit", "signbit",
)  # fmt: skip
NUMBERS: tuple[Any, ...] = (True, 2, 2.5)
WITH_DIM = {"logsumexp", "cumsum", "cumprod", "softmax"}

DIFFERENT: dict[str, str] = {
    "sub": "a bool may be subtracted from a number and the other way round",
    **dict.fromkeys(
        ("floor_divide", "remainder", "fmod", "pow"), "bools divide as numbers 0 and 1"
    ),
    **dict.fromkeys(("hypot", "logaddexp", "heaviside"), "integers and mixed dtypes promote"),
    **dict.fromkeys(("argmax", "median", "abs", "floor", "round", "relu"), "bools are taken too"),
    **dict.fromkeys(("atan2", "logical_and", "logical_or"), "a number may be the other operand"),
    "frac": "integers have the fraction 0",
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), "a number may be the other operand"),
}
"""Functions whose dtypes are known to differ, and why."""


def _dtype(call: Callable[[], Any]) -> str:
    """The dtype of a result, or that it was refused."""
    try:
        return dtype_name(call().dtype)
    except (RuntimeError, TypeError, NotImplementedError, ValueError, AttributeError):
        return "refused"


def _of(library: Any, dtype: str, shape: tuple[int, ...]) -> Any:
    return library.ones(shape, dtype=getattr(library, dtype))


def _listed(name: str, wrong: list[str]) -> None:
    assert not wrong or name in DIFFERENT, f"{name}: {len(wrong)} differ: {'; '.join(wrong[:8])}"


@pytest.mark.parametrize("name", BINARY)
def test_pairs(name: str) -> None:
    """Two tensors, with and without dimensions."""
    wrong = []
    for a in DTYPES:
        for b in DTYPES:
            for shapes in (((2,), (2,)), ((2,), ()), ((), (2,))):
                found, wished = (
                    _dtype(lambda m=m, p=(a, b), s=shapes: getattr(m, name)(
                        _of(m, p[0], s[0]), _of(m, p[1], s[1])))
                    for m in (treadle, torch)
                )  # fmt: skip
                if found != wished:
                    wrong.append(f"{a}{shapes[0]} {b}{shapes[1]}: {found}, PyTorch {wished}")
    _listed(name, wrong)


@pytest.mark.parametrize("name", [n for n in BINARY if hasattr(torch.Tensor, n)])
def test_numbers(name: str) -> None:
    """A tensor and a Python number."""
    wrong = []
    for a in DTYPES:
        for number in NUMBERS:
            found, wished = (
                _dtype(lambda m=m, d=a, v=number: getattr(_of(m, d, (2,)), name)(v))
                for m in (treadle, torch)
            )
            if found != wished:
                wrong.append(f"{a} with {number}: {found}, PyTorch {wished}")
    _listed(name, wrong)


@pytest.mark.parametrize("name", UNARY)
def test_of_one(name: str) -> None:
    """Reductions and functions of one tensor."""
    wrong = []
    rest = (0,) if name in WITH_DIM else ()
    for a in DTYPES:
        found, wished = (
            _dtype(lambda m=m, d=a: getattr(m, name)(_of(m, d, (2,)), *rest))
            for m in (treadle, torch)
        )
        if found != wished:
            wrong.append(f"{a}: {found}, PyTorch {wished}")
    _listed(name, wrong)
