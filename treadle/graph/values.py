"""What the loops of a kernel must know about its values: order, dependence, merged dimensions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.graph.emit import needs_name
from treadle.graph.group import Group
from treadle.graph.index import Affine, Atom, atoms_of
from treadle.graph.layout import Layout
from treadle.graph.pull import Read, Value
from treadle.ir.loop import Binary, Cast, Const, Expr, Intrinsic, Select, Unary
from treadle.ir.node import Node
from treadle.ops.reduce import combine_of, initial
from treadle.ops.source import FULL

DEEP = 16
"""Expressions nest at most this deep before a part gets a name."""


@dataclass(slots=True)
class Root:
    """A value to be stored, and where."""

    node: Node
    value: Value
    address: Affine

    @property
    def mask(self) -> int:
        """The variables of the value or of its address."""
        return self.value.mask | self.address.mask


def roots_of(group: Group, stored: Iterable[Node], layouts: Mapping[Node, Layout]) -> list[Root]:
    """The members that leave the kernel."""
    out: list[Root] = []
    for node in stored:
        for value in group.parts or [group.members[node]]:
            out.append(Root(node, value, layouts[node].address(group.space, value.index)))
    return out


def opened(
    group: Group, stored: Iterable[Node], layouts: Mapping[Node, Layout]
) -> tuple[list[Root], list[Value], list[Affine]]:
    """What a group stores, all values that this takes, in order, and the indices among them."""
    roots = roots_of(group, stored, layouts)
    order = ordered([r.value for r in roots])
    return roots, order, annotate(group, order) + [r.address for r in roots]


def ordered(roots: Iterable[Value]) -> list[Value]:
    """Every value that the roots depend on, arguments first, without names or counts."""
    order: list[Value] = []
    done: set[Value] = set()
    for root in roots:
        stack = [(root, 0)]
        while stack:
            v, at = stack.pop()
            if at == 0 and v in done:
                continue
            args = v.args
            while at < len(args) and args[at] in done:
                at += 1
            if at < len(args):
                stack.append((v, at + 1))
                stack.append((args[at], 0))
            elif v not in done:
                done.add(v)
                v.name = ""
                v.uses = 0
                order.append(v)
    return order


def affines_in(e: Expr | None, out: list[Affine]) -> None:
    """The indices that an expression uses, as values or as addresses."""
    if isinstance(e, Value | Const) or e is None:
        return
    if isinstance(e, Affine):
        out.append(e)
    elif isinstance(e, Read):
        out.append(e.address)
    elif isinstance(e, Binary):
        affines_in(e.a, out)
        affines_in(e.b, out)
    elif isinstance(e, Unary | Cast):
        affines_in(e.x, out)
    elif isinstance(e, Select):
        affines_in(e.condition, out)
        affines_in(e.a, out)
        affines_in(e.b, out)
    elif isinstance(e, Intrinsic):
        for a in e.args:
            affines_in(a, out)


def settle(group: Group, order: Sequence[Value]) -> None:
    """Folds integer arithmetic on loop counters into indices, where it was recorded as data."""
    for v in order:
        if v.kind != "expr" or not v.args or v.args[0].dtype is not dt.int64:
            continue
        if v.node.op.kind == "pointwise" and all(type(a.body) is Affine for a in v.args):
            assert v.body is not None
            v.body = group.pull.normal(_inlined(v.body))
            v.args = [x for a in v.args for x in a.args]


def _inlined(e: Expr) -> Expr:
    """A body with its arguments, which are indices, put in."""
    if isinstance(e, Value):
        assert e.body is not None
        return e.body
    if isinstance(e, Binary):
        return Binary(e.op, _inlined(e.a), _inlined(e.b))
    if isinstance(e, Unary):
        return Unary(e.op, _inlined(e.x))
    if isinstance(e, Cast):
        return Cast(_inlined(e.x), e.dtype)
    if isinstance(e, Select):
        return Select(_inlined(e.condition), _inlined(e.a), _inlined(e.b))
    return e


def annotate(group: Group, order: Sequence[Value]) -> list[Affine]:
    """Sets each value's `mask` and `uses`; returns every index of the kernel."""
    settle(group, order)
    reduced = 0
    for atom in group.cols:
        reduced |= atom.mask
    # A reduction is done inside of all loops over rows, whether it depends on them or not.
    rows = 0
    for atom in group.rows:
        rows |= atom.mask
    everything: list[Affine] = []
    for v in order:
        mask = 0
        for a in v.args:
            mask |= a.mask
            a.uses += 1
        if v in group.downs and group.down is not None:
            v.mask = mask & ~rows | group.down.piece.mask
            continue
        if v.kind == "reduce":
            v.mask = mask & ~reduced | rows
            continue
        if v.kind == "scan":
            v.mask = mask | rows | reduced
            continue
        mine: list[Affine] = []
        affines_in(v.body, mine)
        for index in mine:
            mask |= index.mask
        everything += mine
        v.mask = mask
    return everything


