"""The op table: importing this room fills `TABLE` with every primitive."""

from treadle.ops import (
    attention,
    contract,
    ctc,
    gather,
    lapack,
    order,
    pointwise,
    recurrence,
    reduce,
    scan,
    scatter,
    source,
    special,
    view,
)  # fmt: skip
from treadle.ops.table import INPUT, TABLE, Op, input_node, make

__all__ = [
    "INPUT",
    "TABLE",
    "Op",
    "attention",
    "contract",
    "ctc",
    "gather",
    "input_node",
    "lapack",
    "make",
    "order",
    "pointwise",
    "recurrence",
    "reduce",
    "scan",
    "scatter",
    "source",
    "special",
    "view",
]
