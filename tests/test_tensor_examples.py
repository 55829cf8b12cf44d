"""The examples in the documentation of tensors run and print what they say."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import sys

import pytest

import treadle

PACKAGE = sys.modules[treadle.Tensor.__module__.rpartition(".")[0]]
MODULES = [module.name for module in pkgutil.iter_modules(PACKAGE.__path__)]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    module = importlib.import_module(f"{PACKAGE.__name__}.{name}")
    assert not doctest.testmod(module).failed


def test_what_is_public_is_documented() -> None:
    silent = [
        name
        for name in dir(treadle)
        if not name.startswith("_")
        and callable(getattr(treadle, name))
        and not (getattr(treadle, name).__doc__ or "").strip()
    ]
    assert not silent
    quiet = [
        name
        for name in dir(treadle.Tensor)
        if not name.startswith("_")
        and callable(getattr(treadle.Tensor, name))
        and not (getattr(treadle.Tensor, name).__doc__ or "").strip()
    ]
    assert not quiet
