"""Loops, branches, cells and byte addresses: the vocabulary of the contraction's functions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from treadle.base import dtype as dt
from treadle.codegen.target import Target
from treadle.codegen.value import Emit, Value, ir, llvm_type

WORD = 8
"""Bytes of an int64 and of a pointer: all targets have 64-bit addresses."""


class Flow(Emit):
    """An `Emit` with control flow. Integers are int64 `Value`s, pointers are plain LLVM values."""

    __slots__ = ()

    def index(self, raw: Any) -> Value:
        """An int64 from a Python number or an LLVM value."""
        if isinstance(raw, Value):
            return raw
        return self.const(raw, dt.int64) if isinstance(raw, int) else Value(self, raw, dt.int64)

    def at(self, pointer: Any, offset: Value | int) -> Any:
        """The address `offset` bytes behind a pointer."""
        if isinstance(offset, int) and offset == 0:
            return pointer
        raw = self.index(offset).raw
        return self.builder.gep(pointer, [raw], source_etype=ir.IntType(8))

    def word(self, pointer: Any, index: Value | int = 0) -> Value:
        """The int64 number `index` of an array."""
        address = self.at(pointer, index * WORD)
        return self.index(self.builder.load(address, typ=ir.IntType(64)))

    def pointer(self, table: Any, index: Value | int = 0) -> Any:
        """The pointer number `index` of an array."""
        return self.builder.load(self.at(table, index * WORD), typ=ir.PointerType())

    def least(self, a: Value, b: Value | int) -> Value:
        """The smaller number."""
        return (a < b).where(a, b)

    def div(self, a: Value, b: Value | int) -> Value:
        """The quotient of two numbers that are not negative."""
        return self.index(self.builder.udiv(a.raw, self.index(b).raw))

    def rem(self, a: Value, b: Value | int) -> Value:
        """The remainder of two numbers that are not negative."""
        return self.index(self.builder.urem(a.raw, self.index(b).raw))

    def cell(self, initial: Value) -> Cell:
        """A variable; LLVM turns it into a register."""
        cell = Cell(self, self._slot(llvm_type(initial.dtype, initial.lanes)), initial)
        cell.set(initial)
        return cell

    def address(self, pointer: Any) -> Value:
        """A pointer as a number."""
        return self.index(self.builder.ptrtoint(pointer, ir.IntType(64)))

    def prefetch(self, pointer: Any) -> None:
        """Asks for a line of memory; the address need not be valid."""
        flags = [ir.Constant(ir.IntType(32), n) for n in (0, 3, 1)]
        self.call("llvm.prefetch.p0", ir.VoidType(), pointer, *flags)

    def flag(self, condition: Value) -> Value:
        """A bool as the number 0 or 1."""
        return self.index(self.builder.zext(condition.raw, ir.IntType(64)))

    def choice(self, initial: Any) -> PointerCell:
        """A variable that holds a pointer."""
        cell = PointerCell(self, self._slot(ir.PointerType()))
        cell.set(initial)
        return cell

    def _slot(self, kind: Any) -> Any:
        with self.builder.goto_entry_block():
            slot = self.builder.alloca(kind)
        slot.type = ir.PointerType()
        return slot

    @contextmanager
    def loop(self, start: Value | int, stop: Value, step: Value | int = 1) -> Iterator[Value]:
        """A loop over `start, start + step, ...` below `stop`."""
        b = self.builder
        before = b.block
        head, body, done = (b.append_basic_block(n) for n in ("head", "body", "done"))
        b.branch(head)
        b.position_at_end(head)
        phi = b.phi(ir.IntType(64))
        counter = self.index(phi)
        phi.add_incoming(self.index(start).raw, before)
        b.cbranch((counter < stop).raw, body, done)
        b.position_at_end(body)
        yield counter
        phi.add_incoming((counter + step).raw, b.block)
        b.branch(head)
        b.position_at_end(done)

    @contextmanager
    def loop_while(self) -> Iterator[While]:
        """A loop that goes on as long as the condition given to `While.until` holds."""
        b = self.builder
        body = b.append_basic_block("body")
        b.branch(body)
        b.position_at_end(body)
        state = While()
        yield state
        done = b.append_basic_block("done")
        assert state.again is not None
        b.cbranch(state.again.raw, body, done)
        b.position_at_end(done)

    @contextmanager
    def blocks(
        self, start: Value, stop: Value, block: Value
    ) -> Iterator[tuple[Value, Value, Value]]:
        """A loop over blocks of `start .. stop`: where one begins, its length, and whether another
        follows. An empty range takes one turn, with an empty block."""
        done = self.cell(start)
        with self.loop_while() as loop:
            k = done.get()
            depth = self.least(stop - k, block)
            done.set(k + depth)
            loop.again = k + depth < stop
            yield k, depth, loop.again

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Code for where a condition holds."""
        with self.builder.if_then(condition.raw):
            yield

    def choose(self, condition: Value) -> Any:
        """`with flow.choose(c) as (then, otherwise): with then: ... with otherwise: ...`"""
        return self.builder.if_else(condition.raw)


