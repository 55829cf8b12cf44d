"""Where the numbers of a launch are: the words of `params`, by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from treadle.base.dtype import DType
from treadle.ir.contraction import Contraction

A, B = range(2)
"""The first operands; extras and outputs follow."""

BATCH, M, N, K = range(4)
"""The classes of dimensions, in the order of `Contraction.dims`."""

WHOLE, PARTIAL, COMBINE, PACK = range(4)
"""What a launch does: everything; sums over a slice of k; the sum of slices and the outputs; the
packing of B."""

LOCAL, DIRECT, SHARED = range(3)
"""Where B's panels are: packed by the task that needs them, in place, packed by a launch before."""

NUMBERS: Final = (
    # What to do, and in which blocks. Blocks are multiples of the tile, in elements.
    "phase", "m", "n", "k", "m_block", "n_block", "k_block",
    "batches", "m_blocks", "n_blocks", "k_blocks", "panels", "slice",
    # How operands are read.
    "pack_a", "a_panel", "b_mode", "b_row",
    # Distances in bytes.
    "row", "panel", "block", "slices", "slice_bytes",
    # Places in bytes: in the scratch memory, and of the partial sums in the workspace.
    "tabled", "rows", "steps", "b_steps", "columns", "a_rows", "a_steps", "ends", "end_size",
    "a_panels", "b_panel", "zeros", "tiles", "partial",
)  # fmt: skip


class Layout:
    """The words of `params` for one contraction pattern.

    First a pair (slot, byte offset) per buffer, then the extents, then each operand's strides,
    then the numbers of these names that `schedule` chose.
    """

    __slots__ = ("_names", "_rank", "_starts", "buffers", "contraction", "dtypes", "units")

    def __init__(self, contraction: Contraction, names: Sequence[str] = NUMBERS) -> None:
        self._names = names
        c = contraction
        operands = (c.a, c.b, *c.extras, *c.out)
        self.contraction = c
        self.dtypes: tuple[DType, ...] = tuple(o.dtype for o in operands)
        self.units: tuple[str, ...] = tuple(o.unit for o in operands)
        self.buffers = len(c.params)
        self._rank = sum(c.dims)
        self._starts = [sum(c.dims[:kind]) for kind in range(4)]

    @property
    def ends(self) -> range:
        """The operands addressed like the result: extras, then outputs."""
        return range(2, len(self.dtypes))

    def extents(self, kind: int) -> int:
        """The word of the first extent of a class."""
        return 2 * self.buffers + self._starts[kind]

    def strides(self, operand: int, kind: int) -> int:
        """The word of an operand's first stride along a class."""
        return 2 * self.buffers + self._rank * (1 + operand) + self._starts[kind]

    def number(self, name: str) -> int:
        """The word of one of the schedule's numbers."""
        return 2 * self.buffers + self._rank * (1 + len(self.dtypes)) + self._names.index(name)
