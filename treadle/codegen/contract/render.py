"""The kernel of a contraction: tasks, blocks and panels around the micro-kernel."""

from __future__ import annotations

from typing import Any

from treadle.codegen.contract.address import Addresses, progression
from treadle.codegen.contract.finish import RenderValue, render_finish
from treadle.codegen.contract.flow import WORD, Flow, call
from treadle.codegen.contract.layout import (
    B, COMBINE, DIRECT, K, M, N, NUMBERS, PACK, PARTIAL, SHARED, Layout,
)  # fmt: skip
from treadle.codegen.contract.micro import render_sweep
from treadle.codegen.contract.pack import render_pack
from treadle.codegen.contract.tile import Tile, choose
from treadle.codegen.expressions import render_value as render_expression
from treadle.codegen.target import Target
from treadle.codegen.value import Value, ir, llvm_type
from treadle.ir.contraction import Contraction

_A, _B = 0, 1


def render_contraction(
    module: Any,
    contraction: Contraction,
    target: Target,
    symbol: str,
    render_value: RenderValue = render_expression,
) -> Any:
    """Adds the kernel of a contraction to a module.

    module:       the `llvmlite.ir.Module`
    contraction:  the pattern; extents and strides come with each launch (see `schedule`)
    target:       what the code is for; `schedule` must be asked about the same one
    symbol:       the function's name, a prefix of its helpers' names
    render_value: makes the LLVM value of an epilogue's expression

    Returns the function, with the kernel ABI of docs/architecture.md.
    """
    return _Kernel(module, contraction, target, symbol, render_value).render()


