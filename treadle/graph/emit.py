"""From values to loop-nest expressions: names, numbered sizes, parameters and fault codes.

Extents, strides and offsets become `Size`s, numbered as they occur and never shared by value: two
shapes of one pattern give the same text, and so the same machine code.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.site import Site
from treadle.base.symbolic import derived, fixed, integral, varies
from treadle.graph.index import Affine, Atom
from treadle.graph.plan import Launch, Place
from treadle.graph.pull import Read, Value
from treadle.graph.structure import PLAIN
from treadle.ir.loop import (
    Binary,
    Cast,
    Const,
    Expr,
    Intrinsic,
    Kernel,
    Let,
    Load,
    Param,
    Select,
    Size,
    Stmt,
    Unary,
    Var,
)
from treadle.ir.node import Node
from treadle.ops.source import FULL

SMALL = 8
"""Divisors up to this are baked into the code: the windows of pooling and the like."""


class Emitter:
    """Collects what one kernel is made of besides its statements."""

    def __init__(self, places: Mapping[Node, Place]) -> None:
        self.places = places
        self.sizes: list[int] = []
        self.params: list[Param] = []
        self.buffers: list[Place] = []
        self.faults: list[tuple[str, Site | None]] = []
        self.real: dict[Atom, list[Expr]] = {}
        self.depth: dict[Atom, int] = {}
        self.bytes = 0
        self._param_at: dict[tuple[Place, DType], Param] = {}
        self._codes: dict[int, int] = {}
        self._names = 0
        self._site: Site | None = None

    # --- sizes, names, parameters --------------------------------------------------------------

    def size(self, value: int) -> Size:
        """A fresh run-time integer."""
        self.sizes.append(value)
        return Size(len(self.sizes) - 1)

    def fresh(self, prefix: str) -> str:
        """A name not used yet in this kernel."""
        self._names += 1
        return f"{prefix}{self._names}"

    def param(self, node: Node, mode: str) -> Param:
        """The parameter of a stored node; one that is read and written becomes `inout`."""
        place = self.places[node]
        key = (place, node.dtype)
        found = self._param_at.get(key)
        if found is None:
            found = self._param_at[key] = Param(f"b{len(self.params)}", node.dtype, mode)
            self.params.append(found)
            self.buffers.append(place)
            self.bytes += sh.count(node.shape) * node.dtype.itemsize
        elif found.mode != mode:
            found.mode = "inout"
        return found

    def launch(
        self, name: str, body: Stmt, tasks: int, label: str, values: Iterable[Value], flop: int
    ) -> Launch:
        """The finished kernel with what it is launched on."""
        sites = [v.node.site for v in values if v.node.site is not None]
        kernel = Kernel(name, tuple(self.params), len(self.sizes), body)
        return Launch(
            kernel=kernel,
            buffers=tuple(self.buffers),
            sizes=tuple(self.sizes),
            tasks=tasks,
            label=label,
            sites=tuple(dict.fromkeys(sites)),
            flop=flop,
            bytes=self.bytes,
            faults=tuple(self.faults),
        )

    # --- expressions ---------------------------------------------------------------------------

    def number(self, value: int) -> Expr:
        """An index constant: 0 and 1 say something about the pattern, others are sizes."""
        return Const(fixed(value)) if value in (0, 1) else self.size(value)

    def affine(self, a: Affine) -> Expr:
        """An index as an expression: the parts of outer loops first."""
        terms = a.terms
        if len(terms) > 1:
            depth = self.depth
            terms = tuple(sorted(terms, key=lambda t: depth.get(t[0], -1)))
        total: Expr | None = self.size(a.const) if a.const and terms else None
        for atom, k in terms:
            parts = self._atom(atom)
            if parts is None:
                continue
            if k != 1:
                whole = parts[0]
                for part in parts[1:]:
                    whole = Binary("add", whole, part)
                # A step back is told apart: lanes can be turned round.
                step = Const(-1) if k == -1 else self.size(k)
                parts = [Binary("mul", whole, step)]
            for part in parts:
                total = part if total is None else Binary("add", total, part)
        return self.number(a.const) if total is None else total

    def _atom(self, atom: Atom) -> list[Expr] | None:
        """An atom as a sum; `None` for a variable that was merged into another."""
        kind = atom.kind
        if kind == "var":
            return self.real.get(atom)
        if kind == "value":
            return [self.value(atom.arg)]
        x = self.affine(atom.arg)
        n: Expr = (
            Const(atom.n) if not varies(atom.n) and 0 <= atom.n <= SMALL else self.size(atom.n)
        )
        return [Binary({"div": "floordiv"}.get(kind, kind), x, n)]

    def value(self, v: Value) -> Expr:
        """A value: its name if it is bound to one, else its expression."""
        if v.name:
            return Var(v.name, v.dtype)
        assert v.body is not None
        if v.node.op is FULL and isinstance(v.body, Const):
            return self.constant(v.body)
        before, self._site = self._site, v.node.site
        expr = self.expr(v.body)
        self._site = before
        return expr

    def constant(self, c: Const) -> Expr:
        """A number of the graph, baked or passed."""
        if c.dtype is dt.bool_ or c.value in PLAIN or c.value != c.value:
            return c
        if c.dtype.is_floating_point:
            wide = Intrinsic("bitcast", (self.size(derived(_bits, c.value)),), dt.float64)
            return wide if c.dtype is dt.float64 else Cast(wide, c.dtype)
        whole = self.size(integral(c.value))
        return whole if c.dtype is dt.int64 else Cast(whole, c.dtype)

    def expr(self, e: Expr) -> Expr:
        """The body of a value."""
        if isinstance(e, Value):
            return self.value(e)
        if isinstance(e, Affine):
            return self.affine(e)
        if isinstance(e, Read):
            name = self.param(e.node, "in").name
            return Load(name, self.affine(e.address), e.dtype)
        if isinstance(e, Binary):
            return Binary(e.op, self.expr(e.a), self.expr(e.b))
        if isinstance(e, Unary):
            return Unary(e.op, self.expr(e.x))
        if isinstance(e, Cast):
            return Cast(self.expr(e.x), e.dtype)
        if isinstance(e, Select):
            return Select(self.expr(e.condition), self.expr(e.a), self.expr(e.b))
        if isinstance(e, Intrinsic):
            return self._intrinsic(e)
        return e

    def _intrinsic(self, e: Intrinsic) -> Expr:
        if e.name != "check":
            return Intrinsic(e.name, tuple([self.expr(a) for a in e.args]), e.dtype)
        value, ok, message = e.args
        assert isinstance(message, Const)
        code = self._codes.get(id(message))
        if code is None:
            self.faults.append((str(message.value), self._site))
            code = self._codes[id(message)] = len(self.faults)
        return Intrinsic("check", (self.expr(value), self.expr(ok), Const(code)), e.dtype)

    def bind(self, v: Value, value: Expr | None = None) -> Let:
        """Binds a value to a name of its own."""
        name = self.fresh("v")
        v.name = ""
        let = Let(name, self.value(v) if value is None else value)
        v.name = name
        return let


def _bits(value: float) -> int:
    """A number as the integer of the same bits in float64."""
    bits: int = struct.unpack("<q", struct.pack("<d", float(value)))[0]
    return bits


def needs_name(v: Value) -> bool:
    """Whether a constant is read from the sizes, which is done once, outside of the loops."""
    return (
        v.node.op is FULL
        and isinstance(v.body, Const)
        and v.body.dtype is not dt.bool_
        and v.body.value not in PLAIN
    )


def label_of(values: Iterable[Value], first: Sequence[str] = ()) -> str:
    """The operations of a kernel in a few words."""
    names: dict[str, Any] = dict.fromkeys(first)
    for v in values:
        shown = v.node.op.kind in ("pointwise", "reduce", "scan", "gather")
        if v.kind in ("expr", "reduce", "scan") and shown:
            names[v.node.op.name] = None
    listed = list(names) or ["copy"]
    return "+".join(listed[:6] + (["..."] if len(listed) > 6 else []))
