"""The kernel of a convolution by transformed tiles: 16 small contractions, all within the caches.

Each task takes a block of tiles (or of a filter's gradient), transforms what it reads into its
scratch memory, multiplies plane by plane with the micro-kernel of every contraction, and
transforms the sums back in front of the epilogue. Only the filters of a convolution, which all
blocks need, are transformed once, by a launch before.
"""

from __future__ import annotations

from typing import Any, Final

from treadle.codegen.contract.address import Addresses
from treadle.codegen.contract.finish import RenderValue, render_finish
from treadle.codegen.contract.flow import WORD, call, entry, function
from treadle.codegen.contract.layout import COMBINE, PACK, PARTIAL, WHOLE, A, B, K, Layout, M, N
from treadle.codegen.contract.micro import share_sweep
from treadle.codegen.contract.parts import Frame
from treadle.codegen.contract.tile import Tile, choose
from treadle.codegen.contract.transform import (
    PIXELS,
    PLANES,
    SIDE,
    TAPS,
    Planes,
    share_collect,
    share_filters,
    share_pixels,
    share_spread,
)
from treadle.codegen.contract.winograd_plan import CHUNK, NAMES
from treadle.codegen.target import Target
from treadle.codegen.value import Value
from treadle.ir.contraction import Contraction

_ORIGIN: Final = 3
"""The dimensions that tell a tile: image, y, x; its pixels follow."""


class _Parts:
    """The helper functions of one kernel, made in its module."""

    def __init__(
        self, module: Any, c: Contraction, target: Target, symbol: str, render_value: RenderValue
    ) -> None:
        self.module = module
        self.contraction = c
        self.target = target
        self.symbol = symbol
        self.data = c.winograd != "filter"
        self.dilated = c.winograd == "dilated"
        self.tile: Tile = choose(target, c.accumulator)
        self.row_bytes = self.tile.width * self.tile.itemsize
        self.layout = Layout(c, NAMES)
        self.addresses = Addresses(module, target, self.layout)
        given = (module, target, self.tile, c.accumulator)
        self.sweep = share_sweep(*given)
        self.image = share_spread(*given, "dilated" if self.dilated else "image")
        if self.data:
            self.filters = share_filters(*given, c.b.unit == "n")
            self.pixels = share_pixels(module, target)
        else:
            self.gradient = share_spread(*given, "pixels")
        back = {"data": "pixels"}.get(c.winograd, c.winograd)
        self.collect = share_collect(*given, back)
        self.finish = render_finish(
            module, target, f"{symbol}.finish", self.tile, self.addresses, render_value
        )


def render_winograd(
    module: Any, c: Contraction, target: Target, symbol: str, render_value: RenderValue
) -> Any:
    """Adds the kernel to a module: see `render_contraction`."""
    parts = _Parts(module, c, target, symbol, render_value)
    tasks = {WHOLE: _render_task(parts, "block", _block)}
    if parts.data:
        tasks[PACK] = _render_task(parts, "pack", _pack)
    else:
        tasks[PARTIAL] = tasks[WHOLE]
        tasks[COMBINE] = _render_task(parts, "combine", _combine)
    kernel, f, (slots, params, scratch, begin, end) = entry(module, target, symbol)
    frame = Frame(f, parts.layout, slots, params, scratch)
    _prepare(frame, parts)
    for phase, task_function in tasks.items():
        mine = frame.number("phase").equals(phase)
        with f.when(mine), f.loop(begin, end) as task:
            call(f, task_function, slots, params, scratch, task)
    f.builder.ret(f.index(0).raw)
    return kernel


def _render_task(parts: _Parts, name: str, emit: Any) -> Any:
    """`task(slots, params, scratch, number)`."""
    made, f, args = function(parts.module, parts.target, f"{parts.symbol}.{name}", "pppi")
    emit(Frame(f, parts.layout, *args[:3]), parts, args[3])
    f.builder.ret_void()
    return made


def _prepare(frame: Frame, parts: _Parts) -> None:
    """What all tasks of a call share: a tile of zeros, and where the transformed A will be."""
    f, tile, number = frame.f, parts.tile, frame.number
    planes = Planes(f, tile, parts.contraction.accumulator)
    nothing = f.const(0, parts.contraction.accumulator, tile.lanes)
    with f.loop(0, f.index(tile.rows * parts.row_bytes), planes.vector) as at:
        planes.store(nothing, f.at(frame.place("zeros"), at))
    series = parts.addresses.series
    call(f, series, frame.place("steps"), number("k_block"), f.index(0), number("a_step"))
    start = f.address(frame.place("a"))
    with f.loop(0, f.index(PLANES)) as plane:
        at = f.at(frame.place("rows"), plane * number("rows_size"))
        first = start + plane * number("a_plane")
        call(f, series, at, number("m_rows"), first, number("a_row"))


