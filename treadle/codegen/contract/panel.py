"""Panels of B: packed by a launch of their own, by the task that needs them, or read in place."""

from __future__ import annotations

from typing import Any, Final

from treadle.codegen.contract.flow import WORD, call, function
from treadle.codegen.contract.layout import DIRECT, SHARED, B, K, N
from treadle.codegen.contract.parts import Frame, Parts
from treadle.codegen.value import Value, ir

GROUP: Final = 4
"""Panels that one packing task packs side by side."""
_ROWS: Final = 64
"""Rows of B packed for all panels of a group before the next rows: as many pages as the processor
keeps addresses of."""


def render_pack_task(parts: Parts) -> Any:
    """`pack_task(slots, params, scratch, task)`: a group of panels of one block of k into the
    workspace. Tasks count groups, then blocks of k, then batches."""
    made, f, args = function(parts.module, parts.target, f"{parts.symbol}.pack_task", "pppi")
    frame, task = Frame(f, parts.layout, *args[:3]), args[3]
    number, width = frame.number, parts.tile.width
    groups = f.div(number("panels") + (GROUP - 1), GROUP)
    block, group = f.div(task, groups), f.rem(task, groups)
    batch, k = f.div(block, number("k_blocks")), f.rem(block, number("k_blocks"))
    k = k * number("k_block")
    depth = f.least(number("k") - k, number("k_block"))
    frame.fill_steps(parts.addresses, k, depth)
    first = group * (GROUP * width)
    columns = f.least(number("n") - first, GROUP * width)
    padded = f.div(columns + (width - 1), width) * width
    pack = _Pack(frame, parts, batch, first, columns, padded)
    panels = shared(frame, parts, block, first)
    with f.loop(0, depth, _ROWS) as row, f.loop(0, columns, width) as column:
        to = f.div(column, width) * panel_bytes(frame, parts) + row * parts.row_bytes
        pack.emit(f.at(panels, to), column, k, row, f.least(depth - row, _ROWS))
    f.builder.ret_void()
    return made


def shared(frame: Frame, parts: Parts, block: Value, first: Value) -> Any:
    """The panel of column `first` and one block of k, in the workspace."""
    f = frame.f
    panel = block * frame.number("panels") + f.div(first, parts.tile.width)
    return f.at(frame.workspace, panel * panel_bytes(frame, parts))


def panel_bytes(frame: Frame, parts: Parts) -> Value:
    """The size of a packed panel."""
    return frame.number("k_block") * parts.row_bytes


def choose_panel(
    frame: Frame, parts: Parts, batch: Value, first: Value, k: Value, depth: Value
) -> tuple[Any, Value]:
    """Where the panel that begins at column `first` is, and how far its rows are apart.

    It is packed here and now if it is neither in the workspace nor fit to be read in place.
    """
    f, width = frame.f, parts.tile.width
    columns = f.least(frame.number("n") - first, width)
    mode = frame.number("b_mode")
    chosen = f.choice(shared(frame, parts, _block(frame, batch, k), first))
    row = f.cell(f.index(parts.row_bytes))
    whole = frame.whole(parts.addresses, N, first, columns, width)
    in_place = mode.equals(DIRECT) & whole
    with f.when(in_place):
        offset = parts.addresses.offset(f, frame.params, B, N, first)
        start = frame.base(parts.addresses, B, batch) + offset + f.word(frame.place("b_steps"))
        chosen.set(f.builder.inttoptr(start.raw, ir.PointerType()))
        row.set(frame.number("b_row"))
    with f.when(mode.compare("ne", SHARED) & ~in_place):
        local = frame.place("b_panel")
        pack = _Pack(frame, parts, batch, first, columns, f.index(width))
        pack.emit(local, f.index(0), k, f.index(0), depth)
        chosen.set(local)
    return chosen.get(), row.get()


def _block(frame: Frame, batch: Value, k: Value) -> Value:
    f = frame.f
    return batch * frame.number("k_blocks") + f.div(k, frame.number("k_block"))


class _Pack:
    """Emits the packing of columns of B, whose addresses go to a table first."""

    def __init__(
        self, frame: Frame, parts: Parts, batch: Value, first: Value, columns: Value,
        padded: Value,
    ) -> None:  # fmt: skip
        self.frame = frame
        self.parts = parts
        self.first = first
        self.columns = columns
        self.table = frame.place("columns")
        parts.addresses.table(
            frame.f, frame.params, B, N, self.table, first, columns, padded,
            frame.base(parts.addresses, B, batch),
        )  # fmt: skip

    def emit(self, to: Any, column: Value, k: Value, row: Value, depth: Value) -> None:
        """`depth` rows, from `row` of the block that begins at `k`, of the panel at `column`."""
        frame, parts, f = self.frame, self.parts, self.frame.f
        steps = f.at(frame.place("b_steps"), row * WORD)
        whole = frame.whole(
            parts.addresses, N, self.first + column, self.columns - column, parts.tile.width
        )
        call(
            f, parts.pack_b, to, f.at(self.table, column * WORD), steps, depth, k + row,
            parts.addresses.extent(f, frame.params, K), f.flag(whole),
        )  # fmt: skip
