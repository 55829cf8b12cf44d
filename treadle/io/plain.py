"""Walks over plain data: containers inside containers, without recursion."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterator
from typing import Any, Final

from treadle.base.device import Device
from treadle.base.dtype import DType

_MAPPINGS: Final = (dict, OrderedDict, Counter)
_SEQUENCES: Final = (list, tuple, set, frozenset)
_SCALARS: Final = (type(None), bool, int, float, complex, str, bytes, DType, Device)
_KEY_NODES: Final = 1000


def leaves(value: Any) -> Iterator[Any]:
    """What a nest of containers holds that is no container, keys included, in order.

    A container that is met again, as in shared or circular data, is entered once.
    """
    seen: set[int] = set()
    pending = [value]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind not in _MAPPINGS and kind not in _SEQUENCES:
            yield item
        elif id(item) not in seen:
            seen.add(id(item))
            if kind in _MAPPINGS:
                pending.extend(reversed([part for pair in item.items() for part in pair]))
            else:
                pending.extend(reversed(list(item)))


def is_key(value: Any) -> bool:
    """Whether a value may be a dictionary key or a set element: scalars and small tuples of them.

    Hashing a tuple visits every path through it, which shared parts make exponentially many and
    which recurses in C, so what is deep or large is no key.
    """
    pending = [value]
    for _ in range(_KEY_NODES):
        if not pending:
            return True
        item = pending.pop()
        if type(item) in (tuple, frozenset):
            pending.extend(item)
        elif type(item) not in _SCALARS:
            return False
    return not pending