class _Kernel:
    def __init__(
        self, module: Any, contraction: Contraction, target: Target, symbol: str,
        render_value: RenderValue,
    ) -> None:  # fmt: skip
        c = self.c = contraction
        self.layout = Layout(c)
        self.tile: Tile = choose(target, c.accumulator)
        self.addresses = Addresses(module, target, symbol, self.layout)
        tile, to = self.tile, c.accumulator
        self.sweep = render_sweep(module, target, f"{symbol}.sweep", tile, to)
        across = {"m": "across", "k": "along"}.get(c.a.unit, "")
        self.pack_a = render_pack(
            module, target, f"{symbol}.pack_a", tile, tile.rows, c.a.dtype, to, across
        )
        across = {"n": "across", "k": "along"}.get(c.b.unit, "")
        self.pack_b = render_pack(
            module, target, f"{symbol}.pack_b", tile, tile.width, c.b.dtype, to, across
        )
        self.finish = render_finish(
            module, target, f"{symbol}.finish", tile, self.addresses, render_value
        )
        word, pointer = ir.IntType(64), ir.PointerType()
        kind = ir.FunctionType(word, [pointer, pointer, pointer, word, word])
        self.function = ir.Function(module, kind, symbol)
        self.function.attributes.add("nounwind")
        self.f = Flow(ir.IRBuilder(self.function.append_basic_block("entry")), target)

    def render(self) -> Any:
        """Emits the loop over tasks."""
        f = self.f
        slots, self.params, self.scratch, begin, end = self.function.args
        self.number = {name: f.word(self.params, self.layout.number(name)) for name in NUMBERS}
        self.buffers = [self._buffer(slots, i) for i in range(self.layout.buffers)]
        self.workspace = self.buffers[-1]
        self.tabled = f.cell(f.index(-1))
        with f.when(self.number["pack_a"] > 0):
            self._packed_tables()
        packing = self.number["phase"].equals(PACK)
        with f.loop(f.index(begin), f.index(end)) as task:
            with f.choose(packing) as (pack, compute):
                with pack:
                    self._pack_task(task)
                with compute:
                    self._task(task)
        f.builder.ret(f.index(0).raw)
        return self.function

    def _buffer(self, slots: Any, i: int) -> Any:
        slot, offset = self.f.word(self.params, 2 * i), self.f.word(self.params, 2 * i + 1)
        return self.f.at(self.f.pointer(slots, slot), offset)

    def _place(self, name: str) -> Any:
        return self.f.at(self.scratch, self.number[name])

    def _address(self, pointer: Any) -> Value:
        return self.f.index(self.f.builder.ptrtoint(pointer, ir.IntType(64)))

    def _packed_tables(self) -> None:
        """Rows and steps of A once it is packed: the same for every block."""
        f, tile = self.f, self.tile
        row_bytes = tile.rows * tile.itemsize
        depth = self.number["k_block"]
        progression(f, self._place("a_steps"), depth, f.index(0), f.index(row_bytes))
        panels = self._address(self._place("a_panels"))
        with f.loop(0, self.number["m_block"], tile.rows) as row:
            start = panels + row * depth * tile.itemsize
            at = f.at(self._place("a_rows"), row * WORD)
            progression(f, at, f.index(tile.rows), start, f.index(tile.itemsize))

    def _table(
        self, operand: int, kind: int, at: Any, start: Value, count: Value, padded: Value,
        base: Value,
    ) -> None:  # fmt: skip
        self.addresses.table(self.f, self.params, operand, kind, at, start, count, padded, base)

    def _steps(self, k: Value, depth: Value) -> None:
        """Offsets of A and B along k, unless the tables hold them already."""
        f = self.f
        with f.when(self.tabled.get().compare("ne", k)):
            self._table(_A, K, self._place("steps"), k, depth, depth, f.index(0))
            self._table(_B, K, self._place("b_steps"), k, depth, depth, f.index(0))
            self.tabled.set(k)

    def _batch_base(self, operand: int, batch: Value) -> Value:
        base = self._address(self.buffers[operand])
        return base + self.addresses.offset(self.f, self.params, operand, B, batch)

    def _panel_of_b(self, to: Any, batch: Value, first: Value, k: Value, depth: Value) -> None:
        """Packs the panel of B that begins at column `first`."""
        f, width = self.f, self.tile.width
        columns = f.least(self.number["n"] - first, width)
        at = self._place("columns")
        base = self._batch_base(_B, batch)
        self._table(_B, N, at, first, columns, f.index(width), base)
        call(
            f, self.pack_b, to, at, self._place("b_steps"), depth, k,
            self.addresses.extent(f, self.params, K), self._whole(_B, N, first, columns, width),
        )  # fmt: skip

    def _whole(self, operand: int, kind: int, first: Value, count: Value, width: int) -> Value:
        """1 where `width` indices from `first` on exist and are adjacent along the last dimension."""
        f = self.f
        whole = count >= width
        if self.c.dims[kind] > 1:
            extent = self.addresses.extent(f, self.params, kind)
            whole = whole & (f.rem(first, extent) + width <= extent)
        return f.index(f.builder.zext(whole.raw, ir.IntType(64)))

    def _pack_task(self, task: Value) -> None:
        """One panel of B into the workspace; tasks count panels, then blocks of k, then batches."""
        f, tile, number = self.f, self.tile, self.number
        panels = f.div(number["n"] + (tile.width - 1), tile.width)
        rest = f.div(task, panels)
        k = f.rem(rest, number["k_blocks"]) * number["k_block"]
        depth = f.least(number["k"] - k, number["k_block"])
        self._steps(k, depth)
        to = f.at(self.workspace, task * self._panel_bytes)
        first = f.rem(task, panels) * tile.width
        self._panel_of_b(to, f.div(rest, number["k_blocks"]), first, k, depth)

    @property
    def _panel_bytes(self) -> Value:
        return self.number["k_block"] * (self.tile.width * self.tile.itemsize)

    def _task(self, task: Value) -> None:
        """One block of the result, or of a slice's sums; m runs fastest, then n, b and slices."""
        f, number = self.f, self.number
        rest = f.div(task, number["m_blocks"])
        m = f.rem(task, number["m_blocks"]) * number["m_block"]
        n = f.rem(rest, number["n_blocks"]) * number["n_block"]
        rest = f.div(rest, number["n_blocks"])
        batch, piece = f.rem(rest, number["batches"]), f.div(rest, number["batches"])
        rows = f.least(number["m"] - m, number["m_block"])
        columns = f.least(number["n"] - n, number["n_block"])
        phase = number["phase"]
        summing = phase.compare("ne", COMBINE)
        partial = f.at(self.workspace, number["partial"] + task * number["block"])
        tiles = phase.equals(PARTIAL)
        tiles_at = f.builder.select(tiles.raw, partial, self._place("tiles"))
        panel = number["panel"]
        tile_rows = self.tile.rows
        padded = f.div(rows + (tile_rows - 1), tile_rows) * tile_rows
        with f.when(summing):
            base = self._batch_base(_A, batch)
            self._table(_A, M, self._place("rows"), m, rows, padded, base)
        with f.when(phase.compare("ne", PARTIAL)):
            for i, operand in enumerate(self.layout.ends):
                at = f.at(self._place("ends"), number["end_size"] * i)
                self._table(operand, M, at, m, rows, rows, self._batch_base(operand, batch))
        start = piece * number["slice"]
        stop = summing.where(f.least(number["k"], start + number["slice"]), start)
        done = f.cell(start)
        with f.loop_while() as loop:
            k = done.get()
            depth = f.least(stop - k, number["k_block"])
            last = k + depth >= stop
            a_rows, a_steps = self._block_of_a(m, rows, k, depth, summing)
            with f.loop(0, columns, self.tile.width) as column:
                index = f.div(column, self.tile.width)
                at = f.at(tiles_at, index * panel)
                with f.choose(summing) as (compute, combine):
                    with compute:
                        b, b_row = self._choose_b(batch, n + column, k, depth)
                        accumulate = f.index(f.builder.zext((k > start).raw, ir.IntType(64)))
                        call(f, self.sweep, a_rows, rows, a_steps, b, b_row, depth, at, accumulate)
                    with combine:
                        source = f.at(partial, index * panel)
                        self._combine(source, at, rows)
                with f.when(last & phase.compare("ne", PARTIAL)):
                    width = f.least(columns - column, self.tile.width)
                    call(
                        f, self.finish, at, self.params, self._place("ends"), number["end_size"],
                        rows, n + column, width,
                    )  # fmt: skip
            done.set(k + depth)
            loop.again = k + depth < stop

    def _block_of_a(
        self, m: Value, rows: Value, k: Value, depth: Value, summing: Value
    ) -> tuple[Any, Any]:
        """The tables by which A is read, after it was packed where that is wanted."""
        f, tile = self.f, self.tile
        with f.when(summing):
            self._steps(k, depth)
        pack = self.number["pack_a"] > 0
        with f.when(pack & summing), f.loop(0, rows, tile.rows) as row:
            panel = row * self.number["k_block"] * tile.itemsize
            whole = self._whole(_A, M, m + row, rows - row, tile.rows)
            call(
                f, self.pack_a, f.at(self._place("a_panels"), panel),
                f.at(self._place("rows"), row * WORD), self._place("steps"), depth, k,
                self.addresses.extent(f, self.params, K), whole,
            )  # fmt: skip
        rows_at = f.builder.select(pack.raw, self._place("a_rows"), self._place("rows"))
        steps_at = f.builder.select(pack.raw, self._place("a_steps"), self._place("steps"))
        return rows_at, steps_at

    def _choose_b(self, batch: Value, first: Value, k: Value, depth: Value) -> tuple[Any, Value]:
        """Where the panel of B at column `first` is, and how far its rows are apart."""
        f, tile, number = self.f, self.tile, self.number
        width = tile.width * tile.itemsize
        mode = number["b_mode"]
        columns = number["n"] - first
        local = self._place("b_panel")
        whole = self._whole(_B, N, first, columns, tile.width) > 0
        direct = mode.equals(DIRECT) & whole
        panels = f.div(number["n"] + (tile.width - 1), tile.width)
        block = batch * number["k_blocks"] + f.div(k, number["k_block"])
        shared = f.at(
            self.workspace, (block * panels + f.div(first, tile.width)) * self._panel_bytes
        )
        base = self._batch_base(_B, batch)
        offset = self.addresses.offset(f, self.params, _B, N, first) + f.word(
            self._place("b_steps")
        )
        in_place = f.builder.inttoptr((base + offset).raw, ir.PointerType())
        with f.when((~direct) & mode.compare("ne", SHARED)):
            self._panel_of_b(local, batch, first, k, depth)
        chosen = f.builder.select(direct.raw, in_place, local)
        chosen = f.builder.select(mode.equals(SHARED).raw, shared, chosen)
        return chosen, direct.where(number["b_row"], f.index(width))

    def _combine(self, source: Any, to: Any, rows: Value) -> None:
        """Sums the slices of a panel, in the order of k."""
        f, tile = self.f, self.tile
        vector = tile.lanes * tile.itemsize
        kind = llvm_type(self.c.accumulator, tile.lanes)

        def load(at: Value) -> Value:
            raw = f.builder.load(f.at(source, at), typ=kind, align=tile.itemsize)
            return f.value(raw, self.c.accumulator)

        with f.loop(0, rows * (tile.width * tile.itemsize), vector) as at:
            total = f.cell(load(at))
            with f.loop(1, self.number["slices"]) as piece:
                total.set(total.get() + load(at + piece * self.number["slice_bytes"]))
            f.builder.store(total.get().raw, f.at(to, at), align=tile.itemsize)
