"""Which nodes are computed once, as values of their own; all others are inlined into their users.

An anchor is what a kernel is grown around: results of the graph, reductions, contractions and
their operands, and pointwise values too dear to compute again. Cheap pointwise nodes, views,
constants and random bits are recomputed wherever they are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.base import shape as sh
from treadle.base.symbolic import now, surely, varies
from treadle.graph.index import Affine, Space
from treadle.graph.layout import Inside
from treadle.graph.strided import Strided, strided_operands
from treadle.graph.views import View, see_through
from treadle.ir.node import Node, topological
from treadle.ops.gather import JOIN
from treadle.ops.source import RANDOM_BITS
from treadle.ops.view import RESHAPE, SKEW, SPREAD, UNSLICE, regroup

SMALL_WINDOW = 16
"""Reductions over windows of at most this many elements are written out."""
DEAR = 8
"""An operation of this cost is not computed twice."""
DEAR_TREE = 48
"""Nor is an expression of this cost in all."""
FEW_PARTS = 4
"""Of more parts of a join, an element is not looked for again by everyone who reads it."""
LARGE_JOIN = 1 << 15
"""Elements from which on a join may be a kernel for each part."""
LONG_PART = 32
"""Neighbouring elements from which on a part is worth a kernel of its own."""
WHOLE_TREE = 1000
"""An expression of this cost is stored, so that no kernel grows without bound."""


_COMPUTED = frozenset({"input", "contract", "attention", "reduce", "scan", "recurrence"})
"""Kinds of nodes that an epilogue can read, but not compute."""


@dataclass(slots=True)
class Operands:
    """A contraction's labels as variables of a space, and its operands as views over bases."""

    space: Space
    labels: dict[int, Affine]
    left: View
    right: View


@dataclass(slots=True)
class Strip:
    """What a recurrence reads: contiguous pieces of a base, `step` elements apart from turn to
    turn (0: the same in each)."""

    base: Node
    offset: int
    step: int


@dataclass(slots=True)
class Anchors:
    """What `find` decided."""

    order: list[Node]
    users: dict[Node, list[Node]]
    anchors: set[Node]
    row_major: set[Node]
    unrolled: set[Node]
    operands: dict[Node, Operands]
    strided: dict[Node, dict[str, Strided]]
    inside: dict[Node, Inside]
    strips: dict[Node, list[Strip]]


def contraction_operands(node: Node) -> Operands:
    """A variable per label, and both operands traced to what must be in memory."""
    left, right, _ = node.attrs
    space = Space()
    labels: dict[int, Affine] = {}
    for x, names in zip(node.inputs, (left, right), strict=True):
        for label, extent in zip(names, x.shape, strict=True):
            if label not in labels:
                labels[label] = space.var(extent)
    views = [
        see_through(space, x, tuple([labels[name] for name in names]))
        for x, names in zip(node.inputs, (left, right), strict=True)
    ]
    return Operands(space, labels, views[0], views[1])


def strips_of(node: Node) -> list[Strip]:
    """Where the inputs of a recurrence are; views along whole turns need no copy."""
    body = node.attrs[0]
    return [
        _strip(x, body.carries <= i < body.carries + body.slices) for i, x in enumerate(node.inputs)
    ]


def _strip(x: Node, is_sequence: bool) -> Strip:
    space = Space()
    index = tuple([space.var(n) for n in x.shape])
    view = see_through(space, x, index)
    address = space.dot(view.index, sh.strides(view.base.shape))
    found = dict(address.terms)
    steps = [found.get(a.terms[0][0], 0) if a.terms else 0 for a in index]
    wanted = [s if n != 1 else 0 for n, s in zip(x.shape, sh.strides(x.shape), strict=True)]
    if steps[is_sequence:] == wanted[is_sequence:] and view.base.op is not UNSLICE:
        return Strip(view.base, address.const, steps[0] if is_sequence else 0)
    return Strip(x, 0, wanted[0] if is_sequence else 0)


