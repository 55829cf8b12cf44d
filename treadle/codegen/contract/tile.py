"""The micro-kernel's tile: how many rows and vectors of the result stay in registers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from treadle.base.dtype import DType


class Machine(Protocol):
    """What the choice of a tile needs to know of a target."""

    @property
    def vector_bits(self) -> int:
        """The width of a vector register."""

    @property
    def registers(self) -> int:
        """The number of vector registers."""


@dataclass(frozen=True, slots=True)
class Tile:
    """`rows` x (`vectors` * `lanes`) elements of the accumulator's type.

    A tile at the lower edge of a block uses the smallest of `heights` that covers its rows.
    """

    rows: int
    vectors: int
    lanes: int
    itemsize: int

    @property
    def width(self) -> int:
        """Columns of the tile."""
        return self.vectors * self.lanes

    @property
    def name(self) -> str:
        """What tells it from other tiles."""
        return f"{self.rows}x{self.vectors}x{self.lanes}x{self.itemsize}"

    @property
    def heights(self) -> tuple[int, ...]:
        """Row counts that have code of their own, in rising order.

        Fewer than four rows would not be faster: each sum waits for the one before.
        """
        return tuple(sorted({self.rows, min(4, self.rows)}))


def choose(target: Machine, accumulator: DType) -> Tile:
    """The tile for a target: enough sums to hide the latency of a multiply-add (about 4 cycles on
    2 units), few enough that sums, two vectors of B and one of A stay in registers.

    16 registers: 6 x 2 vectors, or 4 x 2 where a product needs a register of its own (no fused
    multiply-add: 128-bit x86, integers). 32 registers: 8 x 2, whose row pointers also fit into
    the general registers.
    """
    lanes = max(1, target.vector_bits // accumulator.bits)
    if target.registers >= 32:
        rows = 8
    elif target.vector_bits > 128 and accumulator.kind == "f":
        rows = 6
    else:
        rows = 4
    return Tile(rows, 2, lanes, accumulator.itemsize)