def _strides(frame: Frame, parts: _Parts, operand: int, kind: int) -> tuple[Value, Value]:
    """The bytes from one pixel of a tile to the next: the last two strides along m or k."""
    last = parts.layout.strides(operand, kind) + parts.contraction.dims[kind] - 1
    size = parts.layout.dtypes[operand].itemsize
    y, x = (frame.f.word(frame.params, word) * size for word in (last - 1, last))
    return y, x


def _pack(frame: Frame, parts: _Parts, task: Value) -> None:
    """A chunk of the channels of a panel of filters, transformed into the workspace."""
    f, number, layout = frame.f, frame.number, parts.layout
    panel, chunk = f.rem(task, number("panels")), f.div(task, number("panels"))
    first = chunk * number("chunk")
    count = f.least(number("k") - first, number("chunk"))
    size = parts.tile.itemsize
    word = layout.strides(B, K)
    y, x, channel = (f.word(frame.params, word + d) * size for d in range(3))
    each = parts.addresses.last_stride(f, frame.params, B, N)
    source = f.at(f.at(frame.buffer(B), panel * parts.tile.width * each), first * channel)
    to = f.at(frame.workspace, panel * number("b_panel") + first * parts.row_bytes)
    call(f, parts.filters, source, channel, each, y, x, count, to, number("b_plane"))


def _block(frame: Frame, parts: _Parts, task: Value) -> None:
    _Block(frame, parts, task).emit()


class _Block:
    """Emits the work on one block of the result, or on a slice's sums of it."""

    def __init__(self, frame: Frame, parts: _Parts, task: Value) -> None:
        self.frame = frame
        self.parts = parts
        self.f = f = frame.f
        number = frame.number
        self.task = task
        self.block = _Place(frame, f.rem(task, number("m_blocks") * number("n_blocks")))
        self.slice = f.div(task, number("m_blocks") * number("n_blocks"))
        self.partial = number("phase").equals(PARTIAL)
        kept = f.at(frame.workspace, number("partial") + task * number("block"))
        self.sums = f.builder.select(self.partial.raw, kept, frame.place("sums"))

    def emit(self) -> None:
        """All blocks of k in turn, then the results."""
        f, number, place = self.f, self.frame.number, self.block
        if self.parts.data:
            self._origins(A, M, place.m, place.rows)
        start = self.slice * number("slice")
        stop = f.least(number("k"), start + number("slice"))
        with f.blocks(start, stop, number("k_block")) as (k, depth, _):
            if self.parts.data:
                self._read_image(k, depth)
            else:
                self._read_both(k, depth)
            self._multiply(k, depth, k > start)
        with f.when(self.partial.equals(f.const(0, self.partial.dtype))):
            place.tables(self.parts)
            panels = f.div(place.columns, self.parts.tile.width)
            place.out(self.parts, self.sums, f.index(0), panels)

    def _origins(self, operand: int, kind: int, start: Value, count: Value) -> None:
        """A table of the first pixels of tiles."""
        frame, addresses = self.frame, self.parts.addresses
        base = self.f.address(frame.buffer(operand))
        addresses.table(
            self.f, frame.params, operand, kind, frame.place("origins"), start, count, count,
            base, _ORIGIN,
        )  # fmt: skip

    def _read_image(self, k: Value, depth: Value) -> None:
        """Channels of the block's tiles: rows of A."""
        frame, number, size = self.frame, self.frame.number, self.parts.tile.itemsize
        call(
            self.f, self.parts.image, frame.place("origins"), self.block.rows,
            *_strides(frame, self.parts, A, M), k * size, depth, frame.place("a"),
            number("a_row"), self.f.index(self.parts.row_bytes), number("a_plane"),
        )  # fmt: skip

    def _read_both(self, k: Value, depth: Value) -> None:
        """Tiles of the gradient and of the image, along k."""
        f, frame, parts = self.f, self.frame, self.parts
        number, size, place = frame.number, parts.tile.itemsize, self.block
        self._origins(A, K, k, depth)
        call(
            f, parts.gradient, frame.place("origins"), depth, *_strides(frame, parts, A, K),
            place.m * size, place.rows, frame.place("a"), number("a_step"),
            f.index(parts.row_bytes), number("a_plane"),
        )  # fmt: skip
        self._origins(B, K, k, depth)
        call(
            f, parts.image, frame.place("origins"), depth, *_strides(frame, parts, B, K),
            place.n * size, place.columns, frame.place("b"), f.index(parts.row_bytes),
            number("b_panel"), number("b_plane"),
        )  # fmt: skip

    def _multiply(self, k: Value, depth: Value, begun: Value) -> None:
        """The products of this block of k, plane by plane: panels of B against rows of A."""
        f, frame, parts = self.f, self.frame, self.parts
        number, width, place = frame.number, parts.tile.width, self.block
        if parts.data:
            first = f.div(place.n, width) * number("b_panel") + k * parts.row_bytes
            b = f.at(frame.workspace, first)
        else:
            b = frame.place("b")
        zeros = frame.place("zeros")
        sums_row = begun.where(f.index(parts.row_bytes), f.index(0))
        panels = f.div(place.columns, width)
        count = (SIDE - 1) ** 2 if parts.dilated else PLANES
        with f.loop(0, f.index(count)) as each, f.loop(0, panels) as panel:
            plane = each
            if parts.dilated:
                # The first row and column of planes are zero.
                plane = (f.div(plane, SIDE - 1) + 1) * SIDE + f.rem(plane, SIDE - 1) + 1
            at = f.at(self.sums, panel * number("sum_panel") + plane * number("sum_plane"))
            rows = f.at(frame.place("rows"), plane * number("rows_size"))
            columns = f.at(b, plane * number("b_plane") + panel * number("b_panel"))
            call(
                f, parts.sweep, rows, place.rows, frame.place("steps"), columns,
                f.index(parts.row_bytes), depth, at, f.builder.select(begun.raw, at, zeros),
                sums_row,
            )  # fmt: skip


