"""A block of the result: panels of B against chunks of rows of A, and the outputs."""

from __future__ import annotations

from typing import Any

from treadle.base import dtype as dt
from treadle.codegen.contract.flow import WORD, call, function
from treadle.codegen.contract.layout import COMBINE, PARTIAL, A, K, M, N
from treadle.codegen.contract.pack import stretch_of
from treadle.codegen.contract.panel import Columns
from treadle.codegen.contract.parts import Frame, Parts
from treadle.codegen.value import Value, llvm_type


def render_block_task(parts: Parts, pack_group: Any) -> Any:
    """`block_task(slots, params, scratch, task)`: one block of the result, of a slice's sums, or
    of the sum of all slices. Tasks count blocks along m, then n, batches and slices."""
    made, f, args = function(parts.module, parts.target, f"{parts.symbol}.block_task", "pppi")
    _Block(Frame(f, parts.layout, *args[:3]), parts, pack_group, args[3]).emit()
    f.builder.ret_void()
    return made


def prepare(frame: Frame, parts: Parts) -> None:
    """What all blocks of a call share: a tile of zeros, and the tables of A where it is packed."""
    f, tile = frame.f, parts.tile
    frame.forget_steps()
    nothing = f.const(0, parts.contraction.accumulator, tile.lanes).raw
    zeros = frame.place("zeros")
    with f.loop(0, f.index(tile.rows * parts.row_bytes), tile.lanes * tile.itemsize) as at:
        f.builder.store(nothing, f.at(zeros, at), align=tile.itemsize)
    with f.when(frame.number("pack_a") > 0):
        series, size = parts.addresses.series, f.index(tile.itemsize)
        depth = frame.number("k_block")
        call(f, series, frame.place("a_steps"), depth, f.index(0), size * tile.rows)
        with f.loop(0, frame.number("m_block"), tile.rows) as row:
            panel = f.div(row, tile.rows) * frame.number("a_panel")
            start = f.address(frame.place("a_panels")) + panel
            at = f.at(frame.place("a_rows"), row * WORD)
            call(f, series, at, f.index(tile.rows), start, size)


