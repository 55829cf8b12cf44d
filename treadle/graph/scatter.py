"""Lowering of scatters: zeros, then a serial accumulation over the positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from treadle.graph.fuse import Fusion
from treadle.graph.plan import Launch, Place
from treadle.ir.node import Node


def lower_scatter(node: Node, fusion: Fusion, places: Mapping[Node, Place]) -> Iterator[Launch]:
    """Fills the result with zeros, then adds at every position, in order."""
    raise NotImplementedError
