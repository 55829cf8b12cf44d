"""Lowering of contractions: labels sorted into b, m, n, k, strides, and the fused epilogue."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.graph.access import Access, Axis, Classes, Dims
from treadle.graph.emit import label_of
from treadle.graph.group import Group
from treadle.graph.index import Affine, Atom
from treadle.graph.layout import Layout
from treadle.graph.plan import Launch, Place
from treadle.graph.pull import Read, Value
from treadle.graph.values import ordered, roots_of
from treadle.graph.winograd import by_tiles
from treadle.ir.contraction import Contraction, Operand
from treadle.ir.loop import Binary, Cast, Const, Expr, Select, Unary, Var
from treadle.ir.node import Node


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
    left, right = [Access.of(v.base, layouts[v.base].address(group.space, v.index)) for v in views]
    outs = [Access.of(r.node, r.address) for r in roots]
    b, m, n, k = _classes(group)
    epilogue = _Epilogue(group.node.dtype)
    outputs = tuple([epilogue.result(order, r.value) for r in roots])
    ends = [*epilogue.extras, *outs]
    tiled = by_tiles((b, m, n, k), left, right, ends, group.node.dtype)
    if tiled is not None:
        left, right, dims = tiled.a, tiled.b, tiled.dims
    else:
        if _score(left, outs[0], m) > _score(right, outs[0], n):
            left, right, m, n = right, left, n, m
        classes = _arrange((b, m, n, k), left, right, outs[0])
        dims = [_merged(atoms, [left, right, *ends]) for atoms in classes]
    everything = [left, right, *ends]
    kernel = Contraction(
        name="contract",
        dims=(len(dims[0]), len(dims[1]), len(dims[2]), len(dims[3])),
        a=_operand(left, dims, "kmn"),
        b=_operand(right, dims, "nkm"),
        extras=tuple([_extra(e, dims) for e in epilogue.extras]),
        out=tuple([_operand(o, dims, "nmk") for o in outs]),
        accumulator=group.node.dtype,
        outputs=outputs,
        winograd="" if tiled is None else tiled.kind,
    )
    flat = [axis for class_ in dims for axis in class_]
    sizes = [axis.extent for axis in flat]
    for access in everything:
        sizes += [access.along(axis) for axis in flat]
    buffers = []
    for access in everything:
        slot, offset = places[access.node]
        buffers.append((slot, offset + access.offset * access.node.dtype.itemsize))
    count = sh.count([axis.extent for class_ in dims[:3] for axis in class_])
    return Launch(
        kernel=kernel,
        buffers=tuple(buffers),
        sizes=tuple(sizes),
        tasks=0,
        label=label_of(order, ("contract",)),
        sites=_sites(group.node, order),
        flop=2 * count * sh.count([axis.extent for axis in dims[3]]) + count * len(order),
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


def _score(b: Access, out: Access, n: list[Atom]) -> int:
    """How well an operand serves as B: vectors run along `n` in B and in the result."""
    if not n:
        return -8
    last = _sorted(n, _first_with_unit(n, b, out))[-1]
    return 4 * (b.step.get(last) == 1) + 2 * (out.step.get(last) == 1)


def _arrange(classes: Classes, a: Access, b: Access, out: Access) -> Classes:
    """Dimensions from outer to inner: each class as it lies in what has unit stride along it."""
    batch, m, n, k = classes
    return (
        _sorted(batch, out),
        _sorted(m, _first_with_unit(m, a, out)),
        _sorted(n, _first_with_unit(n, b, out)),
        _sorted(k, _first_with_unit(k, a, b)),
    )


def _first_with_unit(atoms: Sequence[Atom], *accesses: Access) -> Access:
    for access in accesses:
        if any(access.step.get(t) == 1 for t in atoms):
            return access
    return accesses[-1]


def _sorted(atoms: list[Atom], access: Access) -> list[Atom]:
    return sorted(atoms, key=lambda t: -abs(access.step.get(t, 0)))


def _merged(atoms: Sequence[Atom], accesses: Sequence[Access]) -> Dims:
    """Neighbouring dimensions as one, wherever every buffer steps through both as through one."""
    out: Dims = []
    for atom in reversed(atoms):
        axis = Axis.of(atom)
        if out:
            inner = out[0]
            if all(a.along(axis) == a.along(inner) * inner.extent for a in accesses):
                out[0] = Axis(inner.atom, inner.extent * axis.extent)
                continue
        out.insert(0, axis)
    return out


def _operand(access: Access, dims: Sequence[Dims], prefer: str) -> Operand:
    """The class along which a buffer has unit stride, in an order of preference."""
    for name in prefer:
        inner = dims["bmnk".index(name)]
        if inner and access.along(inner[-1]) == 1:
            return Operand(access.node.dtype, name)
    return Operand(access.node.dtype, "")


def _extra(access: Access, dims: Sequence[Dims]) -> Operand:
    """An extra operand: `"0"` where one value serves a whole row of the result."""
    if not any(access.along(axis) for axis in dims[2]):
        return Operand(access.node.dtype, "0")
    return _operand(access, dims, "nmk")


class _Epilogue:
    """Values as expressions over the accumulator and the extra operands."""

    def __init__(self, accumulator: DType) -> None:
        self.accumulator = accumulator
        self.extras: list[Access] = []
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
                self.extras.append(Access.of(*key))
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
