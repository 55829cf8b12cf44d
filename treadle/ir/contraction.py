"""The contraction kernel: C[b, m, n] = epilogue(sum over k of A[b, m, k] * B[b, k, n]).

Matmul in every transposition, batched matmul, einsum of two operands, and convolution forward, by
data and by weight are this one loop with other addresses. `b`, `m`, `n` and `k` are each a list
of dimensions, and every operand's address is a sum of `index * stride` over its dimensions, so a
convolution is a contraction whose A strides overlap (windows over a padded, channels-last image).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from treadle.base.dtype import DType
from treadle.ir.loop import Expr, Param

WINOGRAD_CHANNELS: Final = 32
"""Filters and channels of a convolution by transformed tiles: whole panels on every target."""


@dataclass(frozen=True, slots=True)
class Operand:
    """Which dimensions of a class an operand varies along with unit stride, baked into the code.

    `unit` is `"m"`, `"n"`, `"k"` or `""`: the class whose *last* dimension has stride 1. An extra
    operand that does not vary along n at all has `"0"`: one value serves a whole row.
    """

    dtype: DType
    unit: str


@dataclass(slots=True, eq=False, weakref_slot=True)
class Contraction:
    """One contraction pattern; extents and strides are run-time sizes of the launch.

    `dims` counts the dimensions of each class (b, m, n, k); classes may be empty (extent 1).
    `outputs` are expressions over `Var("acc")` (dtype `accumulator`) and `Var("e0")`, `Var("e1")`
    ... (the extra operands), one per stored output.

    Buffers of the launch, in order: A, B, extras, outputs, and a workspace that holds packed
    panels and partial sums between the steps of a schedule. Sizes, in order: the extents (b dims,
    m dims, n dims, k dims), then for A, B, each extra and each output its strides in elements
    along all of those dimensions in the same order (0 where it does not vary).

    `winograd` promises that it is a convolution of a 3 x 3 window and may be computed by way of
    transformed tiles of 2 x 2 pixels:

    * `"data"`: m = (image, y, x, 2, 2), n = (filter), k = (3, 3, channel). A is the image, whose
      last two strides along m are its first two along k, with unit stride along the channels.
    * `"dilated"`: the same, of an image whose rows and columns are zero but for the odd ones.
    * `"filter"`: m = (filter), n = (channel, 3, 3), k = (image, y, x, 2, 2). B is the image, whose
      last two strides along n are its last two along k, with unit stride along the channels, as
      A has along the filters. Extras and outputs step through n as through one dimension.

    Filters and channels come in multiples of `WINOGRAD_CHANNELS`; operands have the accumulator's
    type.
    """

    name: str
    dims: tuple[int, int, int, int]
    a: Operand
    b: Operand
    extras: tuple[Operand, ...]
    out: tuple[Operand, ...]
    accumulator: DType
    outputs: tuple[Expr, ...]
    winograd: str = ""

    @property
    def params(self) -> tuple[Param, ...]:
        """The buffers of the launch."""
        return (
            Param("a", self.a.dtype),
            Param("b", self.b.dtype),
            *(Param(f"e{i}", e.dtype) for i, e in enumerate(self.extras)),
            *(Param(f"o{i}", o.dtype, "out") for i, o in enumerate(self.out)),
            Param("workspace", self.accumulator, "inout"),
        )

    @property
    def sizes(self) -> int:
        """The number of sizes that describe one contraction of this pattern."""
        return sum(self.dims) * (3 + len(self.extras) + len(self.out))