def find(outputs: Sequence[Node]) -> Anchors:
    """Decides for every node that the outputs need."""
    order = topological(outputs)
    users: dict[Node, list[Node]] = {node: [] for node in order}
    for node in order:
        for i in node.inputs:
            if not users[i] or users[i][-1] is not node:
                users[i].append(node)
    found = Anchors(order, users, set(outputs), set(outputs), set(), {}, {}, {}, {})
    for node in order:
        kind = node.op.kind
        if kind == "contract":
            operands = found.operands[node] = contraction_operands(node)
            for view in (operands.left, operands.right):
                found.anchors.add(view.base)
                if not view.flexible or view.base.op is UNSLICE:
                    found.row_major.add(view.base)
        elif kind == "attention":
            found.strided[node] = strided_operands(node)
            bases = [x.view.base for x in found.strided[node].values()]
            found.anchors.update(bases)
            found.row_major.update(bases)
        elif kind == "recurrence":
            strips = found.strips[node] = strips_of(node)
            bases = [s.base for s in strips]
            found.anchors.update(bases)
            found.row_major.update(bases)
            found.row_major.add(node)
        elif kind == "host":
            found.anchors.update(node.inputs)
            found.row_major.update(node.inputs)
            found.row_major.add(node)
        elif kind == "reduce" and _over_window(node):
            found.unrolled.add(node)
            continue
        if in_parts(node) and len(node.inputs) > FEW_PARTS:
            found.anchors.add(node)
        if kind in ("contract", "attention", "host", "scatter", "reduce", "scan", "recurrence"):
            found.anchors.add(node)
    _pad_in_place(found)
    _join_in_place(found)
    _epilogues(found)
    _dear(found)
    return found


