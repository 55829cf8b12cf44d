"""Random loop nests whose results are exact: what generated code is compared on."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from treadle.base import dtype as dt
from treadle.base.dtype import DType
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
    Param,
    Prefetch,
    Select,
    Size,
    Stmt,
    Store,
    Unary,
    Var,
)
from treadle.ir.show import show

DTYPES = (
    dt.float32, dt.float64, dt.float16, dt.bfloat16, dt.int64, dt.int32, dt.int16, dt.int8,
    dt.uint8, dt.bool_,
)  # fmt: skip
ROWS, COLUMNS = Size(0), Size(1)


class Case:
    """A kernel with arrays and sizes to run it on."""

    def __init__(self, kernel: Kernel, arrays: list[np.ndarray], sizes: list[int]) -> None:
        self.kernel = kernel
        self.arrays = arrays
        self.sizes = sizes

    def __repr__(self) -> str:
        return f"{show(self.kernel)}sizes {self.sizes}"


def add(a: Expr, b: Expr) -> Expr:
    return Binary("add", a, b)


def mul(a: Expr, b: Expr) -> Expr:
    return Binary("mul", a, b)


class _Maker:
    """Draws one kernel: a parallel loop over rows with vector loops over columns inside."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.inputs = [draw(st.sampled_from(DTYPES)) for _ in range(draw(st.integers(1, 3)))]
        self.outputs: list[DType] = []
        self.lets: list[Var] = []
        self.count = 0

    def pick(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def name(self, prefix: str) -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def index(self, v: Expr) -> Expr:
        """An index within rows * columns elements that moves with `v` in one of many ways."""
        base = mul(Var("t"), COLUMNS)
        last = Binary("sub", COLUMNS, Const(1))
        inside = self.pick("row", "row", "row", "back", "fixed", "column", "wild", "half", "gather")
        if inside == "back":
            return add(base, Binary("sub", last, v))
        if inside == "fixed":
            return base
        if inside == "column":
            return add(mul(v, ROWS), Var("t"))
        if inside == "wild":
            return add(base, Binary("mod", mul(v, Const(7)), COLUMNS))
        if inside == "half":
            return add(base, Binary("floordiv", v, Const(2)))
        if inside == "gather":
            found = Load("where", add(base, v), dt.int64)
            good = Binary("lt", found, mul(ROWS, COLUMNS))
            return Intrinsic("check", (found, good, Const(3)), dt.int64)
        return add(base, v)

    def leaf(self, dtype: DType, v: Expr) -> Expr:
        usable = [i for i, d in enumerate(self.inputs) if d is dtype]
        named = [e for e in self.lets if e.dtype is dtype]
        if named and self.pick(True, False):
            return self.pick(*named)
        if usable and self.pick(True, True, False):
            return Load(f"x{self.pick(*usable)}", self.index(v), dtype)
        if usable or self.pick(True, False):
            return Const(self.pick(0, 1, 3) if dtype is not dt.bool_ else True, dtype)
        i = self.pick(*range(len(self.inputs)))
        return Cast(Load(f"x{i}", self.index(v), self.inputs[i]), dtype)

    def value(self, dtype: DType, v: Expr, depth: int = 3) -> Expr:
        if depth == 0 or self.pick(True, False, False):
            return self.leaf(dtype, v)
        a, b = self.value(dtype, v, depth - 1), self.value(dtype, v, depth - 1)
        if dtype is dt.bool_:
            kind = self.pick(*DTYPES)
            x, y = self.value(kind, v, depth - 1), self.value(kind, v, depth - 1)
            compared = Binary(self.pick("lt", "le", "gt", "ge", "eq", "ne"), x, y)
            return self.pick(
                compared, compared, Binary(self.pick("and", "or", "xor"), a, b), Unary("not", a)
            )
        if self.pick(True, False, False, False):
            return Select(self.value(dt.bool_, v, depth - 1), a, b)
        if dtype.kind == "f":
            return self.bounded(self.floating(a, b), dtype)
        op = self.pick(
            "add", "sub", "mul", "max", "min", "floordiv", "mod", "div", "rem", "and", "or", "xor",
            "shl", "shr", "pow",
        )  # fmt: skip
        return Binary(op, a, b)

    def floating(self, a: Expr, b: Expr) -> Expr:
        op = self.pick("add", "sub", "mul", "max", "min", "madd", "neg", "abs", "sign", "floor")
        if op in ("neg", "abs", "sign", "floor"):
            return Unary(op, a)
        return add(mul(a, b), a) if op == "madd" else Binary(op, a, b)

    def bounded(self, x: Expr, dtype: DType) -> Expr:
        """Small whole numbers: sums and products of them are exact in every float type."""
        return Binary("max", Binary("min", x, Const(64, dtype)), Const(-64, dtype))

    def output(self, dtype: DType) -> str:
        self.outputs.append(dtype)
        return f"y{len(self.outputs) - 1}"

    def elementwise(self) -> list[Stmt]:
        """One vector loop that stores, perhaps by way of a named value or a small inner loop."""
        v, body = Var(self.name("i")), []
        dtype = self.pick(*DTYPES)
        if self.pick(True, False):
            let = Let(self.name("a"), self.value(self.pick(*DTYPES), v))
            body.append(let)
            self.lets.append(Var(let.var, let.value.dtype))
        value = self.value(dtype, v)
        if dtype.kind in "fi" and self.pick(True, False, False):
            register, turn = self.name("r"), Var(self.name("u"))
            term = Select(Binary("lt", turn, v), value, Const(1, dtype))
            kind = self.pick("unroll", "serial")
            body += [
                Alloc(register, dtype, Const(1)),
                Store(register, Const(0), Const(0, dtype)),
                For(turn.name, Const(3), Accumulate(register, Const(0), "add", term), kind),
            ]
            value = Load(register, Const(0), dtype)
        base = mul(Var("t"), COLUMNS)
        place = self.pick(
            add(base, v),
            add(base, v),
            add(base, Binary("sub", Binary("sub", COLUMNS, Const(1)), v)),
            add(mul(v, ROWS), Var("t")),
        )
        if self.pick(True, False, False):
            body.append(Prefetch(f"x{self.pick(*range(len(self.inputs)))}", add(base, add(v, v))))
        body.append(Store(self.output(dtype), place, value, self.pick(True, False)))
        self.lets = []
        loop: Stmt = For(v.name, COLUMNS, Block(tuple(body)), "vector")
        if self.pick(True, False, False, False):
            loop = If(Binary("gt", COLUMNS, Const(self.pick(0, 20))), loop)
        return [loop]

    def reduction(self) -> list[Stmt]:
        """A row's sum, greatest or least value, stored for the row."""
        v, register = Var(self.name("i")), self.name("s")
        dtype = self.pick(*DTYPES)
        ops = ("and", "or") if dtype is dt.bool_ else ("add", "max", "min")
        op = self.pick(*ops)
        return [
            Alloc(register, dtype, Const(1)),
            Store(register, Const(0), Const(op == "and", dtype)),
            For(
                v.name, COLUMNS, Accumulate(register, Const(0), op, self.value(dtype, v)), "vector"
            ),
            Store(self.output(dtype), Var("t"), Load(register, Const(0), dtype)),
        ]

    def staged(self) -> list[Stmt]:
        """A row computed into local memory, then used in another loop."""
        i, j, row = Var(self.name("i")), Var(self.name("j")), self.name("m")
        dtype = self.pick(*DTYPES)
        stack = self.pick(True, False)
        size = Const(128) if stack else COLUMNS
        return [
            Alloc(row, dtype, size, "stack" if stack else "scratch"),
            For(i.name, COLUMNS, Store(row, i, self.value(dtype, i)), "vector"),
            For(
                j.name,
                COLUMNS,
                Store(self.output(dtype), add(mul(Var("t"), COLUMNS), j), Load(row, j, dtype)),
                "vector",
            ),
        ]

    def kernel(self) -> Case:
        parts = self.draw(st.lists(st.sampled_from("eers"), min_size=1, max_size=3))
        body: list[Stmt] = []
        for part in parts:
            make = {"e": self.elementwise, "r": self.reduction, "s": self.staged}[part]
            body += make()
        rows, columns = self.draw(st.integers(1, 4)), self.draw(st.integers(1, 75))
        rng = np.random.default_rng(self.draw(st.integers(0, 2**32)))
        count = rows * columns
        arrays = [_filled(rng, d, count) for d in self.inputs]
        where = rng.integers(0, count + (rng.random() < 0.1), count)
        # A faulty index is reported, and reads something that exists.
        arrays = [np.concatenate([a, a[:1]]) for a in arrays]
        out = [np.zeros(count, dtype=d.numpy) for d in self.outputs]
        params = (
            *(Param(f"x{i}", d) for i, d in enumerate(self.inputs)),
            Param("where", dt.int64),
            *(Param(f"y{i}", d, "out") for i, d in enumerate(self.outputs)),
        )
        loop = For("t", ROWS, Block(tuple(body)), "parallel")
        return Case(Kernel("random", params, 2, loop), [*arrays, where, *out], [rows, columns])


def _filled(rng: np.random.Generator, dtype: DType, count: int) -> np.ndarray:
    if dtype is dt.bool_:
        return rng.integers(0, 2, count).astype(bool)
    low = 0 if dtype.kind == "u" else -8
    return rng.integers(low, 9, count).astype(dtype.numpy)


@st.composite
def nests(draw: Any) -> Case:
    """A random kernel with something to run it on."""
    return _Maker(draw).kernel()
