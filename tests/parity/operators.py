"""The sample inputs that PyTorch ships for its own operators, run through treadle as well."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from compare import agree
from convert import Untranslatable
from torch.testing._internal.common_methods_invocations import op_db

import treadle
import treadle.nn.functional

DTYPES: Final = ("float32", "float64", "int64", "bool")
MOST: Final = 24
"""Samples of one operator and dtype that are run."""
LONGEST: Final = 2_000_000
"""Elements of a sample; larger ones are passed over."""

RANDOM: Final = frozenset(
    [
        "normal",
        "randn",
        "rand",
        "randint",
        "bernoulli",
        "multinomial",
        "randn_like",
        "rand_like",
        "randint_like",
        "empty",
        "empty_like",
        "new_empty",
        "empty_strided",
        "new_empty_strided",
        "empty_permuted",
        "nn.functional.dropout",
        "nn.functional.dropout2d",
        "nn.functional.dropout3d",
        "nn.functional.alpha_dropout",
        "nn.functional.feature_alpha_dropout",
        "nn.functional.rrelu",
        "cauchy",
        "exponential",
        "geometric",
        "log_normal",
        "uniform",
        "nn.functional.fractional_max_pool2d",
        "nn.functional.fractional_max_pool3d",
        "nn.functional.multi_head_attention_forward",
    ]
)
"""Operators whose values are drawn: shapes and dtypes alone are compared."""

# Entries of PyTorch's table whose first argument is not the function's.
_REORDERED: Final[dict[str, Callable[..., Any]]] = {
    "polygamma": lambda x, n: treadle.polygamma(n, x),
    "special.polygamma": lambda x, n: treadle.special.polygamma(n, x),
    "nn.functional.embedding": lambda table, index, **options: treadle.nn.functional.embedding(
        index, table, **options
    ),
    "nn.functional.embedding_bag": lambda table, index, **options: (
        treadle.nn.functional.embedding_bag(index, table, **options)
    ),
    "einsum": lambda tensors, equation: treadle.einsum(equation, *tensors),
    "where": lambda x, condition, y: treadle.where(condition, x, y),
    "__getitem__": lambda x, *index: x[index[0] if len(index) == 1 else index],
}


def full_name(info: Any) -> str:
    """The name of an entry of PyTorch's table with its variant."""
    return f"{info.name}.{info.variant_test_name}" if info.variant_test_name else info.name


def entries() -> dict[str, Any]:
    """PyTorch's table by full name."""
    return {full_name(info): info for info in op_db}


def has_dtype(info: Any, dtype: str) -> bool:
    """Whether PyTorch's operator takes a dtype."""
    return getattr(torch, dtype) in info.dtypes


def function(name: str) -> Callable[..., Any] | None:
    """treadle's function, or else method, of a dotted name; `None` where it has neither."""
    if name in _REORDERED:
        return _REORDERED[name]
    found: Any = treadle
    for part in name.split("."):
        found = getattr(found, part, None)
        if found is None:
            break
    if not callable(found) or isinstance(found, treadle.dtype):
        method = getattr(treadle.Tensor, name, None)
        in_place = getattr(treadle.Tensor, f"{name}_", None)
        found = _property(method) if isinstance(method, property) else method or in_place
    return found if callable(found) else None


def _property(found: property) -> Callable[[Any], Any]:
    return lambda x: found.__get__(x)


def samples(info: Any, dtype: str, gradients: bool, most: int = MOST) -> Iterator[Any]:
    """The first sample inputs of an entry, the same ones in each run."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = info.sample_inputs("cpu", getattr(torch, dtype), requires_grad=gradients)
        yield from itertools.islice(filter(_short, found), most)


def _short(sample: Any) -> bool:
    return not isinstance(sample.input, torch.Tensor) or sample.input.numel() <= LONGEST


def order_of(info: Any, dtype: str) -> int:
    """How many derivatives of an entry are compared."""
    if dtype not in ("float32", "float64") or not info.supports_autograd:
        return 0
    return 2 if dtype == "float64" and info.supports_gradgrad else 1


def failures(
    name: str, info: Any, dtype: str, most: int = MOST
) -> tuple[int, list[tuple[Any, str]]]:
    """How many samples agreed, and each that did not with the reason in a line."""
    ours = function(info.name)
    assert ours is not None, info.name
    order = order_of(info, dtype)
    passed, failed = 0, []
    for sample in samples(info, dtype, order > 0, most):
        args = (sample.input, *sample.args)
        drawn = info.name in RANDOM or bool(sample.kwargs.get("dropout_p"))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                agree(ours, info.op, args, _known(sample.kwargs), order, not drawn)
            passed += 1
        except Untranslatable:
            continue
        except Exception as error:  # every kind of failure is one row of the report
            failed.append((sample, f"{type(error).__name__}: {error}".split("\n")[0]))
    return passed, failed


def _known(kwargs: dict[str, Any]) -> dict[str, Any]:
    """The keyword arguments without those that mean nothing here."""
    return {k: v for k, v in kwargs.items() if k not in ("layout", "memory_format", "pin_memory")}