def in_parts(node: Node) -> bool:
    """Whether a join, where it is stored, is so part by part: most of it lies in long runs."""
    if node.op is not JOIN:
        return False
    size = sh.count(node.shape)
    # One whose size varies is large for all sizes, where it is nearly large enough now.
    if now(size) < (LARGE_JOIN // 8 if varies(size) else LARGE_JOIN) and size < LARGE_JOIN:
        return False
    (axis,) = node.attrs
    inner = sh.count(node.shape[axis + 1 :])
    short = [sh.count(x.shape) for x in node.inputs if x.shape[axis] * inner < LONG_PART]
    return 8 * sum(short) <= sh.count(node.shape)


def _pad_in_place(found: Anchors) -> None:
    """What a padded image is made of is written straight into it: padding costs its border."""
    done: set[Node] = set()
    for operands in found.operands.values():
        for view in (operands.left, operands.right):
            padded = view.base
            if padded.op is UNSLICE and padded not in done and 0 not in padded.shape:
                done.add(padded)
                _put_inside(found, padded)


def _put_inside(found: Anchors, padded: Node) -> None:
    _, starts, steps = padded.attrs
    image = padded.inputs[0]
    if any(s != 1 for s in steps) or image.shape == padded.shape:
        return
    placed = _inside_of(found, padded, image, starts)
    if placed is not None:
        x, found.inside[x] = placed
        found.anchors.add(x)


def _inside_of(
    found: Anchors, whole: Node, part: Node, starts: Sequence[int]
) -> tuple[Node, Inside] | None:
    """What a part of a buffer is made of, if that can be written straight into it."""
    space = Space()
    index = tuple([space.var(n) for n in part.shape])
    view = see_through(space, part, index)
    x = view.base
    axis_of = {a.single: d for d, a in enumerate(index) if a.terms}
    axes = tuple([axis_of.get(a.single, -1) if a.terms else -1 for a in view.index])
    plain = all(d >= 0 or not a.terms for d, a in zip(axes, view.index, strict=True))
    computed = x.op.kind in ("pointwise", "contract") or x in found.unrolled
    free = computed and x not in found.row_major and x not in found.inside
    if plain and free and sh.count(x.shape) == sh.count(part.shape):
        return x, Inside(whole, tuple(starts), axes)
    return None


def _join_in_place(found: Anchors) -> None:
    """The parts of a join that is stored are written straight into it."""
    for whole in found.order:
        if whole.op is not JOIN or whole not in found.anchors or 0 in whole.shape:
            continue
        (axis,) = whole.attrs
        placed: dict[Node, Inside] = {}
        at = 0
        for part in whole.inputs:
            starts = [at if d == axis else 0 for d in range(len(whole.shape))]
            one = _inside_of(found, whole, part, starts)
            if one is None or one[0] in placed:
                break
            placed[one[0]] = one[1]
            at += part.shape[axis]
        else:
            found.inside |= placed
            found.anchors |= placed.keys()


def _over_window(node: Node) -> bool:
    """Whether a reduction runs over the few elements of a window: dimensions that a sliding
    window or a reshape has made out of others."""
    if node.op.name == "partial":
        return False
    (axes,) = node.attrs
    x = node.inputs[0]
    rank = len(x.shape)
    small = [x.shape[a] for a in axes]
    stack = [x]
    for _ in range(64):
        if not stack:
            return False
        at = stack.pop()
        if at.op is SKEW or at.op is SPREAD:
            return min(axes) >= rank - len(at.attrs[0]) and _is_small(small)
        if at.op is RESHAPE:
            return _are_split(at, axes) and _is_small(small)
        if at.op.kind == "pointwise" or at.op.name == "expand":
            stack += [i for i in at.inputs if len(i.shape) == rank]
    return False


def _is_small(window: Sequence[int]) -> bool:
    """Whether a window has few elements, of a number that does not vary."""
    return not any(varies(n) for n in window) and sh.count(window) <= SMALL_WINDOW


def _are_split(node: Node, axes: tuple[int, ...]) -> bool:
    """Whether a reshape has cut each of these axes out of a longer one."""
    cut: set[int] = set()
    for source, target in regroup(node.inputs[0].shape, node.shape):
        if len(source) == 1 and len(target) > 1:
            cut.update(target[1:])
    return cut.issuperset(axes)


def _epilogues(found: Anchors) -> None:
    """The end of the pointwise chain behind what a kernel computes is stored in its place."""
    for node in found.order:
        kind = node.op.kind
        if kind not in ("contract", "reduce", "scan", "scatter") or node in found.unrolled:
            continue
        end = at = node
        while at not in found.row_major:
            user = _only_user(found, at)
            if user is None or sh.count(user.shape) != sh.count(node.shape):
                break
            pointwise = user.op.kind == "pointwise"
            if not pointwise and user.op.name not in ("reshape", "permute"):
                break
            if pointwise and node.op.kind == "contract" and not _stored(found, user, at):
                break
            at = user
            if pointwise:
                end = at
        if end is not node:
            found.anchors.add(end)


def _only_user(found: Anchors, node: Node) -> Node | None:
    """The one node through which everything goes that uses a node: `where(x > 0, x, 0)`."""
    users = found.users[node]
    if not users:
        return None
    last = users[-1]
    for other in users[:-1]:
        if other.op.kind != "pointwise" or found.users[other] != [last] or other in found.anchors:
            return None
    return last


def _stored(found: Anchors, user: Node, at: Node) -> bool:
    """Whether a contraction's epilogue can do an operation on `at`, maybe after what has been
    looked up in tables, for others as well, is stored: the residual stream behind an embedding."""
    if _strided(found, user):
        return True
    others = [x for x in user.inputs if x is not at and not _strided(found, x)]
    plain = user.op.kind == "pointwise" and user.op.name != "check" and _strided(found, at)
    if plain and all(len(found.users[x]) > 1 and _strided(found, x, True) for x in others):
        found.anchors.update(others)
        return True
    return False


def _strided(found: Anchors, node: Node, lookups: bool = False) -> bool:
    """Whether a contraction's epilogue can do an operation: no counters, no random bits, and
    unless `lookups` are let pass no gathers."""
    stack = [node]
    seen: set[Node] = set()
    while stack:
        at = stack.pop()
        if at in seen or at in found.anchors or at.op.kind in _COMPUTED:
            continue
        seen.add(at)
        if lookups and at.op.kind == "gather":
            continue
        plain = at.op.kind == "pointwise" and at.op.name != "check"
        if not plain and at.op.name not in ("reshape", "permute", "expand", "full"):
            return False
        stack += at.inputs
    return True


def _dear(found: Anchors) -> None:
    """Pointwise values that more than one user would compute again, at a price."""
    total: dict[Node, int] = {}
    for node in found.order:
        kind = node.op.kind
        users = found.users[node]
        if kind == "input" or node in found.anchors:
            total[node] = 1
            continue
        cost = node.op.cost if kind == "pointwise" else 0
        if node.op is RANDOM_BITS:
            cost = DEAR - 1
        times = 1
        if node in found.unrolled:
            times = sh.count([node.inputs[0].shape[a] for a in node.attrs[0]])
            x = node.inputs[0]
            if total[x] * times > 4 * DEAR_TREE and x.op.kind == "pointwise":
                found.anchors.add(x)
                total[x] = 1
        total[node] = cost + times * sum([total[i] for i in node.inputs])
        if kind == "pointwise" or node in found.unrolled:
            repeated = len(users) > 1 and (cost >= DEAR or total[node] > DEAR_TREE)
            wider = cost >= 4 and _is_wider(node, users)
            if repeated or wider or total[node] > WHOLE_TREE:
                found.anchors.add(node)
                total[node] = 1


def _is_wider(node: Node, users: Sequence[Node]) -> bool:
    """Whether a user has more elements, and so would compute a value many times."""
    count = sh.count(node.shape)
    others = [u for u in users if u.op.kind != "contract"]
    return count > 1 and any(surely(sh.count(u.shape) - count, 1) for u in others)
