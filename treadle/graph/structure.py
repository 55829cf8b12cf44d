"""The structure of a graph apart from its sizes: what graphs of many shapes have in common."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator, Sequence
from operator import itemgetter
from typing import Any, Final

from treadle.base.algebra import SMALLEST
from treadle.base.symbolic import Symbolic
from treadle.ir.node import Node, topological
from treadle.ops.source import FULL
from treadle.ops.table import INPUT, Op

_SIZES: Final = frozenset(
    {"shape", "starts", "stops", "steps", "extents", "extent", "pads", "spacings",
     "dilations", "chunk", "length"}
)  # fmt: skip
"""Attributes that are numbers of elements, or lists of them; all others are structure."""
PLAIN: Final = frozenset({0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5, float("inf"), float("-inf")})
"""Constants baked into the code; others (1/n, a normalisation) are sizes of the launch."""
_INTEGERS: Final = (int, Symbolic)


def structure(
    outputs: Sequence[Node], inputs: Sequence[Node], donated: frozenset[int] = frozenset()
) -> tuple[Hashable, tuple[int, ...]]:
    """A graph as its structure and its sizes; both are equal for equal graphs, in whatever order
    they were recorded.

    Returns:
        A key without sizes, and the sizes in the order of a walk.
    """
    sizes: list[Any] = []
    number: dict[Node, int] = {}
    key: list[Hashable] = []
    for node in ordered(outputs, inputs):
        number[node] = len(number)
        if node.op is INPUT:
            sizes += node.shape
            key.append((len(node.shape), node.dtype))
        else:
            attrs = split(node, sizes) if node.attrs else ()
            key.append((node.op, tuple([number[i] for i in node.inputs]), attrs))
    ends = tuple([number[o] for o in outputs])
    return (tuple(key), small(sizes), ends, donated), tuple(sizes)


def ordered(outputs: Sequence[Node], inputs: Sequence[Node]) -> list[Node]:
    """All nodes in the order of a structure: inputs first."""
    given = set(inputs)
    return [*inputs, *[node for node in topological(outputs) if node not in given]]


def sizes_of(node: Node) -> tuple[Any, ...]:
    """What a node adds to the sizes of a structure."""
    if node.op is INPUT:
        return node.shape
    sizes: list[Any] = []
    split(node, sizes)
    return tuple(sizes)


def picker(indices: Sequence[int]) -> Callable[[Sequence[Any]], Any]:
    """A function that takes some elements of a sequence."""
    if len(indices) > 1:
        return itemgetter(*indices)
    return lambda values: tuple([values[i] for i in indices])


def small(sizes: Sequence[Any]) -> tuple[int, ...]:
    """Sizes as far as they are structure: extents of 0 and 1 are computed with otherwise."""
    return tuple([n if n in (0, 1) else SMALLEST for n in sizes])


def split(node: Node, sizes: list[Any]) -> tuple[Hashable, ...]:
    """The attributes of a node without their sizes, which are appended to a list."""
    flags = _size_flags(node.op)
    return tuple(
        [_taken_out(value, sizes) if flag else value for value, flag in zip(node.attrs, flags)]  # noqa: B905
    )


def _taken_out(value: Any, sizes: list[Any]) -> Hashable:
    if type(value) is tuple:
        return tuple([_taken_out(v, sizes) for v in value])
    if _varies(value):
        sizes.append(value)
        return 0.5 if isinstance(value, float) else None
    # 0.0 == -0.0 == False: the text tells them apart.
    return repr(value)


def join(node: Node, sizes: Iterator[int]) -> tuple[Any, ...]:
    """The attributes of a node with other sizes, which are taken from an iterator."""
    flags = _size_flags(node.op)
    return tuple(
        [_put_back(value, sizes) if flag else value for value, flag in zip(node.attrs, flags)]  # noqa: B905
    )


def _put_back(value: Any, sizes: Iterator[int]) -> Any:
    if type(value) is tuple:
        return tuple([_put_back(v, sizes) for v in value])
    return next(sizes) if _varies(value) else value


def _varies(value: Any) -> bool:
    """Whether an attribute is a number that is a size here and not a part of the structure."""
    return type(value) in _INTEGERS or (
        isinstance(value, float) and value not in PLAIN and value == value
    )


@functools.cache
def _size_flags(op: Op) -> tuple[bool, ...]:
    return tuple([name in _SIZES or (op is FULL and name == "value") for name in op.attr_names])
