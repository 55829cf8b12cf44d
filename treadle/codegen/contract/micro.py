"""The inner loop: a tile of sums stays in registers while k runs."""

from __future__ import annotations

from typing import Any

from treadle.base.dtype import DType
from treadle.codegen.contract.flow import Flow, function
from treadle.codegen.contract.tile import Tile
from treadle.codegen.target import Target
from treadle.codegen.value import Value, ir, llvm_type


def render_sweep(module: Any, target: Target, name: str, tile: Tile, dtype: DType) -> Any:
    """`sweep(rows, count, steps, b, b_row, depth, tiles, accumulate)`: one panel of B against rows
    of A.

        tiles[i, :] (+)= sum over k < depth of  A[rows[i] + steps[k]] * B[b + k * b_row][:]

    `rows` holds a pointer per row of A (a tile's rows past `count` must be readable), `steps` the
    byte offset of each k, which all rows share. Adding the two costs nothing: the processor's
    addressing does it, and no index is ever decomposed here. `tiles` is a matrix of `tile.width`
    columns, each element one chain of multiply-adds in the order of k, however k is blocked.
    """
    made, f, args = function(module, target, name, "pippiipi")
    rows, count, steps, b, b_row, depth, tiles, accumulate = args
    row_bytes = tile.width * tile.itemsize

    def emit(height: int, start: Value) -> None:
        sources = [f.pointer(rows, start + i) for i in range(height)]
        at = f.at(tiles, start * row_bytes)
        _Tile(f, tile, dtype, height, at).emit(sources, steps, b, b_row, depth, accumulate)

    rest = f.rem(count, tile.rows)
    with f.loop(0, count - rest, tile.rows) as start:
        emit(tile.rows, start)
    smaller = 0
    for height in tile.heights:
        with f.when((rest > smaller) & (rest <= height)):
            emit(height, count - rest)
        smaller = height
    f.builder.ret_void()
    return made


class _Tile:
    """Emits the loop over k for one tile of `height` rows."""

    def __init__(self, f: Flow, tile: Tile, dtype: DType, height: int, at: Any) -> None:
        self.f = f
        self.tile = tile
        self.dtype = dtype
        self.height = height
        self.at = at
        self.type = llvm_type(dtype, tile.lanes)

    def emit(
        self, rows: list[Any], steps: Any, b: Any, b_row: Value, depth: Value, accumulate: Value
    ) -> None:
        """The sums of before or zeros, the loop, and the sums stored."""
        f, builder = self.f, self.f.builder
        started = self._start(accumulate)
        before = builder.block
        loop, done = (builder.append_basic_block(n) for n in ("depth", "stored"))
        builder.cbranch((depth > 0).raw, loop, done)

        builder.position_at_end(loop)
        k = self._phi(ir.IntType(64), f.index(0).raw, before)
        b_at = self._phi(ir.PointerType(), b, before)
        sums = [self._phi(self.type, raw, before) for raw in started]
        added = self._step(rows, f.word(steps, f.index(k)), b_at, sums)
        following = f.index(k) + 1
        k.add_incoming(following.raw, loop)
        b_at.add_incoming(f.at(b_at, b_row), loop)
        for phi, raw in zip(sums, added, strict=True):
            phi.add_incoming(raw, loop)
        builder.cbranch((following < depth).raw, loop, done)

        builder.position_at_end(done)
        for i, (first, last) in enumerate(zip(started, added, strict=True)):
            final = self._phi(self.type, first, before)
            final.add_incoming(last, loop)
            started[i] = final
        for i, raw in enumerate(started):
            builder.store(raw, self._place(i), align=self._align)

    def _start(self, accumulate: Value) -> list[Any]:
        builder = self.f.builder
        before = builder.block
        with self.f.when(accumulate > 0):
            loaded = [
                builder.load(self._place(i), typ=self.type, align=self._align)
                for i in range(self.height * self.tile.vectors)
            ]
            inside = builder.block
        phis = [self._phi(self.type, self.f.const(0, self.dtype, self.tile.lanes).raw, before)
                for _ in loaded]  # fmt: skip
        for phi, raw in zip(phis, loaded, strict=True):
            phi.add_incoming(raw, inside)
        return phis

    def _step(self, rows: list[Any], step: Value, b: Any, sums: list[Any]) -> list[Any]:
        """One k: `vectors` loads of B, and for each row one element of A against them."""
        f, lanes = self.f, self.tile.lanes
        vector = lanes * self.tile.itemsize
        loaded = [
            f.value(
                f.builder.load(f.at(b, v * vector), typ=self.type, align=self.tile.itemsize),
                self.dtype,
            )
            for v in range(self.tile.vectors)
        ]
        added = []
        for i, row in enumerate(rows):
            raw = f.builder.load(f.at(row, step), typ=llvm_type(self.dtype))
            spread = f.value(raw, self.dtype).spread(lanes)
            for v, column in enumerate(loaded):
                before = f.value(sums[i * self.tile.vectors + v], self.dtype)
                fused = self.dtype.kind == "f"
                total = spread.madd(column, before) if fused else spread * column + before
                added.append(total.raw)
        return added

    def _phi(self, kind: Any, value: Any, block: Any) -> Any:
        phi = self.f.builder.phi(kind)
        phi.add_incoming(value, block)
        return phi

    def _place(self, i: int) -> Any:
        return self.f.at(self.at, i * self.tile.lanes * self.tile.itemsize)

    @property
    def _align(self) -> int:
        return self.tile.lanes * self.tile.itemsize
