"""The pull rule: what one element of a node is, as values over the memory that it reads.

A `Value` is one node at one index. Reading a node makes the values of its inputs at the indices
that its op's `lower` asks for, down to leaves in memory. Equal (node, index) pairs are one value,
so nothing is computed twice in one kernel, and the walk keeps its own list instead of recursing.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from typing import Any, Protocol

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.site import Site
from treadle.base.symbolic import fixed, integral
from treadle.graph.index import FAR, Affine, Space
from treadle.ir.loop import (
    COMPARISONS,
    Binary,
    Cast,
    Const,
    Expr,
    Intrinsic,
    Select,
    Unary,
    Var,
)
from treadle.ir.node import Node
from treadle.ops.reduce import combine_of
from treadle.ops.source import FULL

Index = tuple[Affine, ...]
TRUE = Const(True, dt.bool_)
FALSE = Const(False, dt.bool_)


class Addressing(Protocol):
    """How a node lies in memory; `treadle.graph.layout.Layout`."""

    def address(self, space: Space, index: Index) -> Affine:
        """The position of an index in the buffer."""


class Read(Expr):
    """The element of a stored node at an address, counted in elements."""

    __slots__ = ("address", "dtype", "node")

    def __init__(self, node: Node, address: Affine) -> None:
        self.node = node
        self.address = address
        self.dtype = node.dtype


class Value(Var):
    """One node at one index. `kind` is expr, load, reduce, scan or acc.

    `body` is over other values (`args`, in order of appearance); of a `reduce` there is one
    argument, the element that is accumulated; of a `scan` also, or two: what it starts from.
    """

    __slots__ = ("args", "body", "hi", "index", "kind", "level", "lo", "mask", "node", "uses")

    def __init__(self, node: Node, index: Index, dtype: DType) -> None:
        self.name = ""
        self.dtype = dtype
        self.node = node
        self.index = index
        self.kind = "expr"
        self.body: Expr | None = None
        self.args: list[Value] = []
        self.lo = -FAR
        self.hi = FAR
        self.mask = 0
        self.level = 0
        self.uses = 0

    __hash__ = object.__hash__


class Pull:
    """The values of one kernel.

    `leaves` are the nodes that live in memory, `layouts` how they do; `members` the nodes that
    this kernel computes itself, each at one index: a read of a member anywhere else sets
    `conflict`. `unrolled` are the reductions over small windows, written out element by element.
    """

    def __init__(
        self,
        space: Space,
        leaves: Set[Node],
        layouts: Mapping[Node, Addressing],
        unrolled: Set[Node],
    ) -> None:
        self.space = space
        self.leaves = leaves
        self.layouts = layouts
        self.unrolled = unrolled
        self.members: dict[Node, Value] = {}
        self.conflict = False
        self.site: Site | None = None
        self.fresh: list[Value] = []
        self._values: dict[tuple[Node, Index], Value] = {}
        self._pending: list[Value] = []
        self._args: list[Value] = []

    def at(self, node: Node, index: Index, own: bool = False) -> Value:
        """The value of a node at an index; `own` computes it even where it is a leaf."""
        value = self._own(node, index) if own else self._find(node, index)
        while self._pending:
            self._expand(self._pending.pop())
        return value

    @property
    def size(self) -> int:
        """The number of values."""
        return len(self._values)

    def keep(self) -> None:
        """Accepts what was pulled since the last time."""
        self.fresh.clear()
        self.conflict = False

    def undo(self) -> None:
        """Forgets what was pulled since the last `keep`."""
        for value in self.fresh:
            self._values.pop((value.node, value.index), None)
        self.keep()

    def _own(self, node: Node, index: Index) -> Value:
        value = Value(node, index, node.dtype)
        self._values[node, index] = value
        self.fresh.append(value)
        self._pending.append(value)
        return value

    def renamed(self, node: Node, index: Index, source: Node, at: Index) -> Value:
        """The value of a node at an index that is another's at another."""
        inner = self.at(source, at)
        value = Value(node, index, node.dtype)
        value.body = inner
        value.args = [inner]
        self._values[node, index] = value
        self.fresh.append(value)
        return value

    def reduction(self, node: Node, index: Index, inner: Index) -> Value:
        """The value of a reduction whose elements are its input at `inner`."""
        value = Value(node, index, node.dtype)
        value.kind = "reduce"
        self._values[node, index] = value
        self.fresh.append(value)
        value.args = [self.at(node.inputs[0], inner)]
        return value

    def scan(self, node: Node, index: Index, start: Index = ()) -> Value:
        """The value of a scan at an index: its input there, combined with what came before."""
        value = Value(node, index, node.dtype)
        value.kind = "scan"
        self._values[node, index] = value
        self.fresh.append(value)
        value.args = [self.at(node.inputs[0], index)]
        if start:
            value.args.append(self.at(node.inputs[1], start))
        return value

    def accumulator(self, node: Node, index: Index) -> Value:
        """The value that a contraction's inner loop leaves in a register."""
        value = Value(node, index, node.dtype)
        value.kind = "acc"
        self._values[node, index] = value
        return value

    def _find(self, node: Node, index: Index) -> Value:
        key = (node, index)
        value = self._values.get(key)
        if value is not None:
            return value
        value = self._values[key] = Value(node, index, node.dtype)
        self.fresh.append(value)
        if node in self.members:
            self.conflict = True
        elif node in self.leaves:
            value.kind = "load"
            layout = self.layouts.get(node)
            if layout is None:
                self.conflict = True
            else:
                address = layout.address(self.space, index)
                value.body = Read(node, address)
                value.args = values_of(address)
        else:
            self._pending.append(value)
        return value

    def _expand(self, value: Value) -> None:
        """Lowers one node at one index by its op's pull rule."""
        node, index = value.node, value.index
        op = node.op
        inputs = node.inputs
        self.site = node.site
        args: list[Value] = []
        if node in self.unrolled:
            value.body = self._unroll(node, index, args)
        elif op is FULL:
            value.body = Const(node.attrs[1], node.dtype)
        elif op.kind == "pointwise":

            def read(i: int, at: Any) -> Expr:
                found = self._find(inputs[i], tuple([self._plain(e) for e in at]))
                args.append(found)
                return found

            value.body = op.lower(node, index, read)
        else:

            def read(i: int, at: Any) -> Expr:
                found = self._find(inputs[i], tuple([self.index_of(e, args) for e in at]))
                args.append(found)
                return found

            value.body = self.normal(op.lower(node, index, read))
            collected: list[Value] = []
            _leaf_values(value.body, collected)
            args = collected
        value.args = args

    def _plain(self, e: Expr) -> Affine:
        if type(e) is Affine:
            return e
        assert isinstance(e, Const)
        return self.space.const(e.value)

    def _unroll(self, node: Node, index: Index, args: list[Value]) -> Expr:
        """A reduction over a small window as one expression."""
        wide = node.dtype.is_floating_point and node.dtype.bits < 32
        terms: list[Expr] = []
        positions: list[Index] = [()]
        for d, at in enumerate(index):
            if d in node.attrs[0]:
                places = [self.space.const(k) for k in range(fixed(node.inputs[0].shape[d]))]
            else:
                places = [at]
            positions = [(*p, q) for p in positions for q in places]
        for position in positions:
            found = self._find(node.inputs[0], position)
            args.append(found)
            terms.append(Cast(found, dt.float32) if wide else found)
        total = terms[0]
        for term in terms[1:]:
            total = Binary(combine_of(node), total, term)
        return Cast(total, node.dtype) if wide else total

    # --- normal form of what `lower` returns ---------------------------------------------------

    def index_of(self, e: Expr, args: list[Value] | None = None) -> Affine:
        """An index expression as a sum of atoms; what is no such sum becomes one opaque atom."""
        e = self.normal(e)
        if isinstance(e, Affine):
            return e
        if isinstance(e, Value):
            return self.space.opaque(e, e.lo, e.hi)
        lo, hi = bounds(e)
        value = Value(Node(_INDEX, (), (), (), dt.int64, site=self.site), (), dt.int64)
        value.body = e
        value.lo, value.hi = lo, hi
        _leaf_values(e, value.args)
        return self.space.opaque(value, lo, hi)

    def normal(self, e: Expr) -> Expr:
        """Integer arithmetic on indices folded into sums, and conditions that are decided."""
        kind = type(e)
        if kind is Affine or kind is Value or kind is Read:
            return e
        if isinstance(e, Const):
            return self.space.const(integral(e.value)) if e.dtype is dt.int64 else e
        if isinstance(e, Binary):
            return self._normal_binary(e)
        if isinstance(e, Select):
            condition = self.normal(e.condition)
            if isinstance(condition, Const):
                return self.normal(e.a if condition.value else e.b)
            return Select(condition, self.normal(e.a), self.normal(e.b))
        if isinstance(e, Cast):
            x = self.normal(e.x)
            return x if x.dtype is e.dtype else Cast(x, e.dtype)
        if isinstance(e, Unary):
            return Unary(e.op, self.normal(e.x))
        if isinstance(e, Intrinsic):
            if e.name == "check":
                value, ok, message = e.args
                test = self.normal(ok)
                if isinstance(test, Const) and test.value:
                    return self.normal(value)
                return Intrinsic("check", (self.normal(value), test, message), e.dtype)
            return Intrinsic(e.name, tuple(self.normal(a) for a in e.args), e.dtype)
        return e

    def _normal_binary(self, e: Binary) -> Expr:
        a, b = self.normal(e.a), self.normal(e.b)
        op, space = e.op, self.space
        if op in ("and", "or") and e.dtype is dt.bool_:
            for x, y in ((a, b), (b, a)):
                if isinstance(x, Const):
                    return y if bool(x.value) == (op == "and") else x
        if not isinstance(a, Affine) or not isinstance(b, Affine):
            return Binary(op, a, b)
        if op == "add":
            return space.add(a, b)
        if op == "sub":
            return space.add(a, space.scale(b, -1))
        if op in COMPARISONS:
            return self._compare(op, a, b)
        if not b.terms:
            n = b.const
            if op == "mul":
                return space.scale(a, n)
            if op == "floordiv" and n > 0:
                return space.floordiv(a, n)
            if op == "mod" and n > 0:
                return space.mod(a, n)
            if op == "min":
                return space.minimum(a, n)
            if op == "max":
                return space.maximum(a, n)
        if op == "mul" and not a.terms:
            return space.scale(b, a.const)
        return Binary(op, a, b)

    def _compare(self, op: str, a: Affine, b: Affine) -> Expr:
        difference = self.space.add(a, self.space.scale(b, -1))
        lo, hi = difference.lo, difference.hi
        always, never = {
            "lt": (hi < 0, lo >= 0),
            "le": (hi <= 0, lo > 0),
            "gt": (lo > 0, hi <= 0),
            "ge": (lo >= 0, hi < 0),
            "eq": (lo == hi == 0, lo > 0 or hi < 0),
            "ne": (lo > 0 or hi < 0, lo == hi == 0),
        }[op]
        if always or never:
            return TRUE if always else FALSE
        return Binary(op, a, b)


