"""Panels of B: packed by a launch of their own, by the task that needs them, or read in place."""

from __future__ import annotations

from typing import Any, Final

from treadle.codegen.contract.flow import call, function
from treadle.codegen.contract.layout import DIRECT, SHARED, B, N
from treadle.codegen.contract.panels import Panels
from treadle.codegen.contract.parts import Frame, Parts
from treadle.codegen.value import Value, ir

GROUP: Final = 4
"""Panels that one packing task packs side by side."""


def render_pack_group(parts: Parts) -> Any:
    """`pack_group(slots, params, scratch, to, batch, first, columns, k, depth)`: neighbouring
    panels, `depth` rows of the block that begins at `k`.

    Columns' addresses go to a table first.
    """
    made, f, args = function(parts.module, parts.target, f"{parts.symbol}.pack_group", "ppppiiiii")
    frame, (to, batch, first, columns, k, depth) = Frame(f, parts.layout, *args[:3]), args[3:]
    addresses, width = parts.addresses, parts.tile.width
    padded = f.div(columns + (width - 1), width) * width
    table, base = frame.place("columns"), frame.base(addresses, B, batch)
    addresses.table(f, frame.params, B, N, table, first, columns, padded, base)
    panels = Panels(frame, parts, B, width, to, panel_bytes(frame, parts))
    panels.pack(table, frame.place("b_steps"), first, columns, k, depth)
    f.builder.ret_void()
    return made


def render_pack_task(parts: Parts, pack_group: Any) -> Any:
    """`pack_task(slots, params, scratch, task)`: a group of panels of one block of k into the
    workspace. Tasks count groups, then blocks of k, then batches."""
    made, f, args = function(parts.module, parts.target, f"{parts.symbol}.pack_task", "pppi")
    frame, task = Frame(f, parts.layout, *args[:3]), args[3]
    number, width = frame.number, GROUP * parts.tile.width
    groups = f.div(number("panels") + (GROUP - 1), GROUP)
    block, group = f.div(task, groups), f.rem(task, groups)
    batch, k = f.div(block, number("k_blocks")), f.rem(block, number("k_blocks"))
    k = k * number("k_block")
    depth = f.least(number("k") - k, number("k_block"))
    frame.fill_steps(parts.addresses, k, depth)
    first = group * width
    columns = f.least(number("n") - first, width)
    call(
        f, pack_group, *args[:3], shared(frame, parts, block, first), batch, first, columns, k,
        depth,
    )  # fmt: skip
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


class Columns:
    """Emits the choice of B's panels in one block of columns and one block of k."""

    def __init__(
        self, frame: Frame, parts: Parts, pack_group: Any, batch: Value, first: Value,
        columns: Value,
    ) -> None:  # fmt: skip
        self.frame = frame
        self.parts = parts
        self.pack_group = pack_group
        self.batch = batch
        self.first = first
        self.columns = columns

    def panel(self, column: Value, k: Value, depth: Value) -> tuple[Any, Value]:
        """Where the panel at a column of the block is, and how far its rows are apart.

        It is packed here and now if it is neither in the workspace nor fit to be read in place.
        """
        frame, f, parts = self.frame, self.frame.f, self.parts
        width, mode, first = parts.tile.width, frame.number("b_mode"), self.first + column
        chosen = f.choice(shared(frame, parts, self._block(k), first))
        row = f.cell(f.index(parts.row_bytes))
        whole = frame.whole(parts.addresses, N, first, self.columns - column, width)
        in_place = mode.equals(DIRECT) & whole
        with f.when(in_place):
            offset = parts.addresses.offset(f, frame.params, B, N, first)
            start = frame.base(parts.addresses, B, self.batch) + offset
            start = start + f.word(frame.place("b_steps"))
            chosen.set(f.builder.inttoptr(start.raw, ir.PointerType()))
            row.set(frame.number("b_row"))
        with f.when(mode.compare("ne", SHARED) & ~in_place):
            chosen.set(self._local(column, k, depth))
        return chosen.get(), row.get()

    def _local(self, column: Value, k: Value, depth: Value) -> Any:
        """A panel in the scratch memory, packed with its neighbours when it is the first."""
        frame, f = self.frame, self.frame.f
        width = self.parts.tile.width
        group = GROUP * width
        inside = f.rem(column, group)
        local = frame.place("b_panel")
        direct = frame.number("b_mode").equals(DIRECT)
        with f.when(direct | inside.equals(0)):
            # Of columns that are read in place only the last ones, too few for a panel, are left.
            columns = f.least(self.columns - column, group)
            call(
                f, self.pack_group, frame.slots, frame.params, frame.scratch, local, self.batch,
                self.first + column, columns, k, depth,
            )  # fmt: skip
        place = f.div(inside, width) * panel_bytes(frame, self.parts)
        return f.at(local, direct.where(f.index(0), place))

    def _block(self, k: Value) -> Value:
        f, number = self.frame.f, self.frame.number
        return self.batch * number("k_blocks") + f.div(k, number("k_block"))
