"""The attention kernel: softmax(Q K^T scale + mask) V, or its gradients, with an online softmax.

One launch covers batches and heads. Each operand is a matrix for every batch and head, and its
address is a sum of `index * stride` over (batch, head, row, column):

    q (t, d)   k (s, d)   v (s, e)   mask (t, s)   lse, delta (t)   g (t, e)
    out (t, e)   dq (t, d)   dk (s, d)   dv (s, e)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from treadle.base.dtype import DType
from treadle.ir.loop import Param

FORWARD: Final = ("out", "lse")
"""What a forward kernel may store."""
BACKWARD: Final = ("dq", "dk", "dv")
"""What a backward kernel may store."""
EXTENTS: Final = ("batches", "heads", "t", "s", "d", "e", "scale")
"""The first sizes of a launch; the scale as the bits of a float64."""
AXES: Final = ("batch", "head", "row", "column")
"""The strides of an operand or output, in elements; 0 where it does not vary."""


@dataclass(frozen=True, slots=True)
class Matrix:
    """An operand or an output. `unit`: `"row"`, `"column"` or `""`, the axis with stride 1."""

    name: str
    dtype: DType
    unit: str


@dataclass(slots=True, eq=False, weakref_slot=True)
class Attention:
    """One attention pattern; extents and strides are run-time sizes of the launch.

    `operands`: q, k, v (unless only lse is wanted), in a backward kernel lse, g and delta, and
    perhaps the mask. `outputs`: some of `FORWARD` or of `BACKWARD`, features with stride 1.
    `dtype` is float32 or float64, that of everything but a bool mask.

    Buffers of the launch, in order: operands, outputs, and a workspace that the steps of a
    schedule share. Sizes, in order: `EXTENTS`, then four strides of each operand and output.
    """

    name: str
    dtype: DType
    causal: bool
    operands: tuple[Matrix, ...]
    outputs: tuple[Matrix, ...]

    @property
    def backward(self) -> bool:
        """Whether this computes gradients."""
        return self.outputs[0].name in BACKWARD

    @property
    def params(self) -> tuple[Param, ...]:
        """The buffers of the launch."""
        return (
            *(Param(m.name, m.dtype) for m in self.operands),
            *(Param(m.name, m.dtype, "out") for m in self.outputs),
            Param("workspace", self.dtype, "inout"),
        )

    @property
    def sizes(self) -> int:
        """The number of sizes that describe one launch of this pattern."""
        return len(EXTENTS) + len(AXES) * (len(self.operands) + len(self.outputs))

    def find(self, name: str) -> Matrix | None:
        """The operand or output of a name."""
        return next((m for m in (*self.operands, *self.outputs) if m.name == name), None)

    def text(self) -> str:
        """The pattern without its name, on one line."""

        def one(m: Matrix) -> str:
            return f"{m.name}: {m.dtype.name}/{m.unit or '-'}"

        return (
            f"attention({', '.join(map(one, self.operands))}) -> "
            f"{', '.join(map(one, self.outputs))} in {self.dtype.name}"
            f"{', causal' if self.causal else ''}"
        )
