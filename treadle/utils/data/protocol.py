"""How a data set or a transform says that it can work on a whole batch, and how far it is
believed."""

from __future__ import annotations

from functools import cache
from typing import Any


def speaks(obj: object, batch_method: str, item_method: str) -> bool:
    """Whether the class of `obj` has `batch_method` and it says the same as `item_method`.

    A subclass that overrides only the per-item method (say `__getitem__`) means something else by
    it than its base class's batch method does, so that one must no longer be used.
    """
    kind: Any = type(obj)
    return _speaks(kind, batch_method, item_method)


@cache
def _speaks(kind: Any, batch_method: str, item_method: str) -> bool:
    for base in kind.__mro__:
        if batch_method in vars(base):
            return True
        if item_method in vars(base):
            return False
    return False
