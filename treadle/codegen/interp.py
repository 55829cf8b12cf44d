"""The loop interpreter: a kernel run on NumPy buffers one element at a time.

It is the oracle of the generated code: slow, and plain enough to be read as the meaning of the
grammar in `ir/loop.py`. Every value is a NumPy scalar of its dtype, so integers wrap as they do in
machine code; float16 and bfloat16 are computed in float32 and rounded where they are stored or
cast. Sums are added up in the order of the loops, and products are rounded before they are added,
so float results agree with generated code within rounding, not bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any, Final

from treadle.base.dtype import DType
from treadle.base.errors import CompileError
from treadle.base.lazy import LazyModule
from treadle.codegen.interp_ops import BINARY, UNARY, carried_type, convert
from treadle.ir.contraction import Contraction
from treadle.ir.loop import (
    Accumulate,
    Alloc,
    Binary,
    Block,
    Cast,
    Const,
    Expr,
    For,
    If,
    Intrinsic,
    Kernel,
    Let,
    Load,
    Prefetch,
    Select,
    Size,
    Stmt,
    Store,
    Unary,
    Var,
)
from treadle.ir.philox import philox

_np: Any = LazyModule("numpy")


def interpret(
    kernel: Kernel,
    buffers: Sequence[Any],
    sizes: Sequence[int],
    begin: int = 0,
    end: int | None = None,
) -> int:
    """Runs a kernel; writes into its buffers and returns its fault code, or 0.

    kernel:  the loop nest
    buffers: for each parameter a flat NumPy array of its dtype
    sizes:   the launch's sizes
    begin, end: the part of the parallel loop to do (all of it by default)
    Raises `IndexError` for an index outside of its buffer, which generated code must never meet.
    """
    with _np.errstate(all="ignore"):
        return _Interpreter(kernel, buffers, sizes, begin, end).run()


class _Interpreter:
    def __init__(
        self,
        kernel: Kernel,
        buffers: Sequence[Any],
        sizes: Sequence[int],
        begin: int,
        end: int | None,
    ) -> None:
        self.kernel = kernel
        self.sizes = [_np.int64(s) for s in sizes]
        self.begin = begin
        self.end = end
        self.fault = 0
        self.names: dict[str, Any] = {}
        self.buffers: dict[str, tuple[Any, DType]] = {
            p.name: (array.reshape(-1), p.dtype)
            for p, array in zip(kernel.params, buffers, strict=True)
        }
        self.made: dict[int, Any] = {}

    def run(self) -> int:
        self.statement(self.kernel.body)
        return self.fault

    # Statements.

    def statement(self, stmt: Stmt) -> None:
        runner = _STATEMENTS.get(type(stmt))
        if runner is None:
            raise CompileError(f"the interpreter knows no {type(stmt).__name__}")
        self.made = {}
        runner(self, stmt)

    def _block(self, stmt: Block) -> None:
        names, buffers = dict(self.names), dict(self.buffers)
        for inner in stmt.body:
            self.statement(inner)
        self.names, self.buffers = names, buffers

    def _for(self, stmt: For) -> None:
        stop = int(self.value(stmt.stop))
        turns = range(stop)
        if stmt.kind == "parallel":
            turns = range(self.begin, stop if self.end is None else self.end)
        for i in turns:
            self.names[stmt.var] = _np.int64(i)
            self.statement(stmt.body)
        self.names.pop(stmt.var, None)

    def _if(self, stmt: If) -> None:
        if self.value(stmt.condition):
            self.statement(stmt.then)
        elif stmt.otherwise is not None:
            self.statement(stmt.otherwise)

    def _let(self, stmt: Let) -> None:
        self.names[stmt.var] = self.value(stmt.value)

    def _alloc(self, stmt: Alloc) -> None:
        # A register keeps the precision of computed values; memory rounds to its dtype.
        dtype = stmt.dtype if stmt.space != "register" else carried_type(stmt.dtype)
        array = _np.full(int(self.value(stmt.size)), 111, dtype=dtype.numpy)
        self.buffers[stmt.name] = (array, dtype)

    def _store(self, stmt: Store) -> None:
        self.put(stmt.buffer, self.value(stmt.index), self.value(stmt.value))

    def _prefetch(self, stmt: Prefetch) -> None:
        """Nothing that shows."""

    def _accumulate(self, stmt: Accumulate) -> None:
        index = self.value(stmt.index)
        old = self.get(stmt.buffer, index)
        self.put(stmt.buffer, index, BINARY[stmt.op](old, self.value(stmt.value)))

    # Buffers.

    def get(self, name: str, index: Any) -> Any:
        array, dtype = self.buffers[name]
        self._inside(name, array, index)
        return convert(array[index], carried_type(dtype))

    def put(self, name: str, index: Any, value: Any) -> None:
        array, dtype = self.buffers[name]
        self._inside(name, array, index)
        array[index] = convert(value, dtype)

    def _inside(self, name: str, array: Any, index: Any) -> None:
        if not 0 <= index < array.size:
            raise IndexError(
                f"kernel {self.kernel.name}: index {index} of {name!r}, which has {array.size} "
                "elements"
            )

    # Expressions.

    def value(self, expr: Expr) -> Any:
        """The value of an expression, each shared part computed once a statement."""
        found = self.made.get(id(expr))
        if found is None:
            found = self.made[id(expr)] = _EXPRESSIONS[type(expr)](self, expr)
        return found

    def _var(self, expr: Var) -> Any:
        return self.names[expr.name]

    def _const(self, expr: Const) -> Any:
        return convert(_np.asarray(expr.value)[()], carried_type(expr.dtype))

    def _size(self, expr: Size) -> Any:
        return self.sizes[expr.index]

    def _load(self, expr: Load) -> Any:
        return self.get(expr.buffer, self.value(expr.index))

    def _unary(self, expr: Unary) -> Any:
        return UNARY[expr.op](self.value(expr.x))

    def _binary(self, expr: Binary) -> Any:
        return BINARY[expr.op](self.value(expr.a), self.value(expr.b))

    def _select(self, expr: Select) -> Any:
        a, b = self.value(expr.a), self.value(expr.b)
        return a if self.value(expr.condition) else b

    def _cast(self, expr: Cast) -> Any:
        return convert(convert(self.value(expr.x), expr.dtype), carried_type(expr.dtype))

    def _intrinsic(self, expr: Intrinsic) -> Any:
        values = [self.value(a) for a in expr.args]
        if expr.name == "philox":
            return philox(values[0], values[1])[()]
        if expr.name == "check":
            if not values[1] and not self.fault:
                self.fault = int(values[2])
            return values[0]
        stored = convert(values[0], expr.args[0].dtype)
        return convert(stored.view(expr.dtype.numpy), carried_type(expr.dtype))


def interpret_contraction(
    contraction: Contraction, buffers: Sequence[Any], sizes: Sequence[int]
) -> None:
    """Runs a contraction: a sum over strided elements, then the epilogue, element by element.

    buffers: flat NumPy arrays for A, B, the extras and the outputs
    sizes:   the extents and strides, as `Contraction` lists them
    """
    c = contraction
    rank = sum(c.dims)
    extents = list(sizes[:rank])
    strides = [
        sizes[rank * (i + 1) : rank * (i + 2)] for i in range(2 + len(c.extras) + len(c.out))
    ]
    outer = rank - c.dims[3]
    accumulate = carried_type(c.accumulator)
    reader = _Epilogue()
    with _np.errstate(all="ignore"):
        for at in product(*map(range, extents[:outer])):
            total = convert(_np.int64(0), accumulate)
            for k in product(*map(range, extents[outer:])):
                a = buffers[0][_place((*at, *k), strides[0])]
                b = buffers[1][_place((*at, *k), strides[1])]
                total = total + convert(a, accumulate) * convert(b, accumulate)
            here = (*at, *[0] * c.dims[3])
            names = {"acc": total}
            for i, extra in enumerate(c.extras):
                element = buffers[2 + i][_place(here, strides[2 + i])]
                names[f"e{i}"] = convert(element, carried_type(extra.dtype))
            for i, (out, value) in enumerate(zip(c.out, c.outputs, strict=True)):
                position = 2 + len(c.extras) + i
                result = reader.evaluate(value, names)
                buffers[position][_place(here, strides[position])] = convert(result, out.dtype)


class _Epilogue(_Interpreter):
    """Expressions over names alone."""

    def __init__(self) -> None:
        super().__init__(Kernel("epilogue", (), 0, Block(())), (), (), 0, None)

    def evaluate(self, expr: Expr, names: Mapping[str, Any]) -> Any:
        self.names, self.made = dict(names), {}
        return self.value(expr)


def _place(index: Sequence[int], strides: Sequence[int]) -> int:
    return sum(i * s for i, s in zip(index, strides, strict=True))


_STATEMENTS: Final[dict[type, Callable[[_Interpreter, Any], None]]] = {
    Block: _Interpreter._block,
    For: _Interpreter._for,
    If: _Interpreter._if,
    Let: _Interpreter._let,
    Alloc: _Interpreter._alloc,
    Store: _Interpreter._store,
    Accumulate: _Interpreter._accumulate,
    Prefetch: _Interpreter._prefetch,
}
_EXPRESSIONS: Final[dict[type, Callable[[_Interpreter, Any], Any]]] = {
    Var: _Interpreter._var,
    Const: _Interpreter._const,
    Size: _Interpreter._size,
    Load: _Interpreter._load,
    Unary: _Interpreter._unary,
    Binary: _Interpreter._binary,
    Select: _Interpreter._select,
    Cast: _Interpreter._cast,
    Intrinsic: _Interpreter._intrinsic,
}
