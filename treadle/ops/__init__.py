"""The op table: importing this room fills `TABLE` with every primitive."""

from treadle.ops import contract, gather, pointwise, reduce, source, view
from treadle.ops.table import INPUT, TABLE, Op, input_node, make

__all__ = [
    "INPUT",
    "TABLE",
    "Op",
    "contract",
    "gather",
    "input_node",
    "make",
    "pointwise",
    "reduce",
    "source",
    "view",
]