class _Block:
    """Emits the work on one block."""

    def __init__(self, frame: Frame, parts: Parts, pack_group: Any, task: Value) -> None:
        self.frame = frame
        self.parts = parts
        self.f = f = frame.f
        number = frame.number
        rest = f.div(task, number("m_blocks"))
        self.m = f.rem(task, number("m_blocks")) * number("m_block")
        self.n = f.rem(rest, number("n_blocks")) * number("n_block")
        rest = f.div(rest, number("n_blocks"))
        self.batch, piece = f.rem(rest, number("batches")), f.div(rest, number("batches"))
        self.start = piece * number("slice")
        self.rows = f.least(number("m") - self.m, number("m_block"))
        self.columns = f.least(number("n") - self.n, number("n_block"))
        self.b = Columns(frame, parts, pack_group, self.batch, self.n, self.columns)
        self.partial = f.at(frame.workspace, number("partial") + task * number("block"))
        self.summing = number("phase").compare("ne", COMBINE)
        self.finishing = number("phase").compare("ne", PARTIAL)
        kept = f.builder.select(self.finishing.raw, frame.place("tiles"), self.partial)
        self.tiles = kept

    def emit(self) -> None:
        """All blocks of k in turn; the last gives the outputs."""
        f, number = self.f, self.frame.number
        self._tables()
        start = self.start
        # The sum of slices takes one turn, and no k.
        end = f.least(number("k"), start + number("slice"))
        stop = self.summing.where(end, start)
        with f.blocks(start, stop, number("k_block")) as (k, depth, again):
            with f.when(self.summing):
                self._read_a(k, depth)
            with f.loop(0, self.columns, self.parts.tile.width) as column:
                self._panel(column, k, depth, again)

    def _tables(self) -> None:
        """A pointer for each row of A, of the extras and of the outputs."""
        f, frame, parts = self.f, self.frame, self.parts
        height = parts.tile.rows
        padded = f.div(self.rows + (height - 1), height) * height
        with f.when(self.summing):
            self._table(A, frame.place("rows"), padded)
        with f.when(self.finishing):
            for i, operand in enumerate(parts.layout.ends):
                at = f.at(frame.place("ends"), frame.number("end_size") * i)
                self._table(operand, at, padded)

    def _table(self, operand: int, at: Any, padded: Value) -> None:
        addresses = self.parts.addresses
        base = self.frame.base(addresses, operand, self.batch)
        addresses.table(self.f, self.frame.params, operand, M, at, self.m, self.rows, padded, base)

    def _read_a(self, k: Value, depth: Value) -> None:
        """The steps along this block of k; A is packed where that is wanted."""
        f, frame, parts = self.f, self.frame, self.parts
        tile, addresses = parts.tile, parts.addresses
        frame.fill_steps(addresses, k, depth)
        stretch = stretch_of(parts.contraction.a.unit)
        with (
            f.when(frame.number("pack_a") > 0),
            f.loop(0, depth, stretch) as step,
            f.loop(0, self.rows, tile.rows) as row,
        ):
            panel = f.div(row, tile.rows) * frame.number("a_panel")
            panel = panel + step * (tile.rows * tile.itemsize)
            whole = frame.whole(addresses, M, self.m + row, self.rows - row, tile.rows)
            call(
                f, parts.pack_a, f.at(frame.place("a_panels"), panel),
                f.at(frame.place("rows"), row * WORD), f.at(frame.place("steps"), step * WORD),
                f.least(depth - step, stretch), k + step,
                addresses.extent(f, frame.params, K), f.flag(whole),
            )  # fmt: skip

    def _panel(self, column: Value, k: Value, depth: Value, more: Value) -> None:
        """One panel of B: chunks of rows are summed, and finished while still near."""
        f, frame, parts = self.f, self.frame, self.parts
        width = parts.tile.width
        offset = f.div(column, width) * frame.number("panel")
        pack = frame.number("pack_a") > 0
        a_rows = f.builder.select(pack.raw, frame.place("a_rows"), frame.place("rows"))
        a_steps = f.builder.select(pack.raw, frame.place("a_steps"), frame.place("steps"))
        b, b_row = f.choice(frame.scratch), f.cell(f.index(0))
        with f.when(self.summing):
            panel, row_bytes = self.b.panel(column, k, depth)
            b.set(panel)
            b_row.set(row_bytes)
        begun = k > self.start
        straight = self._straight(column, more)
        out = self._out(column)
        with f.loop(0, self.rows, parts.chunk) as row:
            rows = f.least(self.rows - row, parts.chunk)
            at = f.at(self.tiles, offset + row * frame.number("row"))
            ends = f.at(frame.place("ends"), row * WORD)
            with f.choose(self.summing) as (compute, combine):
                with compute:
                    sums = f.builder.select(begun.raw, at, frame.place("zeros"))
                    sums_row = begun.where(f.index(parts.row_bytes), f.index(0))
                    given = (f.at(a_rows, row * WORD), rows, a_steps, b.get(), b_row.get(), depth)
                    self._sum(given, at, (sums, sums_row), straight, (ends, out))
                with combine:
                    source = f.at(self.partial, offset + row * parts.row_bytes)
                    self._combine(source, at, rows)
            with f.when(self.finishing & ~more & ~straight):
                call(
                    f, parts.finish, at, frame.params, ends, frame.number("end_size"), rows,
                    self.n + column, f.least(self.columns - column, width),
                )  # fmt: skip

    def _straight(self, column: Value, more: Value) -> Value:
        """Whether the sums of a panel are the output and whole rows of it: no tile in between."""
        f, frame, parts = self.f, self.frame, self.parts
        if parts.sweep_out is None:
            return f.const(False, dt.bool_)
        width = parts.tile.width
        whole = frame.whole(parts.addresses, N, self.n + column, self.columns - column, width)
        return self.summing & self.finishing & ~more & whole

    def _out(self, column: Value) -> Value:
        """Where the only output's columns begin in each of its rows."""
        f, frame, parts = self.f, self.frame, self.parts
        if parts.sweep_out is None:
            return f.index(0)
        return parts.addresses.offset(f, frame.params, parts.layout.ends[0], N, self.n + column)

    def _sum(
        self, given: tuple[Any, ...], tiles: Any, before: tuple[Any, Value], straight: Value,
        out: tuple[Any, Value],
    ) -> None:  # fmt: skip
        """Rows of A against a panel of B, on top of what was summed before."""
        f, parts = self.f, self.parts
        if parts.sweep_out is None:
            call(f, parts.sweep, *given, tiles, *before)
            return
        with f.choose(straight) as (to_output, to_tiles):
            with to_output:
                call(f, parts.sweep_out, *given, out[0], *before, out[1])
            with to_tiles:
                call(f, parts.sweep, *given, tiles, *before)

    def _combine(self, source: Any, to: Any, rows: Value) -> None:
        """Sums the slices of some rows, in the order of k."""
        f, tile = self.f, self.parts.tile
        dtype = self.parts.contraction.accumulator
        vector = tile.lanes * tile.itemsize
        kind = llvm_type(dtype, tile.lanes)

        def load(at: Value) -> Value:
            return f.value(f.builder.load(f.at(source, at), typ=kind, align=tile.itemsize), dtype)

        with f.loop(0, rows * self.parts.row_bytes, vector) as at:
            total = f.cell(load(at))
            with f.loop(1, self.frame.number("slices")) as piece:
                total.set(total.get() + load(at + piece * self.frame.number("slice_bytes")))
            f.builder.store(total.get().raw, f.at(to, at), align=tile.itemsize)
