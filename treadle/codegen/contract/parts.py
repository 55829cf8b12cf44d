"""What the functions of one contraction share: its tile, its helpers, where its numbers are."""

from __future__ import annotations

from typing import Any, Final

from treadle.codegen.contract.address import Addresses
from treadle.codegen.contract.finish import RenderValue, render_finish
from treadle.codegen.contract.flow import Flow
from treadle.codegen.contract.layout import BATCH, A, B, K, Layout
from treadle.codegen.contract.micro import share_sweep, share_sweep_out
from treadle.codegen.contract.pack import share_pack
from treadle.codegen.contract.tile import Tile, choose
from treadle.codegen.target import Target
from treadle.codegen.value import Value
from treadle.ir.contraction import Contraction
from treadle.ir.loop import Var

CHUNK: Final = 4
"""Tiles that are summed before their outputs are written: few enough that both overlap."""


class Parts:
    """The helper functions of one contraction, made in its module."""

    def __init__(
        self, module: Any, contraction: Contraction, target: Target, symbol: str,
        render_value: RenderValue,
    ) -> None:  # fmt: skip
        c, tile = contraction, choose(target, contraction.accumulator)
        self.module = module
        self.contraction = c
        self.target = target
        self.symbol = symbol
        self.tile: Tile = tile
        self.chunk = CHUNK * tile.rows
        self.row_bytes = tile.width * tile.itemsize
        self.layout = Layout(c)
        self.addresses = Addresses(module, target, self.layout)
        self.sweep = share_sweep(module, target, tile, c.accumulator)
        self.sweep_out = share_sweep_out(module, target, tile, c.accumulator) if _plain(c) else None
        self.pack_a = share_pack(
            module, target, tile, tile.rows, c.a.dtype, c.accumulator,
            {"m": "across", "k": "along"}.get(c.a.unit, ""),
        )  # fmt: skip
        self.pack_b = share_pack(
            module, target, tile, tile.width, c.b.dtype, c.accumulator,
            {"n": "across", "k": "along"}.get(c.b.unit, ""),
        )  # fmt: skip
        self.finish = render_finish(
            module, target, f"{symbol}.finish", tile, self.addresses, render_value
        )


def _plain(c: Contraction) -> bool:
    """Whether the sums themselves are the output, in rows."""
    out = c.out[0]
    return (
        not c.extras
        and len(c.out) == 1
        and out.unit == "n"
        and out.dtype is c.accumulator
        and isinstance(c.outputs[0], Var)
    )


class Frame:
    """The arguments of a kernel, by name."""

    __slots__ = ("f", "layout", "params", "scratch", "slots")

    def __init__(self, f: Flow, layout: Layout, slots: Any, params: Any, scratch: Any) -> None:
        self.f = f
        self.layout = layout
        self.slots = slots
        self.params = params
        self.scratch = scratch

    def number(self, name: str) -> Value:
        """One of the schedule's numbers."""
        return self.f.word(self.params, self.layout.number(name))

    def place(self, name: str) -> Any:
        """A place in the scratch memory, of which the schedule gives the offset."""
        return self.f.at(self.scratch, self.number(name))

    def buffer(self, index: int) -> Any:
        """The start of a buffer of the launch."""
        slot, offset = self.f.word(self.params, 2 * index), self.f.word(self.params, 2 * index + 1)
        return self.f.at(self.f.pointer(self.slots, slot), offset)

    @property
    def workspace(self) -> Any:
        """The memory that the steps of a schedule share."""
        return self.buffer(self.layout.buffers - 1)

    def base(self, addresses: Addresses, operand: int, batch: Value) -> Value:
        """The address of an operand's element 0 of one batch."""
        start = self.f.address(self.buffer(operand))
        return start + addresses.offset(self.f, self.params, operand, BATCH, batch)

    def forget_steps(self) -> None:
        """Marks the tables of steps as not yet filled."""
        self.f.builder.store(self.f.index(-1).raw, self.place("tabled"))

    def whole(
        self, addresses: Addresses, kind: int, first: Value, count: Value, width: int
    ) -> Value:
        """Whether `width` indices from `first` on exist and are adjacent in the last dimension."""
        f = self.f
        whole = count >= width
        if self.layout.contraction.dims[kind] > 1:
            extent = addresses.extent(f, self.params, kind)
            whole = whole & (f.rem(first, extent) + width <= extent)
        return whole

    def fill_steps(self, addresses: Addresses, k: Value, depth: Value) -> None:
        """Tables of the offsets of A and B along k, unless they hold this block already."""
        f = self.f
        tabled = self.place("tabled")
        with f.when(f.word(tabled).compare("ne", k)):
            for operand, name in ((A, "steps"), (B, "b_steps")):
                addresses.table(
                    f, self.params, operand, K, self.place(name), k, depth, depth, f.index(0)
                )
            f.builder.store(k.raw, tabled)
