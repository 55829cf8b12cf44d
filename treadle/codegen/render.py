"""A kernel as an LLVM function: loop nests to basic blocks.

The function has the ABI of `docs/architecture.md`:
`i64 kernel(ptr slots, ptr params, ptr scratch, i64 begin, i64 end)`. Vector loops are written out
in lanes by `codegen/rows.py`; everything else is here.

An `in` buffer may be the same memory as an `out` buffer (an update in place) if each of its
elements is read before it is written and at the very same index; so nothing is ever promised to
LLVM about aliasing, and what does not change in a loop is moved out of it here instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import CompileError
from treadle.codegen import rows
from treadle.codegen.expressions import Expressions
from treadle.codegen.invariant import invariants
from treadle.codegen.memory import Buffer, local, stack
from treadle.codegen.operators import binary
from treadle.codegen.streaming import stream_end
from treadle.codegen.target import Target
from treadle.codegen.value import Emit, Value, ir
from treadle.ir.loop import (
    Accumulate,
    Alloc,
    Binary,
    Block,
    Const,
    Expr,
    For,
    If,
    Kernel,
    Let,
    Load,
    Prefetch,
    Stmt,
    Store,
)
from treadle.ir.walk import written


def render(module: Any, kernel: Kernel, target: Target, symbol: str) -> Any:
    """Adds `kernel` to an LLVM module as the function `symbol`, and returns it.

    Raises `CompileError` for a loop nest that has no meaning on this target.
    """
    return Renderer(module, kernel, target, symbol).run()


class Renderer:
    """What is known at one place of the function being made."""

    def __init__(self, module: Any, kernel: Kernel, target: Target, symbol: str) -> None:
        pointer, word = ir.PointerType(), ir.IntType(64)
        kind = ir.FunctionType(word, [pointer, pointer, pointer, word, word])
        self.function = ir.Function(module, kind, symbol)
        self.function.attributes.add("nounwind")
        for argument, name in zip(
            self.function.args, ("slots", "params", "scratch", "begin", "end"), strict=True
        ):
            argument.name = name
        self.kernel = kernel
        self.target = target
        # Locals live in a block of their own, in front of everything.
        self.locals = self.function.append_basic_block("locals")
        self.builder = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.emit = Emit(self.builder, target)
        self.fault = local(self.emit, self.locals, dt.int64, 1, 1)
        self.zero = self.emit.const(0, dt.int64)
        self.buffers: dict[str, Buffer] = {}
        self.scratch_used = self.zero
        self.row: rows.Row | None = None
        self.streams = False
        self.expressions = Expressions(self.emit, {}, [], self.load, self.check, self.compare)

    def run(self) -> Any:
        """Makes the whole function."""
        self._read_params()
        self.fault.store(self.emit, self.zero, self.zero)
        self.statement(self.kernel.body)
        if self.streams:
            stream_end(self.emit)
        self.builder.ret(self.fault.load(self.emit, self.zero).raw)
        ir.IRBuilder(self.locals).branch(self.function.blocks[1])
        return self.function

    def _read_params(self) -> None:
        slots, params, scratch = self.function.args[:3]
        word, pointer = ir.IntType(64), ir.PointerType()
        b = self.builder

        def param(index: int) -> Any:
            at = b.gep(params, [ir.Constant(word, index)], source_etype=word)
            return b.load(at, align=8, typ=word)

        for i, p in enumerate(self.kernel.params):
            slot, offset = param(2 * i), param(2 * i + 1)
            base = b.load(b.gep(slots, [slot], source_etype=pointer), align=8, typ=pointer)
            start = b.gep(base, [offset], source_etype=ir.IntType(8))
            self.buffers[p.name] = Buffer(start, p.dtype)
        first = 2 * len(self.kernel.params)
        self.expressions.sizes += [
            self.emit.value(param(first + i), dt.int64) for i in range(self.kernel.sizes)
        ]
        self.scratch_base = scratch

    # What expressions ask for.

    def value(self, expr: Expr) -> Value:
        """The value of an expression here."""
        return self.expressions.value(expr)

    def buffer(self, name: str) -> Buffer:
        """The buffer of this name; raises `CompileError` where there is none."""
        try:
            return self.buffers[name]
        except KeyError:
            raise CompileError(f"{self.kernel.name}: no buffer {name!r} here") from None

    def load(self, expr: Load) -> Value:
        """The element, or the row of elements, that a `Load` names."""
        buffer = self.buffer(expr.buffer)
        if self.row is not None and expr.buffer in self.row.scanned:
            return self.row.scanned[expr.buffer]
        if self.row is not None and not buffer.lanes:
            return self.row.load(self, buffer, expr)
        return buffer.load(self.emit, self.value(expr.index))

    def compare(self, expr: Binary) -> Value | None:
        """A comparison of indices in lanes, or `None` where there is no short way."""
        return None if self.row is None else self.row.compare(expr)

    def check(self, value: Value, ok: Value, code: int) -> Value:
        """Notes the fault `code` unless `ok`, and passes the value on."""
        bad = ~ok
        if self.row is not None and self.row.mask is not None and ok.lanes > 1:
            bad = bad & self.row.mask
        before = self.fault.load(self.emit, self.zero)
        failed = bad.any() & before.equals(0)
        self.fault.store(self.emit, self.zero, failed.where(code, before))
        return value

    # Statements.

    def statement(self, stmt: Stmt) -> None:
        """Makes one statement."""
        maker = _MAKERS.get(type(stmt))
        if maker is None:
            name = type(stmt).__name__
            raise CompileError(f"{self.kernel.name}: no {name} on {self.target.name}")
        maker(self, stmt)

    @contextmanager
    def region(self, changes: frozenset[str] = frozenset()) -> Iterator[None]:
        """Names, buffers and values made inside end with it; `changes` are buffers it writes."""
        self.forget(changes)
        views = [(e, dict(e.names), dict(e.made)) for e in self._views()]
        buffers, used = dict(self.buffers), self.scratch_used
        yield
        for e, names, made in views:
            e.names, e.made = names, made
        self.buffers, self.scratch_used = buffers, used

    def _views(self) -> list[Expressions]:
        return [self.expressions] if self.row is None else [self.expressions, self.row.scalar]

    def forget(self, buffers: frozenset[str]) -> None:
        """Forgets what was computed from buffers that changed."""
        for e in self._views():
            e.forget(buffers)

    def bind(self, name: str, value: Value) -> None:
        """Gives a variable its value, the same in all lanes."""
        for e in self._views():
            e.names[name] = value

    def _block(self, stmt: Block) -> None:
        with self.region():
            for inner in stmt.body:
                self.statement(inner)
        self.forget(written(stmt))

    def _let(self, stmt: Let) -> None:
        self.expressions.names[stmt.var] = self.value(stmt.value)
        if self.row is not None:
            self.row.let(self, stmt)

    def _alloc(self, stmt: Alloc) -> None:
        if stmt.space == "scratch":
            self.buffers[stmt.name] = self._scratch(stmt)
            return
        if not isinstance(stmt.size, Const):
            raise CompileError(f"{self.kernel.name}: {stmt.name!r} needs a constant size")
        size = int(stmt.size.value)
        lanes = self.row.lanes if self.row is not None else 1
        if stmt.space == "register" or self.row is not None:
            self.buffers[stmt.name] = local(self.emit, self.locals, stmt.dtype, size, lanes)
        else:
            self.buffers[stmt.name] = stack(self.emit, self.locals, stmt.dtype, size)

    def _scratch(self, stmt: Alloc) -> Buffer:
        start = self.builder.gep(
            self.scratch_base, [self.scratch_used.raw], source_etype=ir.IntType(8)
        )
        size = self.value(stmt.size) * stmt.dtype.itemsize
        self.scratch_used = self.scratch_used + ((size + 63) & -64)
        return Buffer(start, stmt.dtype)

    def _store(self, stmt: Store) -> None:
        buffer = self.buffer(stmt.buffer)
        value = self.value(stmt.value)
        if self.row is not None and not buffer.lanes:
            self.row.store(self, buffer, stmt, value)
        else:
            buffer.store(self.emit, self.value(stmt.index), value)
        self.forget(frozenset((stmt.buffer,)))

    def _prefetch(self, stmt: Prefetch) -> None:
        buffer = self.buffer(stmt.buffer)
        if self.row is None:
            buffer.prefetch(self.emit, self.value(stmt.index), 1)
        else:
            self.row.prefetch(self, buffer, stmt.index)

    def _accumulate(self, stmt: Accumulate) -> None:
        buffer = self.buffer(stmt.buffer)
        if self.row is not None and stmt in self.row.sums:
            self.row.reduce(self, stmt)
        elif self.row is not None and stmt in self.row.scans:
            self.row.scan(self, buffer, stmt)
        elif self.row is not None and not buffer.lanes:
            self.row.accumulate(self, buffer, stmt)
        else:
            index = self.value(stmt.index)
            old = buffer.load(self.emit, index)
            buffer.store(self.emit, index, self.combined(stmt, old))
        self.forget(frozenset((stmt.buffer,)))

    def combined(self, stmt: Accumulate, old: Value) -> Value:
        """`op(old, value)`; a sum of products is one fused operation."""
        if stmt.op == "add":
            fused = self.expressions.product_sum(stmt.value, old)
            if fused is not None:
                return fused
        return binary(stmt.op, old, self.value(stmt.value))

    def _if(self, stmt: If) -> None:
        condition = self.value(stmt.condition)
        changes = written(stmt)
        with self.builder.if_else(condition.raw) as (then, otherwise):
            with then, self.region(changes):
                self.statement(stmt.then)
            with otherwise:
                if stmt.otherwise is not None:
                    with self.region(changes):
                        self.statement(stmt.otherwise)
        self.forget(changes)

    def _for(self, stmt: For) -> None:
        if stmt.kind == "unroll":
            self._unrolled(stmt)
        elif stmt.kind == "parallel":
            begin, end = (Value(self.emit, a, dt.int64) for a in self.function.args[3:])
            self.loop(stmt, begin, end)
        elif stmt.kind == "vector" and self.row is None:
            rows.vector_loop(self, stmt)
        elif stmt.kind in ("serial", "vector"):
            self.loop(stmt, self.zero, self.value(stmt.stop))
        else:
            raise CompileError(f"{self.kernel.name}: no {stmt.kind} loop on {self.target.name}")

    def _unrolled(self, stmt: For) -> None:
        if not isinstance(stmt.stop, Const):
            raise CompileError(f"{self.kernel.name}: an unrolled loop needs a constant extent")
        changes = written(stmt.body)
        for i in range(int(stmt.stop.value)):
            with self.region(changes):
                self.bind(stmt.var, self.emit.const(i, dt.int64))
                self.statement(stmt.body)
            self.forget(changes)

    def loop(self, stmt: For, start: Value, stop: Value) -> None:
        """`body` for `var` in `start .. stop-1`, one by one."""
        changes = written(stmt.body)
        with self.builder.if_then((start < stop).raw), self.region(changes):
            self.hoist(stmt)
            with self.counting(start, stop, 1) as at, self.region():
                self.bind(stmt.var, at)
                self.statement(stmt.body)
        self.forget(changes)

    def hoist(self, stmt: For) -> None:
        """Computes here, in front of a loop that will run, the loads that do not change in it."""
        for expr in invariants(stmt):
            self.value(expr)

    @contextmanager
    def counting(self, start: Value, stop: Value, step: int) -> Iterator[Value]:
        """A loop that runs at least once, its test at the bottom."""
        b = self.builder
        before, body = b.block, b.append_basic_block("loop")
        b.branch(body)
        b.position_at_end(body)
        at = b.phi(ir.IntType(64))
        at.add_incoming(start.raw, before)
        yield Value(self.emit, at, dt.int64)
        following = Value(self.emit, b.add(at, ir.Constant(at.type, step), flags=["nsw"]), dt.int64)
        at.add_incoming(following.raw, b.block)
        after = b.append_basic_block("done")
        b.cbranch((following < stop).raw, body, after)
        b.position_at_end(after)


_MAKERS: dict[type, Callable[[Renderer, Any], None]] = {
    Block: Renderer._block,
    Let: Renderer._let,
    Alloc: Renderer._alloc,
    Store: Renderer._store,
    Accumulate: Renderer._accumulate,
    Prefetch: Renderer._prefetch,
    If: Renderer._if,
    For: Renderer._for,
}
