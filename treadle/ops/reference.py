"""The reference interpreter of the tensor graph: every node by its op's NumPy reference.

Slow and obviously right: what compiled plans are tested against.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from treadle.base.lazy import LazyModule
from treadle.ir.node import Node, topological
from treadle.ops.table import INPUT

np = LazyModule("numpy")


def evaluate(roots: Sequence[Node], feeds: Mapping[Node, Any]) -> list[Any]:
    """The values of the roots, given an array for every input node that they depend on."""
    values: dict[Node, Any] = dict(feeds)
    with np.errstate(all="ignore"):
        for node in topological(roots):
            if node in values:
                continue
            if node.op is INPUT:
                raise KeyError(f"no value was given for {node!r}")
            arrays = [values[i] for i in node.inputs]
            values[node] = np.asarray(node.op.ref(*arrays, *node.attrs))
    return [values[root] for root in roots]
