"""Nested tuples, lists and dicts of values, taken apart and put together again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def flatten(value: Any) -> tuple[list[Any], Any]:
    """The leaves of a nested structure in order, and the structure as a hashable value."""
    leaves: list[Any] = []
    return leaves, _take(value, leaves)


def _take(value: Any, leaves: list[Any]) -> Any:
    kind = type(value)
    if kind is tuple or kind is list:
        return (kind, tuple([_take(x, leaves) for x in value]))
    if kind is dict:
        return (kind, tuple(value), tuple([_take(x, leaves) for x in value.values()]))
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return (kind, tuple([_take(x, leaves) for x in value]))
    leaves.append(value)
    return None


def rebuild(tree: Any, leaves: list[Any]) -> Any:
    """The structure with other leaves."""
    return _put(tree, iter(leaves))


def _put(tree: Any, leaves: Iterator[Any]) -> Any:
    if tree is None:
        return next(leaves)
    if tree[0] is dict:
        return {k: _put(t, leaves) for k, t in zip(tree[1], tree[2], strict=True)}
    parts = [_put(t, leaves) for t in tree[1]]
    return tree[0](parts) if tree[0] in (tuple, list) else tree[0](*parts)
