"""How a stored node lies in its buffer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.base import shape as sh
from treadle.graph.index import Affine, Atom, Space
from treadle.graph.pull import Index
from treadle.ir.node import Node


@dataclass(frozen=True, slots=True)
class Layout:
    """The element at an index is `offset + sum of index * stride` elements into the buffer."""

    strides: tuple[int, ...]
    offset: int = 0

    def address(self, space: Space, index: Index) -> Affine:
        """The position of an index in the buffer."""
        address = space.dot(index, self.strides)
        return space.add(address, space.const(self.offset)) if self.offset else address


def row_major(shape: Sequence[int]) -> Layout:
    """The last dimension innermost."""
    return Layout(sh.strides(shape))


def in_loop_order(shape: Sequence[int], index: Index, order: Sequence[Atom]) -> Layout:
    """Stores a node in the order of the loops that compute it; row-major where its dimensions
    are not plainly made of loop variables."""
    place = {atom: i for i, atom in enumerate(order)}
    outer: list[tuple[int, int]] = []
    for d, a in enumerate(index):
        if any(atom not in place for atom, _ in a.terms):
            return row_major(shape)
        outer.append((min([place[atom] for atom, _ in a.terms], default=-1), d))
    out = [1] * len(shape)
    step = 1
    for _, d in sorted(outer, reverse=True):
        out[d] = step
        step *= shape[d]
    return Layout(tuple(out))


@dataclass(frozen=True, slots=True)
class Inside:
    """A node stored inside of a padded or joined buffer: `axes[d]` is the padded axis of its axis
    `d`, or -1 where its extent is 1; `starts` is where it begins along each padded axis."""

    padded: Node
    starts: tuple[int, ...]
    axes: tuple[int, ...]

    @property
    def layout(self) -> Layout:
        """Where the elements are in the padded buffer."""
        steps = sh.strides(self.padded.shape)
        offset = sum([a * s for a, s in zip(self.starts, steps, strict=True)])
        return Layout(tuple([steps[d] if d >= 0 else 0 for d in self.axes]), offset)
