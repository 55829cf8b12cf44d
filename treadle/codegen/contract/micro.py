"""The inner loop: a tile of sums stays in registers while k runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from treadle.base.dtype import DType
from treadle.codegen.contract.flow import Flow, function
from treadle.codegen.contract.shared import share
from treadle.codegen.contract.tile import Tile
from treadle.codegen.target import Target
from treadle.codegen.value import Value, ir, llvm_type

_SWEEP: Final = "pippiippi"
_SWEEP_OUT: Final = _SWEEP + "i"


def share_sweep(module: Any, target: Target, tile: Tile, dtype: DType) -> Any:
    """The function of `render_sweep`, compiled by itself."""
    return share(
        module, target, f"sweep {tile.name} {dtype.name}", _SWEEP,
        lambda alone, symbol: render_sweep(alone, target, symbol, tile, dtype),
    )  # fmt: skip


def share_sweep_out(module: Any, target: Target, tile: Tile, dtype: DType) -> Any:
    """The function of `render_sweep_out`, compiled by itself."""
    return share(
        module, target, f"sweep out {tile.name} {dtype.name}", _SWEEP_OUT,
        lambda alone, symbol: render_sweep_out(alone, target, symbol, tile, dtype),
    )  # fmt: skip


def render_sweep(module: Any, target: Target, name: str, tile: Tile, dtype: DType) -> Any:
    """`sweep(rows, count, steps, b, b_row, depth, tiles, sums, sums_row)`: one panel of B against
    rows of A.

        tiles[i, :] = sums[i, :] + sum over k < depth of A[rows[i] + steps[k]] * B[b + k * b_row, :]

    `rows` holds a pointer per row of A (a tile's rows past `count` must be readable), `steps` the
    byte offset of each k, which all rows share. Adding the two costs nothing: the processor's
    addressing does it, and no index is ever decomposed here. `tiles` is a matrix of `tile.width`
    columns; so is `sums`, or one tile of zeros for all rows (`sums_row` is then 0 bytes). Each
    element is one chain of multiply-adds in the order of k, however k is blocked.
    """
    made, f, args = function(module, target, name, _SWEEP)
    tiles = args[6]

    def places(start: Value, height: int) -> list[Any]:
        at = f.at(tiles, start * (tile.width * tile.itemsize))
        return [f.at(at, i * tile.width * tile.itemsize) for i in range(height)]

    _sweep(f, tile, dtype, args, places)
    return made


def render_sweep_out(module: Any, target: Target, name: str, tile: Tile, dtype: DType) -> Any:
    """`sweep_out(rows, count, steps, b, b_row, depth, outs, sums, sums_row, offset)`: as `sweep`,
    but row i of the result goes `offset` bytes behind the pointer `outs[i]`.

    Pointers past `count`, up to a whole tile, must be those of the last row, as those of A are.
    """
    made, f, args = function(module, target, name, _SWEEP_OUT)
    outs, offset = args[6], args[9]

    def places(start: Value, height: int) -> list[Any]:
        return [f.at(f.pointer(outs, start + i), offset) for i in range(height)]

    _sweep(f, tile, dtype, args, places)
    return made


def _sweep(
    f: Flow, tile: Tile, dtype: DType, args: list[Any],
    places: Callable[[Value, int], list[Any]],
) -> None:  # fmt: skip
    """The tiles of all rows; `places` says where the rows of a tile go."""
    rows, count, steps, b, b_row, depth, _, sums, sums_row = args[: len(_SWEEP)]

    def emit(height: int, start: Value) -> None:
        sources = [f.pointer(rows, start + i) for i in range(height)]
        before = f.at(sums, start * sums_row)
        _Tile(f, tile, dtype, height).emit(
            sources, steps, b, b_row, depth, before, places(start, height)
        )

    small, full = tile.heights[0], count
    if small < tile.rows:
        # Rows that are left over go to smaller tiles, where that is no more work; two of these may
        # take the rows of the last full tile as well.
        rest = f.rem(count, tile.rows)
        shared = (rest > 0) & (rest + tile.rows <= 2 * small) & (count > rest)
        cut = count - rest - shared.where(f.index(tile.rows), f.index(0))
        full = (rest > small).where(count, cut)
        with f.loop(full, count, small) as start:
            emit(small, start)
    with f.loop(0, full, tile.rows) as start:
        emit(tile.rows, start)
    f.builder.ret_void()


class _Tile:
    """Emits the loop over k for one tile of `height` rows."""

    def __init__(self, f: Flow, tile: Tile, dtype: DType, height: int) -> None:
        self.f = f
        self.tile = tile
        self.dtype = dtype
        self.height = height
        self.type = llvm_type(dtype, tile.lanes)

    def emit(
        self, rows: list[Any], steps: Any, b: Any, b_row: Value, depth: Value, sums: Any,
        to: list[Any],
    ) -> None:  # fmt: skip
        """The sums of before, the loop, and the sums stored, each row where `to` says."""
        f, builder = self.f, self.f.builder
        vector = self.tile.lanes * self.tile.itemsize
        places = [i * vector for i in range(self.height * self.tile.vectors)]
        started = [builder.load(f.at(sums, i), typ=self.type, align=vector) for i in places]
        before = builder.block
        head, body, done = (builder.append_basic_block(n) for n in ("depth", "step", "summed"))
        builder.branch(head)

        builder.position_at_end(head)
        k, b_at = builder.phi(ir.IntType(64)), builder.phi(ir.PointerType())
        totals = [builder.phi(self.type) for _ in places]
        builder.cbranch((f.index(k) < depth).raw, body, done)

        builder.position_at_end(body)
        added = self._step(rows, f.word(steps, f.index(k)), b_at, totals)
        following = [(f.index(k) + 1).raw, f.at(b_at, b_row), *added]
        builder.branch(head)
        entering = [f.index(0).raw, b, *started]
        for phi, first, next_ in zip([k, b_at, *totals], entering, following, strict=True):
            phi.add_incoming(first, before)
            phi.add_incoming(next_, body)

        builder.position_at_end(done)
        vectors = self.tile.vectors
        for i, total in enumerate(totals):
            at = f.at(to[i // vectors], i % vectors * vector)
            builder.store(total, at, align=self.tile.itemsize)

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
