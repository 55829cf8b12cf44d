"""The memory plan: where every stored node lies, laid out by how long each one lives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from treadle.base import shape as sh
from treadle.base.symbolic import derived_all
from treadle.graph.plan import Place
from treadle.graph.schedule import Step, in_place
from treadle.ir.node import Node

ALIGN = 64


def nbytes(node: Node) -> int:
    """The size of a node in memory."""
    return sh.count(node.shape) * node.dtype.itemsize


Change = tuple[str, int]
"""`take` or `give`, and the number of the interval."""


def arrange(changes: Sequence[Change], *sizes: int) -> list[int]:
    """The offset of each interval, given their sizes, and the size of the whole."""
    arena = Arena()
    offsets = [0] * len(sizes)
    for change, i in changes:
        if change == "take":
            offsets[i] = arena.take(sizes[i])
        else:
            arena.give(offsets[i], sizes[i])
    return [*offsets, arena.size]


class Arena:
    """Best fit over the free intervals of one growing block."""

    def __init__(self) -> None:
        self.size = 0
        self._free: list[tuple[int, int]] = []

    def take(self, size: int) -> int:
        """The offset of a new interval."""
        fits = [(n, at) for at, n in self._free if n >= size]
        if fits:
            n, at = min(fits)
            self._free.remove((at, n))
            if n > size:
                self._free.append((at + size, n - size))
            return at
        last = max(self._free, default=None)
        if last is not None and last[0] + last[1] == self.size:
            # The free end of the block is too short: it grows.
            self._free.remove(last)
            self.size = last[0] + size
            return last[0]
        at = self.size
        self.size += size
        return at

    def give(self, at: int, size: int) -> None:
        """Frees an interval and joins it with free neighbours."""
        for start, n in list(self._free):
            if start + n == at:
                self._free.remove((start, n))
                at, size = start, size + n
            elif at + size == start:
                self._free.remove((start, n))
                size += n
        self._free.append((at, size))


def lay_out(
    steps: Sequence[Step],
    fixed: Mapping[Node, Place],
    padding: Mapping[Node, Sequence[Node]],
    arena_slot: int,
) -> tuple[dict[Node, Place], int]:
    """The place of every node that a step stores or reads, and the bytes of the arena.

    `padding`: padded nodes and joins, with the nodes that each holds inside of its own buffer.
    """
    holder = {inner: padded for padded, parts in padding.items() for inner in parts}
    last: dict[Node, int] = {}
    for i, step in enumerate(steps):
        for node in [*step.reads, *step.stored]:
            last[holder.get(node, node)] = i
    changes: list[Change] = []
    sizes: list[int] = []
    interval: dict[Node, int] = {}
    held: dict[Node, int] = {}

    def take(node: Node) -> None:
        interval[node] = held[node] = len(sizes)
        changes.append(("take", len(sizes)))
        sizes.append(_aligned(node))

    for i, step in enumerate(steps):
        dying = [n for n in step.reads if n in held and last[n] == i]
        for node in step.stored:
            if node in holder:
                padded = holder[node]
                if padded not in fixed and padded not in interval:
                    take(padded)
                continue
            if node in fixed or node in interval:
                continue
            heir = None if node in padding else _heir(step, node, dying, held, sizes)
            if heir is not None:
                dying.remove(heir)
                interval[node] = held[node] = held.pop(heir)
            else:
                take(node)
        ended = [*dying, *[n for n in step.stored if n in held and last[n] == i]]
        for padded in [holder[n] for n in step.reads if n in holder]:
            if padded in held and last[padded] == i and padded not in ended:
                ended.append(padded)
        changes += [("give", held.pop(node)) for node in ended]
    offsets = derived_all(partial(arrange, tuple(changes)), *sizes)
    places = dict(fixed)
    places.update({node: (arena_slot, offsets[i]) for node, i in interval.items()})
    places.update({n: places[padded] for n, padded in holder.items() if padded in places})
    return places, offsets[-1]


def _aligned(node: Node) -> int:
    return -(-max(nbytes(node), 1) // ALIGN) * ALIGN


def _heir(
    step: Step,
    node: Node,
    dying: Sequence[Node],
    held: Mapping[Node, int],
    sizes: Sequence[int],
) -> Node | None:
    """A buffer read for the last time that may be overwritten in place."""
    for root in step.roots:
        if root.node is node:
            for other in dying:
                if sizes[held[other]] == _aligned(node) and in_place(step, root, other):
                    return other
    return None
