"""The loop nest: one kernel as a tree of statements and expressions.

    kernel = Kernel(name, params, sizes, body)
    stmt   = Block(body) | For(var, stop, body, kind) | If(condition, then, otherwise)
           | Let(var, value) | Alloc(name, dtype, size, space) | Store(buffer, index, value)
           | Accumulate(buffer, index, op, value) | Prefetch(buffer, index) | Barrier()
           | Call(name, args)
    expr   = Var(name, dtype) | Const(value, dtype) | Size(index) | Load(buffer, index, dtype)
           | Unary(op, x) | Binary(op, a, b) | Select(condition, a, b) | Cast(x, dtype)
           | Intrinsic(name, args, dtype)

Buffers are flat: an index is one int64 expression in elements. Extents and strides are `Size`s,
read at run time, so one kernel serves every shape of its pattern; only what changes the shape of
good code (a stride of 1 on the vector loop, small windows) is a `Const`.

Names of operators:
    Unary      neg abs not sqrt rsqrt exp exp2 log log2 log1p expm1 sin cos tan tanh sigmoid erf
               erfc erfinv lgamma digamma
               floor ceil round trunc isnan isinf isfinite sign reciprocal
    Binary     add sub mul div floordiv mod rem pow max min atan2 logaddexp and or xor shl shr
               lt le gt ge eq ne    (comparisons give bool)
    Accumulate add mul max min logaddexp and or
    Intrinsic  philox(key, counter) -> uint32 · check(value, ok, code) -> value, and fault `code`
               where ok is false · bitcast(x)

`max` and `min` give NaN if either side is NaN; `round` is to even; `floordiv` and `mod` follow
Python (sign of the divisor); `rem` follows C; integers wrap, and dividing them by zero gives 0.
Casts of floats to integers that do not fit give an unspecified number. Bool is stored as one byte,
0 or 1; on it `add` is `or` and `mul` is `and`. float16 and bfloat16 are computed in float32 and
rounded where they are stored or cast; a register holds them unrounded. A sum with a product,
`a * b + c`, may be rounded once or twice. `philox` is word `counter` of the stream `key`, both
int64, as `ir/philox.py` defines it.

Expressions are graphs: a node used twice is computed once. They nest at most 100 deep; deeper ones
bind parts by `Let`.

A kernel may work in place: an `in` buffer may be the memory of an `out` buffer if each of its
elements is read before it is written, by the very same turn of the loops; an `in` buffer counts as
unchanged for the whole kernel. Nothing else may overlap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from treadle.base import dtype as dt
from treadle.base.dtype import DType

COMPARISONS = frozenset({"lt", "le", "gt", "ge", "eq", "ne"})
PREDICATES = frozenset({"isnan", "isinf", "isfinite"})


class Expr:
    """A value; `dtype` is known for every one."""

    __slots__ = ()
    dtype: Any


# Nodes are immutable by convention; `frozen=True` would triple the cost of building them.
@dataclass(slots=True, eq=False)
class Var(Expr):
    """A loop variable or a name bound by `Let`."""

    name: str
    dtype: DType = dt.int64


@dataclass(slots=True, eq=False)
class Const(Expr):
    """A number known when the kernel is made."""

    value: Any
    dtype: DType = dt.int64


@dataclass(slots=True, eq=False)
class Size(Expr):
    """The run-time integer number `index` of the launch: an extent, a stride or an offset."""

    index: int
    dtype: DType = field(default=dt.int64, init=False)


@dataclass(slots=True, eq=False)
class Load(Expr):
    """The element of a buffer at a flat index."""

    buffer: str
    index: Expr
    dtype: DType


@dataclass(slots=True, eq=False)
class Unary(Expr):
    """An operator on one value."""

    op: str
    x: Expr
    dtype: DType = field(init=False)

    def __post_init__(self) -> None:
        self.dtype = dt.bool_ if self.op in PREDICATES else self.x.dtype


@dataclass(slots=True, eq=False)
class Binary(Expr):
    """An operator on two values of one dtype."""

    op: str
    a: Expr
    b: Expr
    dtype: DType = field(init=False)

    def __post_init__(self) -> None:
        self.dtype = dt.bool_ if self.op in COMPARISONS else self.a.dtype


@dataclass(slots=True, eq=False)
class Select(Expr):
    """`a` where the condition holds, else `b`. Both are evaluated: indices must stay in bounds."""

    condition: Expr
    a: Expr
    b: Expr
    dtype: DType = field(init=False)

    def __post_init__(self) -> None:
        self.dtype = self.a.dtype


@dataclass(slots=True, eq=False)
class Cast(Expr):
    """A value converted to another dtype: to bool by `!= 0`, float to int towards zero."""

    x: Expr
    dtype: DType


@dataclass(slots=True, eq=False)
class Intrinsic(Expr):
    """A named function that is no operator."""

    name: str
    args: tuple[Expr, ...]
    dtype: DType


class Stmt:
    """An effect."""

    __slots__ = ()


@dataclass(slots=True, eq=False)
class Block(Stmt):
    """Statements in order."""

    body: tuple[Stmt, ...]


@dataclass(slots=True, eq=False)
class For(Stmt):
    """A loop of `var` over `0 .. stop-1`.

    kind: `serial`; `parallel` (only outermost: its range is what the launch hands out in tasks);
    `vector` (innermost: rendered in lanes with a scalar tail; `Accumulate` into a register or
    at an index that does not use `var` becomes a reduction with several accumulators in a fixed
    order, and a scan if the register is read further down in the loop); `unroll` (constant
    `stop`); `grid` and `block` for GPUs.
    """

    var: str
    stop: Expr
    body: Stmt
    kind: str = "serial"


@dataclass(slots=True, eq=False)
class If(Stmt):
    """One branch or the other."""

    condition: Expr
    then: Stmt
    otherwise: Stmt | None = None


@dataclass(slots=True, eq=False)
class Let(Stmt):
    """Binds a value to a name for the rest of the enclosing block."""

    var: str
    value: Expr


@dataclass(slots=True, eq=False)
class Alloc(Stmt):
    """A local buffer. `register`: one element; `stack`: a small constant number of elements;
    `scratch`: `size` elements of the thread's scratch memory. It starts undefined."""

    name: str
    dtype: DType
    size: Expr
    space: str = "register"


