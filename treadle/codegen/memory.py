"""Buffers of a kernel: elements and rows of lanes loaded from and stored to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from treadle.base.dtype import DType
from treadle.codegen.convert import from_memory, memory_type, to_memory
from treadle.codegen.value import Emit, Value, carried, ir, literal, llvm_type, mangled

LINE: Final = 64
"""Bytes of a line of memory."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """Elements at `pointer`.

    `lanes` is 0 for elements in memory, stored as `dtype` is; otherwise the elements are local,
    each one `lanes` computed values (1: a register), and LLVM keeps them out of memory.
    """

    pointer: Any
    dtype: DType
    lanes: int = 0

    def address(self, emit: Emit, index: Value) -> Any:
        """The address of the element at an index."""
        if self.lanes:
            element = llvm_type(carried(self.dtype), self.lanes)
        else:
            element = memory_type(self.dtype)
        return emit.builder.gep(self.pointer, [index.raw], source_etype=element)

    def load(self, emit: Emit, index: Value) -> Value:
        """One element; of a local buffer, all its lanes."""
        if self.lanes:
            kind = llvm_type(carried(self.dtype), self.lanes)
            return emit.value(emit.builder.load(self._slot(emit, index), typ=kind), self.dtype)
        return self.load_row(emit, index, 1)

    def store(self, emit: Emit, index: Value, value: Value) -> None:
        """Writes one element; of a local buffer, all its lanes."""
        if self.lanes:
            emit.builder.store(value.spread(self.lanes).raw, self._slot(emit, index))
        else:
            self.store_row(emit, index, value)

    def load_row(self, emit: Emit, index: Value, lanes: int, mask: Value | None = None) -> Value:
        """Neighbouring elements as lanes; 0 where the mask is off."""
        kind = memory_type(self.dtype, lanes)
        address = self.address(emit, index)
        if mask is None:
            raw = emit.builder.load(address, align=self.dtype.itemsize, typ=kind)
        else:
            raw = emit.call(
                f"llvm.masked.load.{mangled(kind)}.p0",
                kind,
                address,
                _alignment(self.dtype),
                mask.raw,
                literal(kind, "zeroinitializer"),
            )
        return from_memory(emit, raw, self.dtype)

    def store_row(self, emit: Emit, index: Value, value: Value, mask: Value | None = None) -> None:
        """Lanes as neighbouring elements; nothing is written where the mask is off."""
        raw = to_memory(value, self.dtype)
        address = self.address(emit, index)
        if mask is None:
            emit.builder.store(raw, address, align=self.dtype.itemsize)
        else:
            emit.call(
                f"llvm.masked.store.{mangled(raw.type)}.p0",
                ir.VoidType(),
                raw,
                address,
                _alignment(self.dtype),
                mask.raw,
            )

    def stream_row(self, emit: Emit, index: Value, value: Value, align: int) -> None:
        """Lanes past the caches to neighbouring elements, at a multiple of `align` bytes."""
        raw = to_memory(value, self.dtype)
        store = emit.builder.store(raw, self.address(emit, index), align=align)
        one = ir.Constant(ir.IntType(32), 1)
        store.set_metadata("nontemporal", emit.module.add_metadata([one]))

    def prefetch(self, emit: Emit, index: Value, lanes: int) -> None:
        """Asks for neighbouring elements, a line of memory at a time."""
        word = ir.IntType(32)
        # Read, into all caches, data.
        how = [ir.Constant(word, n) for n in (0, 3, 1)]
        address = self.address(emit, index)
        for start in range(0, lanes * self.dtype.itemsize, LINE):
            at = emit.builder.gep(
                address, [ir.Constant(ir.IntType(64), start)], source_etype=ir.IntType(8)
            )
            emit.call("llvm.prefetch.p0", ir.VoidType(), at, *how)

    def gather(self, emit: Emit, indices: list[Value]) -> Value:
        """One element per lane, each from its own index."""
        kind = memory_type(self.dtype)
        align = self.dtype.itemsize
        loaded = [emit.builder.load(self.address(emit, i), align=align, typ=kind) for i in indices]
        row = literal(memory_type(self.dtype, len(indices)), "poison")
        for i, raw in enumerate(loaded):
            row = emit.builder.insert_element(row, raw, ir.Constant(ir.IntType(32), i))
        return from_memory(emit, row, self.dtype)

    def scatter(self, emit: Emit, indices: list[Value], value: Value) -> None:
        """Writes lane after lane, so that of two lanes with one index the later stays."""
        value = value.spread(len(indices))
        for i, index in enumerate(indices):
            self.store_row(emit, index, value.lane(i))

    def _slot(self, emit: Emit, index: Value) -> Any:
        # Element 0 needs no arithmetic on its address.
        return self.pointer if index.known == 0 else self.address(emit, index)


def local(emit: Emit, entry: Any, dtype: DType, size: int, lanes: int) -> Buffer:
    """A local buffer of `size` elements of `lanes` lanes, made once in the entry block."""
    kind = llvm_type(carried(dtype), lanes)
    with emit.builder.goto_block(entry):
        pointer = emit.builder.alloca(kind, size=size if size != 1 else None)
    return Buffer(_opaque(pointer), dtype, lanes)


def stack(emit: Emit, entry: Any, dtype: DType, size: int) -> Buffer:
    """A small array in memory, made once in the entry block."""
    with emit.builder.goto_block(entry):
        pointer = emit.builder.alloca(memory_type(dtype), size=size)
        pointer.align = 64
    return Buffer(_opaque(pointer), dtype)


def _opaque(pointer: Any) -> Any:
    pointer.type = ir.PointerType()
    return pointer


def _alignment(dtype: DType) -> Any:
    return ir.Constant(ir.IntType(32), dtype.itemsize)