class While:
    """The end of a `loop_while`: `again` is the condition under which it repeats."""

    __slots__ = ("again",)

    def __init__(self) -> None:
        self.again: Value | None = None


class Cell:
    """A variable of the function being made."""

    __slots__ = ("_dtype", "_flow", "_slot", "_type")

    def __init__(self, flow: Flow, slot: Any, like: Value) -> None:
        self._flow = flow
        self._slot = slot
        self._dtype = like.dtype
        self._type = like.raw.type

    def get(self) -> Value:
        """The value now."""
        raw = self._flow.builder.load(self._slot, typ=self._type)
        return Value(self._flow, raw, self._dtype)

    def set(self, value: Value) -> None:
        """Changes the value."""
        self._flow.builder.store(value.raw, self._slot)


class PointerCell:
    """A variable of the function being made that holds a pointer."""

    __slots__ = ("_flow", "_slot")

    def __init__(self, flow: Flow, slot: Any) -> None:
        self._flow = flow
        self._slot = slot

    def get(self) -> Any:
        """The pointer now."""
        return self._flow.builder.load(self._slot, typ=ir.PointerType())

    def set(self, pointer: Any) -> None:
        """Changes the pointer."""
        self._flow.builder.store(pointer, self._slot)


def function(module: Any, target: Target, name: str, kinds: str) -> tuple[Any, Flow, list[Any]]:
    """A new internal function without a result.

    `kinds` has a letter per argument: `p` a pointer, `i` an int64 (given as a `Value`).
    Returns the function, a `Flow` in its first block, and its arguments.
    """
    made = ir.Function(module, function_type(kinds), name)
    made.linkage = "internal"
    made.attributes.add("nounwind")
    flow = Flow(ir.IRBuilder(made.append_basic_block("entry")), target)
    arguments = [a if k == "p" else flow.index(a) for k, a in zip(kinds, made.args, strict=True)]
    return made, flow, arguments


def function_type(kinds: str) -> Any:
    """The type of a function made by `function`."""
    types = [ir.PointerType() if kind == "p" else ir.IntType(64) for kind in kinds]
    return ir.FunctionType(ir.VoidType(), types)


def entry(module: Any, target: Target, symbol: str) -> tuple[Any, Flow, list[Any]]:
    """A new kernel with the ABI of docs/architecture.md: the function, a `Flow` in its first block,
    and `slots, params, scratch, begin, end`, the last two as numbers."""
    word, pointer = ir.IntType(64), ir.PointerType()
    kind = ir.FunctionType(word, [pointer, pointer, pointer, word, word])
    made = ir.Function(module, kind, symbol)
    made.attributes.add("nounwind")
    flow = Flow(ir.IRBuilder(made.append_basic_block("entry")), target)
    return made, flow, [*made.args[:3], *map(flow.index, made.args[3:])]


def call(flow: Flow, callee: Any, *arguments: Any) -> None:
    """Calls a function made by `function`."""
    flow.builder.call(callee, [a.raw if isinstance(a, Value) else a for a in arguments])
