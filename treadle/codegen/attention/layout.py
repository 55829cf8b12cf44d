"""Where the numbers of an attention launch are: the words of `params`, by name."""

from __future__ import annotations

from typing import Any, Final

from treadle.codegen.contract.flow import WORD, Flow
from treadle.codegen.value import Value
from treadle.ir.attention import AXES, EXTENTS, Attention

WHOLE, COMBINE = range(2)
"""What a launch does: everything; the sum of what the chunks of keys add to dq."""

NUMBERS: Final = (
    # What to do, and in which blocks: keys at once, queries or keys of a task, tasks of a head,
    # panels of queries, panels at once.
    "phase", "block", "stretch", "pieces", "panels", "group",
    # Bytes of the gradients for all queries of a head.
    "dq_bytes",
    # Places of tables in the scratch memory.
    "streams", "d_steps", "e_steps", "key_d", "key_e", "k_rows", "k_columns", "v_rows",
    "v_columns", "p_rows", "s_rows", "q_steps", "mask_steps",
    # Places of numbers: one for each lane of a panel, then panels and blocks.
    "zeros", "factors", "peaks", "sums", "lse", "delta", "k", "v", "mask", "p", "ds", "q_t", "g_t",
    "q", "g", "out_t", "dq_t", "dk", "dv",
)  # fmt: skip


class Layout:
    """The words of `params`: (slot, byte offset) of each buffer, the sizes, then `NUMBERS`."""

    __slots__ = ("_extents", "_matrices", "_numbers", "buffers")

    def __init__(self, pattern: Attention) -> None:
        names = [m.name for m in (*pattern.operands, *pattern.outputs)]
        self.buffers = {name: i for i, name in enumerate([*names, "workspace"])}
        first = 2 * len(self.buffers)
        self._extents = {name: first + i for i, name in enumerate(EXTENTS)}
        first += len(EXTENTS)
        self._matrices = {name: first + len(AXES) * i for i, name in enumerate(names)}
        first += len(AXES) * len(names)
        self._numbers = {name: first + i for i, name in enumerate(NUMBERS)}

    def word(self, name: str) -> int:
        """The word of an extent or of a number of the schedule."""
        found = self._extents.get(name)
        return self._numbers[name] if found is None else found

    def stride(self, name: str, axis: str) -> int:
        """The word of a matrix's stride."""
        return self._matrices[name] + AXES.index(axis)


class Frame:
    """The arguments of a kernel, by name."""

    __slots__ = ("f", "itemsize", "layout", "params", "scratch", "slots")

    def __init__(
        self, f: Flow, layout: Layout, itemsize: int, slots: Any, params: Any, scratch: Any
    ) -> None:
        self.f = f
        self.layout = layout
        self.itemsize = itemsize
        self.slots = slots
        self.params = params
        self.scratch = scratch

    def number(self, name: str) -> Value:
        """An extent, or a number of the schedule."""
        return self.f.word(self.params, self.layout.word(name))

    def place(self, name: str, offset: Value | int = 0) -> Any:
        """An address in the scratch memory, `offset` bytes behind the place of that name."""
        return self.f.at(self.f.at(self.scratch, self.number(name)), offset)

    def stretch(self, task: Value) -> tuple[Value, Value, Value]:
        """The batch, the head and the first row of a task: tasks count stretches of rows, then
        heads, then batches."""
        f, number = self.f, self.number
        piece, head = f.rem(task, number("pieces")), f.div(task, number("pieces"))
        batch, head = f.div(head, number("heads")), f.rem(head, number("heads"))
        return batch, head, piece * number("stretch")

    def scale(self) -> Any:
        """The address of the scale."""
        return self.f.at(self.params, self.layout.word("scale") * WORD)

    def buffer(self, name: str) -> Any:
        """The start of a buffer of the launch."""
        i = self.layout.buffers[name]
        slot, offset = self.f.word(self.params, 2 * i), self.f.word(self.params, 2 * i + 1)
        return self.f.at(self.f.pointer(self.slots, slot), offset)

    def stride(self, name: str, axis: str, itemsize: int | None = None) -> Value:
        """The bytes from one index to the next."""
        word = self.f.word(self.params, self.layout.stride(name, axis))
        return word * (itemsize or self.itemsize)

    def matrix(
        self,
        name: str,
        batch: Value,
        head: Value,
        row: Value | int = 0,
        itemsize: int | None = None,
    ) -> Any:
        """The address of a row of an operand or output."""
        offset = batch * self.stride(name, "batch", itemsize)
        offset = offset + head * self.stride(name, "head", itemsize)
        if not isinstance(row, int) or row:
            offset = offset + self.stride(name, "row", itemsize) * row
        return self.f.at(self.buffer(name), offset)
