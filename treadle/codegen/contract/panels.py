"""Neighbouring panels of an operand, packed in the order in which they lie in memory."""

from __future__ import annotations

from typing import Any, Final

from treadle.codegen.contract.flow import WORD, call
from treadle.codegen.contract.layout import A, K, M, N
from treadle.codegen.contract.parts import Frame, Parts
from treadle.codegen.value import Value

_STRETCH: Final = 64
"""Values of k, each in a page of its own: as many as the processor keeps addresses of pages."""
_AHEAD: Final = 8
"""Rows that are fetched ahead."""


class Panels:
    """Emits the packing of panels of `width` streams each, `distance` bytes apart from `to` on."""

    def __init__(
        self, frame: Frame, parts: Parts, operand: int, width: int, to: Any, distance: Value
    ) -> None:
        self.frame = frame
        self.parts = parts
        self.kind = M if operand == A else N
        self.width = width
        self.to = to
        self.distance = distance
        self.rows = parts.pack_rows.get(operand)
        self.panel = parts.pack_a if operand == A else parts.pack_b
        unit = (parts.contraction.a if operand == A else parts.contraction.b).unit
        self.stretch = 1 << 30 if unit == "k" else _STRETCH

    def pack(
        self, streams: Any, steps: Any, first: Value, count: Value, k: Value, depth: Value
    ) -> None:
        """`count` streams, from number `first` of the operand on, against `depth` steps of the
        block that begins at `k`; tables of both hold addresses.

        Where whole panels are adjacent, all are filled row by row. Otherwise a stretch of k of all
        panels comes before the next one, so that what shares a line or a page of memory is read
        together; an operand that is laid out along k shares none.
        """
        f, start = self.frame.f, self.frame.f.index(0)
        if self.rows is not None:
            whole = count - f.rem(count, self.width)
            adjacent = self.frame.whole(self.parts.addresses, self.kind, first, whole, whole)
            start = adjacent.where(whole, start)
            with f.when(start > 0):
                call(
                    f, self.rows, self.to, self.distance, f.pointer(streams), steps, depth,
                    f.div(whole, self.width), f.index(_AHEAD),
                )  # fmt: skip
        with f.loop(0, depth, self.stretch) as step, f.loop(start, count, self.width) as stream:
            self._one(streams, steps, first, count, k, depth, step, stream)

    def _one(
        self, streams: Any, steps: Any, first: Value, count: Value, k: Value, depth: Value,
        step: Value, stream: Value,
    ) -> None:  # fmt: skip
        f, parts, size = self.frame.f, self.parts, self.parts.tile.itemsize
        to = f.div(stream, self.width) * self.distance + step * (self.width * size)
        whole = self.frame.whole(
            parts.addresses, self.kind, first + stream, count - stream, self.width
        )
        call(
            f, self.panel, f.at(self.to, to), f.at(streams, stream * WORD),
            f.at(steps, step * WORD), f.least(depth - step, self.stretch), k + step,
            parts.addresses.extent(f, self.frame.params, K), f.flag(whole),
        )  # fmt: skip
