"""Lowering of contractions: labels sorted into b, m, n, k, strides, and the fused epilogue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.graph.emit import label_of
from treadle.graph.group import Group
from treadle.graph.index import Affine, Atom
from treadle.graph.layout import Layout
from treadle.graph.plan import Launch, Place
from treadle.graph.pull import Read, Value
from treadle.graph.values import ordered, roots_of
from treadle.ir.contraction import Contraction, Operand
from treadle.ir.loop import Binary, Cast, Const, Expr, Select, Unary, Var
from treadle.ir.node import Node


@dataclass(slots=True)
class _Access:
    """How a buffer of the launch is walked."""

    node: Node
    step: dict[Atom, int]
    offset: int

    @classmethod
    def of(cls, node: Node, address: Affine) -> _Access:
        return cls(node, dict(address.terms), address.const)


Classes = tuple[list[Atom], list[Atom], list[Atom], list[Atom]]


def lower_contraction(
    group: Group,
    stored: Iterable[Node],
    layouts: Mapping[Node, Layout],
    places: Mapping[Node, Place],
) -> Launch:
    """The launch of a contraction with its epilogue."""
    assert group.node is not None and group.operands is not None
    roots = roots_of(group, stored, layouts)
    order = ordered([r.value for r in roots])
    views = (group.operands.left, group.operands.right)
    left, right = [_Access.of(v.base, layouts[v.base].address(group.space, v.index)) for v in views]
    outs = [_Access.of(r.node, r.address) for r in roots]
    b, m, n, k = _classes(group)
    straight, swapped = _score(right, outs[0], n), _score(left, outs[0], m)
    if swapped > straight:
        left, right, m, n = right, left, n, m
    epilogue = _Epilogue(group.node.dtype)
    outputs = tuple([epilogue.result(order, r.value) for r in roots])
    everything = [left, right, *epilogue.extras, *outs]
    classes = _arrange((b, m, n, k), left, right, outs[0])
    dims = [_merged(atoms, everything) for atoms in classes]
    kernel = Contraction(
        name="contract",
        dims=(len(dims[0]), len(dims[1]), len(dims[2]), len(dims[3])),
        a=_operand(left, dims, "kmn"),
        b=_operand(right, dims, "nkm"),
        extras=tuple([_extra(e, dims) for e in epilogue.extras]),
        out=tuple([_operand(o, dims, "nmk") for o in outs]),
        accumulator=group.node.dtype,
        outputs=outputs,
    )
    flat = [d for group_dims in dims for d in group_dims]
    sizes = [extent for _, extent in flat]
    for access in everything:
        sizes += [access.step.get(atom, 0) for atom, _ in flat]
    buffers = []
    for access in everything:
        slot, offset = places[access.node]
        buffers.append((slot, offset + access.offset * access.node.dtype.itemsize))
    count = sh.count([extent for dim in dims[:3] for _, extent in dim])
    return Launch(
        kernel=kernel,
        buffers=tuple(buffers),
        sizes=tuple(sizes),
        tasks=0,
        label=label_of(order, ("contract",)),
        sites=_sites(group.node, order),
        flop=2 * count * sh.count([extent for _, extent in dims[3]]) + count * len(order),
        bytes=sum([sh.count(a.node.shape) * a.node.dtype.itemsize for a in everything]),
    )


def _sites(node: Node, order: Iterable[Value]) -> tuple:
    sites = [node.site, *[v.node.site for v in order]]
    return tuple(dict.fromkeys([s for s in sites if s is not None]))


def _classes(group: Group) -> Classes:
    """The labels as batch, rows, columns and summed."""
    assert group.node is not None and group.operands is not None
    left, right, out = group.node.attrs
    classes: Classes = ([], [], [], [])
    for label, index in group.operands.labels.items():
        if not index.terms:
            continue
        a, b, c = label in left, label in right, label in out
        which = 3 if not c else 0 if a and b else 1 if a else 2
        classes[which].append(index.terms[0][0])
    return classes


def _score(b: _Access, out: _Access, n: list[Atom]) -> int:
    """How well an operand serves as B: vectors run along `n` in B and in the result."""
    if not n:
        return -8
    last = _sorted(n, _first_with_unit(n, b, out))[-1]
    return 4 * (b.step.get(last) == 1) + 2 * (out.step.get(last) == 1)


def _arrange(classes: Classes, a: _Access, b: _Access, out: _Access) -> Classes:
    """Dimensions from outer to inner: each class as it lies in what has unit stride along it."""
    batch, m, n, k = classes
    return (
        _sorted(batch, out),
        _sorted(m, _first_with_unit(m, a, out)),
        _sorted(n, _first_with_unit(n, b, out)),
        _sorted(k, _first_with_unit(k, a, b)),
    )


def _first_with_unit(atoms: Sequence[Atom], *accesses: _Access) -> _Access:
    for access in accesses:
        if any(access.step.get(t) == 1 for t in atoms):
            return access
    return accesses[-1]


def _sorted(atoms: list[Atom], access: _Access) -> list[Atom]:
    return sorted(atoms, key=lambda t: -abs(access.step.get(t, 0)))


Dims = list[tuple[Atom, int]]


def _merged(atoms: Sequence[Atom], accesses: Sequence[_Access]) -> Dims:
    """Neighbouring dimensions as one, wherever every buffer steps through both as through one."""
    out: Dims = []
    for atom in reversed(atoms):
        extent = atom.hi + 1
        if out:
            inner, n = out[0]
            if all(a.step.get(atom, 0) == a.step.get(inner, 0) * n for a in accesses):
                out[0] = (inner, n * extent)
                continue
        out.insert(0, (atom, extent))
    return out


def _operand(access: _Access, dims: Sequence[Dims], prefer: str) -> Operand:
    """The class along which a buffer has unit stride, in an order of preference."""
    for name in prefer:
        inner = dims["bmnk".index(name)]
        if inner and access.step.get(inner[-1][0]) == 1:
            return Operand(access.node.dtype, name)
    return Operand(access.node.dtype, "")


def _extra(access: _Access, dims: Sequence[Dims]) -> Operand:
    """An extra operand: `"0"` where one value serves a whole row of the result."""
    if not any(access.step.get(atom) for atom, _ in dims[2]):
        return Operand(access.node.dtype, "0")
    return _operand(access, dims, "nmk")


class _Epilogue:
    """Values as expressions over the accumulator and the extra operands."""

    def __init__(self, accumulator: DType) -> None:
        self.accumulator = accumulator
        self.extras: list[_Access] = []
        self._seen: dict[tuple[Node, Affine], Var] = {}
        self._done: dict[Value, Expr] = {}

    def result(self, order: Iterable[Value], root: Value) -> Expr:
        """The expression of one output; parts shared by outputs are the same objects."""
        for v in order:
            if v not in self._done:
                self._done[v] = self._value(v)
        return self._done[root]

    def _value(self, v: Value) -> Expr:
        if v.kind == "acc":
            return Var("acc", self.accumulator)
        if isinstance(v.body, Read):
            key = (v.body.node, v.body.address)
            found = self._seen.get(key)
            if found is None:
                found = self._seen[key] = Var(f"e{len(self.extras)}", v.dtype)
                self.extras.append(_Access.of(*key))
            return found
        assert v.body is not None
        return self._expr(v.body)

    def _expr(self, e: Expr) -> Expr:
        if isinstance(e, Value):
            return self._done[e]
        if isinstance(e, Binary):
            return Binary(e.op, self._expr(e.a), self._expr(e.b))
        if isinstance(e, Unary):
            return Unary(e.op, self._expr(e.x))
        if isinstance(e, Cast):
            return Cast(self._expr(e.x), e.dtype)
        if isinstance(e, Select):
            return Select(self._expr(e.condition), self._expr(e.a), self._expr(e.b))
        assert isinstance(e, Const)
        return e
