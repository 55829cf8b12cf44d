"""Modules imported at their first use, so that `import treadle` does not pay for them."""

from __future__ import annotations

import importlib
from typing import Any


class LazyModule:
    """Stands for a third-party module and imports it when an attribute is first read.

    Recording needs neither NumPy nor LLVM, and each costs more to import than treadle itself.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        value = getattr(importlib.import_module(self._name), attribute)
        self.__dict__[attribute] = value
        return value
