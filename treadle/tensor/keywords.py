"""Keyword arguments that PyTorch takes as well: NumPy's `axis` and `keepdims`, and `size`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final

_RENAMED: Final = {"axis": "dim", "keepdims": "keepdim"}

WITH_DIM: Final = frozenset(
    [
        "sum",
        "mean",
        "var",
        "std",
        "prod",
        "amax",
        "amin",
        "any",
        "all",
        "argmax",
        "argmin",
        "max",
        "min",
        "logsumexp",
        "norm",
        "count_nonzero",
        "cumsum",
        "cumprod",
        "median",
        "sort",
        "argsort",
        "topk",
        "softmax",
        "log_softmax",
        "cat",
        "stack",
        "squeeze",
        "unsqueeze",
        "unbind",
        "split",
        "chunk",
        "narrow",
        "nansum",
        "nanmean",
        "quantile",
        "flip",
        "roll",
        "gather",
        "index_select",
        "var_mean",
        "std_mean",
        "concat",
        "concatenate",
    ]
)
"""The functions whose `dim` may be called `axis`."""
WITH_SIZE: Final = frozenset(["zeros", "ones", "empty", "rand", "randn"])
"""The functions whose shape may be given as `size=`."""


def numpy_names(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, taking `axis` for `dim` and `keepdims` for `keepdim` as well."""

    @functools.wraps(function)
    def renamed(*args: Any, **options: Any) -> Any:
        if options:
            options = {_RENAMED.get(name, name): value for name, value in options.items()}
        return function(*args, **options)

    return renamed


def sized(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, taking its shape as `size=` as well."""

    @functools.wraps(function)
    def with_size(*args: Any, **options: Any) -> Any:
        if "size" in options:
            args = (options.pop("size"),)
        return function(*args, **options)

    return with_size


def accepting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A public function by its name, taking what PyTorch's takes."""
    if name in WITH_DIM:
        return numpy_names(function)
    return sized(function) if name in WITH_SIZE else function
