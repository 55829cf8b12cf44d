"""Lowering of scatters: zeros, then a serial accumulation over the positions.

Positions may repeat, so they are visited in order by one task; the other dimensions, along which
nothing can collide, are what runs in parallel and in lanes.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from treadle.base import shape as sh
from treadle.base.symbolic import derived
from treadle.graph.emit import Emitter
from treadle.graph.group import Group
from treadle.graph.index import Affine, Atom, Space
from treadle.graph.layout import Layout
from treadle.graph.nest import Nest, Piece, cut
from treadle.graph.plan import Launch, Place
from treadle.graph.pull import Pull, values_of
from treadle.graph.values import annotate, dims_of, name_values, ordered
from treadle.ir.loop import Accumulate, Const, Store
from treadle.ir.node import Node
from treadle.ops.gather import SCATTER_ADD, bounded

NARROWEST = 64
"""Neighbouring elements of a task: a few lines of memory."""


def _wide(size: int, extent: int) -> int:
    return min(max(size, NARROWEST), extent)


def scatter_group(
    number: int,
    node: Node,
    leaves: Set[Node],
    layouts: Mapping[Node, Layout],
    unrolled: Set[Node],
) -> Group:
    """The group of a scatter: `elements` are what is added and where, `rows` and `cols` the
    dimensions without and with collisions."""
    pull = Pull(Space(), leaves, layouts, unrolled)
    space = pull.space
    g, where = node.inputs
    axis = node.attrs[0]
    if node.op is SCATTER_ADD:
        count = len(where.shape)
        index = tuple([space.var(n) for n in g.shape])
        at = index[axis : axis + count]
        outer = [*index[:axis], *index[axis + count :]]
    else:
        index = tuple([space.var(n) for n in where.shape])
        at = index
        outer = [*index[:axis], *index[axis + 1 :]]
    added = pull.at(g, index)
    position = pull.at(where, at)
    pull.site = node.site
    inner = [a for a in index if a not in outer]
    group = Group(number, "scatter", pull, [], node=node)
    group.elements = [added, position]
    group.rows = _atoms(outer)
    group.cols = _atoms(inner)
    group.target = (*outer[:axis], pull.index_of(bounded(position, node.shape[axis])),
                    *outer[axis:])  # fmt: skip
    pull.keep()
    return group


def _atoms(index: list[Affine]) -> list[Atom]:
    return [t for a in index for t, _ in a.terms]


def lower_scatter(
    group: Group, layouts: Mapping[Node, Layout], places: Mapping[Node, Place]
) -> list[Launch]:
    """Fills the result with zeros, then adds at every position, in order."""
    node = group.node
    assert node is not None
    launches = [_zeros(node, places)]
    if sh.count(node.inputs[1].shape) and sh.count(node.inputs[0].shape):
        launches.append(_accumulate(group, node, layouts, places))
    return launches


def _zeros(node: Node, places: Mapping[Node, Place]) -> Launch:
    emitter = Emitter(places)
    nest = Nest(emitter)
    space = Space()
    count = sh.count(node.shape)
    index = space.var(count)
    group = Group(0, "loops", Pull(space, frozenset(), {}, frozenset()), [])
    for dim in dims_of(_atoms([index]), group):
        nest.parallel([], [Piece(dim, cut(count, 1))])
        nest.loop(dim, "vector")
    buffer = emitter.param(node, "out").name
    nest.inner.append(Store(buffer, emitter.affine(index), Const(0, node.dtype)))
    return emitter.launch("fill", nest.finish(), nest.tasks, "zeros", (), 0)


def _accumulate(
    group: Group,
    node: Node,
    layouts: Mapping[Node, Layout],
    places: Mapping[Node, Place],
) -> Launch:
    added = group.elements[0]
    address = layouts[node].address(group.space, group.target)
    order = ordered([added, *[v for t in group.target for v in values_of(t)]])
    annotate(group, order)
    emitter = Emitter(places)
    nest = Nest(emitter)
    rows, cols = dims_of(group.rows, group), dims_of(group.cols, group)
    added.uses += 1
    lanes = bool(rows) and (not cols or address.coefficient(rows[-1].atom) == 1)
    work = sh.count([d.extent for d in cols])
    if rows:
        size = cut(rows[-1].extent, work)
        if lanes:
            # Narrower tasks would read and write lines of memory in part, over and over.
            size = derived(_wide, size, rows[-1].extent, least=1)
        nest.parallel(rows[:-1], [Piece(rows[-1], size)])
        if not lanes:
            nest.loop(rows[-1], "serial")
    for d in cols:
        nest.loop(d, "serial")
    if lanes:
        nest.loop(rows[-1], "vector")
    dims = [*rows[:-1], *cols, rows[-1]] if lanes else [*rows, *cols]
    bound = name_values(order, dims)
    for v in order:
        if v in bound or v.node.op.name == "index":
            nest.place(v)
    buffer = emitter.param(node, "out")
    buffer.mode = "inout"
    value = emitter.value(added)
    nest.inner.append(Accumulate(buffer.name, emitter.affine(address), "add", value))
    flop = sh.count(node.inputs[0].shape)
    return emitter.launch("scatter", nest.finish(), nest.tasks, node.op.name, order, flop)
