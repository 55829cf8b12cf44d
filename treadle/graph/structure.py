"""The structure of a graph apart from its sizes: what graphs of many shapes have in common."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from treadle.base.symbolic import SMALLEST, Symbolic
from treadle.ir.node import Node, topological
from treadle.ops.table import Op

_SIZES: Final = frozenset({"shape", "starts", "stops", "steps", "extents", "extent", "value"})
"""Attributes that are numbers of elements, or lists of them; all others are structure."""
_INTEGERS: Final = (int, Symbolic)


def structure(
    outputs: Sequence[Node], inputs: Sequence[Node], donated: frozenset[int] = frozenset()
) -> tuple[Hashable, tuple[int, ...]]:
    """A graph as its structure and its sizes; both are equal for equal graphs, in whatever order
    they were recorded.

    Returns:
        A key without sizes, and the sizes in the order of a walk.
    """
    sizes: list[int] = []
    number: dict[Node, int] = {}
    key: list[Hashable] = []
    for node in inputs:
        number[node] = len(number)
        sizes += node.shape
        key.append((len(node.shape), node.dtype))
    for node in topological(outputs):
        if node in number:
            continue
        number[node] = len(number)
        attrs = split(node, sizes) if node.attrs else ()
        key.append((node.op, tuple([number[i] for i in node.inputs]), attrs))
    # Extents of 0 and 1 are computed with otherwise than all others.
    small = tuple([n if n < SMALLEST else SMALLEST for n in sizes])
    return (tuple(key), small, tuple([number[o] for o in outputs]), donated), tuple(sizes)


def split(node: Node, sizes: list[int]) -> tuple[Hashable, ...]:
    """The attributes of a node without their sizes, which are appended to a list."""
    kept: list[Hashable] = []
    for value, is_size in zip(node.attrs, _size_flags(node.op), strict=False):
        if not is_size:
            kept.append(value)
        elif _is_list(value):
            sizes += value
            kept.append(len(value))
        elif type(value) in _INTEGERS:
            sizes.append(value)
        else:
            # 0.0 == -0.0 == False: the text tells them apart.
            kept.append(repr(value))
    return tuple(kept)


def join(node: Node, sizes: Iterator[int]) -> tuple[Any, ...]:
    """The attributes of a node with other sizes, which are taken from an iterator."""
    attrs: list[Any] = []
    for value, is_size in zip(node.attrs, _size_flags(node.op), strict=False):
        if is_size and _is_list(value):
            attrs.append(tuple(islice(sizes, len(value))))
        elif is_size and type(value) in _INTEGERS:
            attrs.append(next(sizes))
        else:
            attrs.append(value)
    return tuple(attrs)


def _is_list(value: Any) -> bool:
    return type(value) is tuple and all(type(n) in _INTEGERS for n in value)


@functools.cache
def _size_flags(op: Op) -> tuple[bool, ...]:
    return tuple([name in _SIZES for name in op.attr_names])
