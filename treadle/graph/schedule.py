"""The order of groups, and which outputs take over the memory of donated inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from treadle.base import shape as sh
from treadle.graph.fuse import Fusion
from treadle.graph.group import Group
from treadle.graph.layout import Layout
from treadle.graph.pull import Read, Value
from treadle.graph.values import Root, ordered, roots_of
from treadle.ir.node import Node


class Step:
    """A group with what it stores and reads, in the order in which it will run."""

    __slots__ = ("group", "loads", "reads", "roots", "stored", "values")

    def __init__(self, group: Group, stored: list[Node], reads: dict[Node, None]) -> None:
        self.group = group
        self.stored = stored
        self.roots: list[Root] = []
        self.values: list[Value] = []
        self.reads = reads
        self.loads: dict[Node, set] = {}


def steps_of(fusion: Fusion) -> list[Step]:
    """One step a group that stores something, each with its reads."""
    reads = [_outside_reads(group, fusion) for group in fusion.groups]
    needed = set(fusion.outputs).union(*reads)
    needed |= {x for padded, held in fusion.padding.items() if padded in needed for x in held}
    steps: list[Step] = []
    for group, read in zip(fusion.groups, reads, strict=True):
        nodes = list(group.members) or group.histories
        nodes = nodes or ([group.node] if group.node is not None else [])
        step = Step(group, [n for n in nodes if n in needed], read)
        if step.stored:
            _describe(step, fusion.layouts)
            steps.append(step)
    return steps


def _outside_reads(group: Group, fusion: Fusion) -> dict[Node, None]:
    """What a group reads from memory, in a fixed order."""
    out: list[Node] = []
    if group.operands is not None:
        out += [group.operands.left.base, group.operands.right.base]
    out += [x.view.base for x in group.strided.values()]
    if group.kind == "host":
        assert group.node is not None
        out += group.node.inputs
    if group.kind == "recurrence":
        assert group.node is not None
        out += [s.base for s in fusion.found.strips[group.node]]
    for v in ordered([*group.members.values(), *group.elements]):
        if isinstance(v.body, Read):
            out.append(v.body.node)
    return dict.fromkeys(out)


def _describe(step: Step, layouts: Mapping[Node, Layout]) -> None:
    group = step.group
    if group.kind in ("attention", "host", "scatter", "border", "recurrence"):
        return
    step.roots = roots_of(group, step.stored, layouts)
    step.values = ordered([r.value for r in step.roots])
    for v in step.values:
        if isinstance(v.body, Read):
            step.loads.setdefault(v.body.node, set()).add(v.body.address)


def in_place(step: Step, root: Root, node: Node) -> bool:
    """Whether a result may be written over a buffer that the same kernel reads: it is read at
    the element to be written and nowhere else, and not in a later pass over the row."""
    group = step.group
    if node.dtype is not root.node.dtype or step.loads.get(node) != {root.address}:
        return False
    if group.operands is not None:
        return node not in (group.operands.left.base, group.operands.right.base)
    if group.kind in ("columns", "scan") or not group.cols:
        return True
    full = any(root.address.mask & t.mask for t in group.cols)
    return not full or not any(v.kind == "reduce" for v in step.values)


def donate(
    steps: Sequence[Step], outputs: Mapping[Node, int], donated: Mapping[Node, int]
) -> dict[Node, Node]:
    """For outputs, the donated input whose memory each takes over; orders readers before it."""
    readers: dict[Node, list[Step]] = {n: [] for n in donated}
    for step in steps:
        for n in step.reads:
            if n in readers:
                readers[n].append(step)
    wanted: list[tuple[int, Node, Step, list[Node]]] = []
    for step in steps:
        for root in step.roots:
            if root.node in outputs:
                own, other = _choices(step, root, donated)
                # Those with least to choose from go first; those that overwrite nothing last.
                wanted.append((len(own) or len(donated) + 1, root.node, step, own + other))
    wanted.sort(key=lambda w: w[0])
    taken: dict[Node, Node] = {}
    used: set[Node] = set()
    for _, node, step, choices in wanted:
        for given in choices:
            if given not in used and _order_before(steps, readers[given], step):
                taken[node] = given
                used.add(given)
                break
    return taken


def _choices(step: Step, root: Root, donated: Mapping[Node, int]) -> tuple[list[Node], list[Node]]:
    """Donated inputs of the right size: those that this very result is computed from, element
    by element, and those that its kernel does not read at all."""
    size = sh.count(root.node.shape) * root.node.dtype.itemsize
    same = [n for n in donated if sh.count(n.shape) * n.dtype.itemsize == size and size]
    if not same:
        return [], []
    mine = {v.body.node for v in ordered([root.value]) if isinstance(v.body, Read)}
    own = [n for n in same if n in mine and in_place(step, root, n)]
    return own, [n for n in same if n not in step.reads]


def _order_before(steps: Sequence[Step], readers: Sequence[Step], writer: Step) -> bool:
    """Makes every other reader run before the writer, unless one must run after it."""
    bit = 1 << writer.group.number
    others = [r for r in readers if r is not writer]
    if any(r.group.ancestors & bit for r in others):
        return False
    grown = writer.group.ancestors
    for r in others:
        grown |= r.group.ancestors | 1 << r.group.number
    if grown != writer.group.ancestors:
        writer.group.ancestors = grown
        for step in steps:
            if step.group.ancestors & bit:
                step.group.ancestors |= grown
    return True


def sort(steps: Sequence[Step]) -> list[Step]:
    """Steps in an order that respects every ancestor, else as they were recorded."""
    waiting = sorted(steps, key=lambda s: s.group.number)
    alive = 0
    for s in waiting:
        alive |= 1 << s.group.number
    done = 0
    out: list[Step] = []
    while waiting:
        for i, step in enumerate(waiting):
            if not step.group.ancestors & alive & ~done:
                out.append(step)
                done |= 1 << step.group.number
                del waiting[i]
                break
        else:
            raise AssertionError("the groups of a plan wait for each other")
    return out
