"""Convolutions as contractions over channels-last images."""

from __future__ import annotations

from treadle.ir.node import Node


def expand_conv(node: Node) -> Node:
    """A convolution as padding, windows and a contraction."""
    raise NotImplementedError