class _Place:
    """A block of the result: where it is, and how its sums become outputs."""

    def __init__(self, frame: Frame, block: Value) -> None:
        self.frame = frame
        self.f = f = frame.f
        number = frame.number
        self.m = f.rem(block, number("m_blocks")) * number("m_block")
        self.n = f.div(block, number("m_blocks")) * number("n_block")
        self.rows = f.least(number("m") - self.m, number("m_block"))
        self.columns = f.least(number("n") - self.n, number("n_block"))

    def tables(self, parts: _Parts) -> None:
        """A pointer for each row of the extras and outputs."""
        f, frame, addresses = self.f, self.frame, parts.addresses
        for i, operand in enumerate(parts.layout.ends):
            at = f.at(frame.place("ends"), frame.number("end_size") * i)
            base = f.address(frame.buffer(operand))
            table = frame.place("origins") if parts.data else at
            addresses.table(
                f, frame.params, operand, M, table, self.m, self.rows, self.rows, base,
                _ORIGIN if parts.data else None,
            )  # fmt: skip
            if parts.data:
                call(f, parts.pixels, table, self.rows, *_strides(frame, parts, operand, M), at)

    def out(self, parts: _Parts, sums: Any, first: Value, panels: Value) -> None:
        """The sums of `panels` become outputs: all panels of some rows, then the next rows."""
        f, frame, width = self.f, self.frame, parts.tile.width
        number, row_bytes = frame.number, parts.row_bytes
        with f.loop(0, self.rows, CHUNK) as row, f.loop(0, panels) as panel:
            rows = f.least(self.rows - row, CHUNK)
            at = f.at(sums, panel * number("sum_panel") + row * row_bytes)
            tiles = frame.place("tiles")
            call(f, parts.collect, at, number("sum_plane"), rows, tiles, f.index(CHUNK * row_bytes))
            column = self.n + (first + panel) * width
            if parts.data:
                self._finish(parts, tiles, row * PIXELS, rows * PIXELS, column)
            else:
                with f.loop(0, f.index(TAPS)) as part:
                    place = f.at(tiles, part * (CHUNK * row_bytes))
                    self._finish(parts, place, row, rows, column * TAPS + part * width)

    def _finish(self, parts: _Parts, tiles: Any, row: Value, rows: Value, column: Value) -> None:
        f, frame = self.f, self.frame
        call(
            f, parts.finish, tiles, frame.params, f.at(frame.place("ends"), row * WORD),
            frame.number("end_size"), rows, column, f.index(parts.tile.width),
        )  # fmt: skip


def _combine(frame: Frame, parts: _Parts, task: Value) -> None:
    """A panel of a block: the sum of all slices, in the order of k, and its outputs."""
    f, number = frame.f, frame.number
    panels = f.div(number("n_block"), parts.tile.width)
    panel, block = f.rem(task, panels), f.div(task, panels)
    place = _Place(frame, block)
    planes = Planes(f, parts.tile, parts.contraction.accumulator)
    with f.when(panel * parts.tile.width < place.columns):
        start = number("partial") + block * number("block") + panel * number("sum_panel")
        source, to = f.at(frame.workspace, start), frame.place("sums")
        with f.loop(0, number("sum_panel"), planes.vector) as at:
            total = f.cell(planes.load(f.at(source, at)))
            with f.loop(1, number("slices")) as piece:
                offset = at + piece * number("slice_bytes")
                total.set(total.get() + planes.load(f.at(source, offset)))
            planes.store(total.get(), f.at(to, at))
        place.tables(parts)
        place.out(parts, to, panel, f.index(1))