@dataclass(slots=True, eq=False)
class Store(Stmt):
    """Writes an element. `streaming`: nobody reads it soon, so that it may go past the caches, and
    what was there is not fetched first."""

    buffer: str
    index: Expr
    value: Expr
    streaming: bool = False


@dataclass(slots=True, eq=False)
class Accumulate(Stmt):
    """`buffer[index] = op(buffer[index], value)`."""

    buffer: str
    index: Expr
    op: str
    value: Expr


@dataclass(slots=True, eq=False)
class Prefetch(Stmt):
    """Asks for an element that will be read soon; in lanes, for all of theirs. The index need not
    exist, and nothing changes but the time that reading takes."""

    buffer: str
    index: Expr


@dataclass(slots=True, eq=False)
class Barrier(Stmt):
    """All threads of a block arrive before any goes on (GPUs)."""


@dataclass(slots=True, eq=False)
class Call(Stmt):
    """A call for its effect."""

    name: str
    args: tuple[Expr, ...]


@dataclass(slots=True, eq=False)
class Param:
    """A buffer of the launch. `mode` is `in`, `out` or `inout`."""

    name: str
    dtype: DType
    mode: str = "in"


@dataclass(slots=True, eq=False, weakref_slot=True)
class Kernel:
    """One loop nest with its parameters: what is rendered, cached and launched."""

    name: str
    params: tuple[Param, ...]
    sizes: int
    body: Stmt