class _IndexOp:
    """Stands for the op of a value that only computes an index."""

    name = "index"
    kind = "index"
    cost = 2
    attr_names: tuple[str, ...] = ()


_INDEX: Any = _IndexOp()


def bounds(e: Expr) -> tuple[int, int]:
    """An interval that holds every value of an integer expression."""
    if isinstance(e, (Affine, Value)):
        return e.lo, e.hi
    if isinstance(e, Binary) and e.op in ("min", "max"):
        a, b = bounds(e.a), bounds(e.b)
        pick = min if e.op == "min" else max
        return pick(a[0], b[0]), pick(a[1], b[1])
    if isinstance(e, Select):
        a, b = bounds(e.a), bounds(e.b)
        return min(a[0], b[0]), max(a[1], b[1])
    if isinstance(e, Intrinsic) and e.name == "check":
        return bounds(e.args[0])
    return -FAR, FAR


def values_of(a: Affine) -> list[Value]:
    """The values that an index is computed from."""
    found: list[Value] = []
    for atom, _ in a.terms:
        if atom.kind == "value":
            found.append(atom.arg)
        elif isinstance(atom.arg, Affine):
            found += values_of(atom.arg)
    return found


def _leaf_values(e: Expr, out: list[Value]) -> None:
    kind = type(e)
    if kind is Value:
        out.append(e)  # type: ignore[arg-type]
    elif kind is Affine:
        out += values_of(e)  # type: ignore[arg-type]
    elif isinstance(e, Binary):
        _leaf_values(e.a, out)
        _leaf_values(e.b, out)
    elif isinstance(e, Select):
        _leaf_values(e.condition, out)
        _leaf_values(e.a, out)
        _leaf_values(e.b, out)
    elif isinstance(e, (Cast, Unary)):
        _leaf_values(e.x, out)
    elif isinstance(e, Intrinsic):
        for a in e.args:
            _leaf_values(a, out)
