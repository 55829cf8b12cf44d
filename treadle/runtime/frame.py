"""A bound plan whose table of addresses is kept: a run sets only what has changed since."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from treadle.runtime.binding import Native
from treadle.runtime.buffer import Buffer, empty
from treadle.runtime.engine import Bound


class Frame:
    """The table of one plan that is run again and again, by one thread at a time.

    It holds addresses and no memory: whoever runs it keeps the buffers alive.

    Args:
        bound: a plan of one native call and no aliases among its results (`Frame.fits`).
        leaves: a buffer, or a Python number, for each input.

    Attributes:
        addresses: of the inputs, as they stand in the table.
        outputs: how many there are.
    """

    __slots__ = (
        "_address", "_arena", "_bound", "_fixed", "_native", "_program", "_table", "_taken",
        "addresses", "outputs",
    )  # fmt: skip

    def __init__(self, bound: Bound, leaves: Sequence[Any]) -> None:
        self._bound: Final = bound
        native = bound.steps[0]
        assert isinstance(native, Native)
        self._native, self._program = native, native.program
        self._table, self._address = self._program.frame()
        first = len(leaves)
        self._fixed: Final = [(i, first + i, nbytes) for i, nbytes in bound.fixed]
        self._taken: Final = {leaf: first + i for i, leaf in bound.taken}
        self.outputs: Final = bound.outputs
        self._arena: Final = (bound.arena, first + self.outputs)
        self.addresses: Final = bound.addresses(leaves)
        for i, address in enumerate(self.addresses):
            self._place(i, address)

    @staticmethod
    def fits(bound: Bound) -> bool:
        """Whether the plan is one native call whose results have memory of their own."""
        return len(bound.steps) == 1 and isinstance(bound.steps[0], Native) and not bound.shared

    def place(self, i: int, buffer: Buffer) -> None:
        """Lets the next runs find input `i` at another buffer."""
        self.addresses[i] = buffer.address
        self._place(i, buffer.address)

    def _place(self, i: int, address: int) -> None:
        self._table[i] = address
        if i in self._taken:
            self._table[self._taken[i]] = address

    def run(self, numbers: list[Any], outputs: list[Any]) -> None:
        """Runs the plan on the inputs that were placed.

        Args:
            numbers: the inputs that are Python numbers, in order.
            outputs: for each output the buffer to use; `None` becomes a new one where the plan
                does not write over an input.

        Raises:
            IndexBoundsError: a check failed.
        """
        if numbers:
            self._bound.set_numbers(numbers)
        table = self._table
        for i, slot, nbytes in self._fixed:
            buffer = outputs[i]
            if buffer is None:
                outputs[i] = buffer = empty(nbytes)
            table[slot] = buffer.address
        nbytes, slot = self._arena
        arena = empty(nbytes)
        table[slot] = arena.address
        result = self._program.enter(self._address)
        if result:
            self._bound.fail(self._native, result)
