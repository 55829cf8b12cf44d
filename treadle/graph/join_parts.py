"""Arrays one after another: each part is computed by itself, straight into its place.

Element by element, a join asks of every element which part it is in. That is what is wanted of
few or short parts, and where the reader goes on computing; long parts that are to be stored are
a kernel each, without questions.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set

from treadle.base import shape as sh
from treadle.graph.emit import Emitter
from treadle.graph.group import Group
from treadle.graph.index import Space
from treadle.graph.layout import Layout
from treadle.graph.loop_order import loop_order
from treadle.graph.loops import pointwise
from treadle.graph.nest import Nest
from treadle.graph.plan import Launch, Place
from treadle.graph.pull import Pull
from treadle.graph.values import Root, annotate, dims_of, merge, ordered, roots_of
from treadle.ir.node import Node


def join_group(
    number: int,
    node: Node,
    leaves: Set[Node],
    layouts: Mapping[Node, Layout],
    unrolled: Set[Node],
) -> Group:
    """The group of a join: one of `parts` for each input, at its place in the result."""
    pull = Pull(Space(), leaves, layouts, unrolled)
    space = pull.space
    group = Group(number, "join", pull, [], node=node)
    (axis,) = node.attrs
    start = 0
    for x in node.inputs:
        if sh.count(x.shape):
            index = [space.var(n) for n in x.shape]
            place = list(index)
            place[axis] = space.add(index[axis], space.const(start))
            group.parts.append(pull.renamed(node, tuple(place), x, tuple(index)))
        start += x.shape[axis]
    group.elements = group.parts
    pull.members[node] = group.parts[0]
    pull.keep()
    return group


def lower_join(
    group: Group,
    stored: Iterable[Node],
    layouts: Mapping[Node, Layout],
    places: Mapping[Node, Place],
) -> list[Launch]:
    """One launch a part."""
    return [_part(group, root, places) for root in roots_of(group, stored, layouts)]


def _part(group: Group, root: Root, places: Mapping[Node, Place]) -> Launch:
    order = ordered([root.value])
    indices = [*annotate(group, order), root.address]
    own = [t for a in root.value.index for t, _ in a.terms]
    dims = merge(dims_of(loop_order(own, order, True), group), indices)
    nest = Nest(Emitter(places))
    work = sum([v.node.op.cost if v.kind == "expr" else 1 for v in order])
    pointwise(nest, [root], order, dims, work)
    # What is noted for the result is the whole of it.
    rest = sh.count(root.node.shape) - sh.count([d.extent for d in dims])
    nest.emitter.bytes -= rest * root.node.dtype.itemsize
    return nest.launch("pointwise", order, dims)