@dataclass(slots=True)
class Dim:
    """A loop: its variable, its extent, and the variables merged into it."""

    atom: Atom
    extent: int
    mask: int
    piece: int = 0
    """Of a dimension that a reduction splits: how many positions one piece has."""
    is_piece: bool = False


def dims_of(atoms: Sequence[Atom], group: Group) -> list[Dim]:
    """One loop a variable."""
    chunk, down = group.chunk, group.down
    cut = {c.position: c.size for c in (chunk, down) if c is not None}
    return [
        Dim(
            atom,
            atom.hi + 1,
            atom.mask,
            cut.get(atom, 0),
            chunk is not None and atom is chunk.piece,
        )
        for atom in atoms
    ]


def merge(dims: list[Dim], indices: Iterable[Affine]) -> list[Dim]:
    """Joins neighbouring loops wherever every index steps through both as through one."""
    if len(dims) < 2:
        return dims
    used: dict[int, dict[Atom, int]] = {}
    for a in indices:
        if id(a) in used:
            continue
        used[id(a)] = dict(a.terms)
        for atom in atoms_of(a):
            if isinstance(atom.arg, Affine):
                used[id(atom.arg)] = dict(atom.arg.terms)
    tables = list(used.values())
    out = [dims[-1]]
    for outer in reversed(dims[:-1]):
        inner = out[0]
        free = not inner.piece and not (inner.is_piece or outer.is_piece)
        if free and all(
            t.get(outer.atom, 0) == t.get(inner.atom, 0) * inner.extent for t in tables
        ):
            extent = inner.extent
            out[0] = Dim(
                inner.atom, outer.extent * extent, outer.mask | inner.mask, outer.piece * extent
            )
        else:
            out.insert(0, outer)
    return out


def accumulator_dtype(dtype: DType) -> DType:
    """What a reduction or a scan adds up in."""
    return dt.float32 if dtype.is_floating_point and dtype.bits < 32 else dtype


def neutral(node: Node) -> Const:
    """What a reduction or a scan starts from."""
    kind = accumulator_dtype(node.dtype)
    return Const(initial(combine_of(node), kind), kind)


def name_values(order: Sequence[Value], dims: Sequence[Dim]) -> set[Value]:
    """The values that get a name: used twice, from an outer loop, or nested too deep."""
    place: dict[Value, int] = {}
    depth: dict[Value, int] = {}
    bound: set[Value] = set()
    masks = [d.mask for d in dims]
    for v in order:
        level = len(masks)
        while level and not v.mask & masks[level - 1]:
            level -= 1
        place[v] = level
        deep = 0
        for a in v.args:
            if place[a] != level or a.kind == "reduce":
                bound.add(a)
            elif a not in bound:
                deep = max(deep, depth[a])
        depth[v] = deep + 1
        if v.uses > 1 or deep >= DEEP:
            bound.add(v)
    # What the graph fixes is as short as its name, unless it is read from the sizes.
    return {v for v in bound if not _is_short(v)} | {v for v in order if needs_name(v)}


def _is_short(v: Value) -> bool:
    return v.node.op is FULL or (type(v.body) is Affine and not v.body.terms)
