"""Fusion: anchors, in order, each join the kernel of what they read, or found a new one.

A join is tried, not proved beforehand: the anchor is pulled at the index that its kernel would
give it, and the join holds if every node of that kernel is then read at the very element at hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from treadle.base import shape as sh
from treadle.base.symbolic import fixed, now, surely, varies
from treadle.graph import anchors as an
from treadle.graph.downs import ENOUGH, reaches, sums_behind
from treadle.graph.group import (
    Chunk,
    Frame,
    Group,
    invert,
    propose,
    squeezed,
)
from treadle.graph.index import Affine, Atom, Space, atoms_of
from treadle.graph.join_parts import join_group
from treadle.graph.layout import Layout, in_loop_order, row_major
from treadle.graph.loop_order import MIN_LANES, loop_order
from treadle.graph.pull import Index, Pull, Read, Value
from treadle.graph.scatter import scatter_group
from treadle.graph.strided import same_kernel
from treadle.graph.values import affines_in
from treadle.ir.loop import Const, Expr, Intrinsic
from treadle.ir.node import Node
from treadle.ops.recurrence import key_of
from treadle.ops.scan import SCAN_PIECES

LARGEST = 600
"""Values of a kernel from which on nothing joins it: compilers take long over long code."""
_ALONE = frozenset({"contract", "attention", "host", "scatter", "recurrence"})
"""Kinds of anchors that join no kernel."""
LARGE = 1 << 15
"""Elements from which on a reduction must not lose the parallelism of its rows."""


class Fusion:
    """The groups of a graph, and how every stored node lies in memory."""

    def __init__(self, outputs: Sequence[Node], inputs: Sequence[Node]) -> None:
        self.found = an.find(outputs)
        self.outputs = set(outputs)
        self.leaves: set[Node] = self.found.anchors | set(inputs)
        self.layouts: dict[Node, Layout] = {n: row_major(n.shape) for n in inputs}
        self.padding: dict[Node, list[Node]] = {}
        for x, inside in self.found.inside.items():
            self.padding.setdefault(inside.padded, []).append(x)
        self.groups: list[Group] = []
        self.group_of: dict[Node, Group] = {}
        self._readers: dict[Node, list[Group]] = {}
        self._recurrences: dict[Any, Group] = {}
        given = set(inputs)
        for node in sums_behind(self.found.order, self._reads):
            if node in self.found.anchors and node not in given and node.op.kind != "input":
                self._place(node)

    # --- placing one anchor --------------------------------------------------------------------

    def _place(self, node: Node) -> None:
        kind = node.op.kind
        read = self._reads(node)
        needs = {self.group_of[n].number: self.group_of[n] for n in read if n in self.group_of}
        ancestors = 0
        for g in needs.values():
            ancestors |= g.ancestors | 1 << g.number
        group = None
        free = kind not in _ALONE and node not in self.padding and not an.in_parts(node)
        if free and sh.count(node.shape):
            group = self._join(node, read, needs)
        if kind == "recurrence":
            group = self._recurrences.get(key_of(node))
        if kind == "attention":
            group = self._join_attention(node, needs)
        if group is None:
            group = self._found(node)
            # Zeros around a node can be written at any time.
            group.ancestors = ancestors if node not in self.padding else 0
        else:
            self._inherit(group, ancestors & ~(1 << group.number))
        if kind == "recurrence":
            group.histories.append(node)
        self.group_of[node] = group
        for n in read:
            readers = self._readers.setdefault(n, [])
            if group not in readers:
                readers.append(group)
        self.layouts[node] = self._layout(group, node)

    def _layout(self, group: Group, node: Node) -> Layout:
        """How a member of a group is stored."""
        inside = self.found.inside.get(node)
        if inside is not None:
            return inside.layout
        apart = node in self.found.row_major or node not in group.members
        if apart or group.kind in ("scan", "join"):
            return row_major(node.shape)
        order = [*group.rows, *group.cols]
        return in_loop_order(node.shape, group.members[node].index, order)

    def _inherit(self, group: Group, ancestors: int) -> None:
        """A group that grew passes its new ancestors on to all that come after it."""
        group.ancestors |= ancestors
        bit = 1 << group.number
        for other in self.groups:
            if other.ancestors & bit:
                other.ancestors |= group.ancestors

    def _reads(self, node: Node) -> list[Node]:
        """The leaves in memory below a node."""
        operands = self.found.operands.get(node)
        stack = [operands.left.base, operands.right.base] if operands else list(node.inputs)
        if node in self.found.strided:
            stack = [x.view.base for x in self.found.strided[node].values()]
        if node in self.found.strips:
            stack = [s.base for s in self.found.strips[node]]
        out: list[Node] = []
        seen: set[Node] = set()
        while stack:
            at = stack.pop()
            if at in seen:
                continue
            seen.add(at)
            if at in self.leaves:
                out.append(at)
                if at in self.padding:
                    out += self.padding[at]
            else:
                stack += at.inputs
        return out

    # --- joining -------------------------------------------------------------------------------

    def _join(self, node: Node, read: list[Node], needs: dict[int, Group]) -> Group | None:
        # What a node reads from memory is not complete in the kernel that still writes parts of it.
        tried = {self.group_of[x].number for n in read for x in self.padding.get(n, ())}
        for group in sorted(needs.values(), key=lambda g: (_delay(g, needs), -g.number)):
            if group.number in tried:
                continue
            tried.add(group.number)
            if self._may_join(group, needs) and self._try(group, node, read):
                return group
        for leaf in read:
            for group in self._readers.get(leaf, ()):
                if group.number in tried or group.kind == "contract":
                    continue
                # Sizes are compared last: what they decide holds for some shapes only.
                if not self._may_join(group, needs) or not _comparable(group, node):
                    tried.add(group.number)
                elif _as_large(leaf, node):
                    tried.add(group.number)
                    if self._try(group, node, read):
                        return group
        return None

    def _may_join(self, group: Group, needs: dict[int, Group]) -> bool:
        """Whether no other group that the anchor needs must itself run after this one."""
        # A kernel that writes the places of a window out stores them for one node.
        if group.parts or group.kind in ("attention", "host", "scatter", "border", "recurrence"):
            return False
        if group.pull.size > LARGEST:
            return False
        if group.parts:
            # Each part is another place within a window; one index does not reach them all.
            return False
        bit = 1 << group.number
        return not any(g.ancestors & bit for g in needs.values() if g is not group)

    def _try(self, group: Group, node: Node, read: list[Node]) -> bool:
        if node.op.kind == "reduce" and node not in self.found.unrolled:
            return self._try_reduction(group, node)
        if node.op.kind == "scan":
            return self._try_scan(group, node)
        for frame in self._frames(group, node):
            index = propose(group.space, frame, node.shape)
            if index is not None and self._attempt(group, node, index):
                return True
        return group.kind != "scan" and self._try_inverse(group, node, read)

    def _join_attention(self, node: Node, needs: dict[int, Group]) -> Group | None:
        """Gradients of one attention share a kernel, and so do its result and its lse."""
        for group in reversed(self.groups):
            if group.kind == "attention" and any(same_kernel(node, x) for x in group.members):
                bit = 1 << group.number
                if any(g.ancestors & bit for g in needs.values() if g is not group):
                    return None
                group.strided = group.strided | self.found.strided[node]
                self._compute(group, node)
                return group
        return None

    def _compute(self, group: Group, node: Node) -> None:
        """Makes a node a member of a kernel that is no loop nest."""
        index = tuple([group.space.var(n) for n in node.shape])
        group.pull.members[node] = group.pull.accumulator(node, index)

    def _frames(self, group: Group, node: Node) -> list[Frame]:
        if group.kind == "scan":
            # The index may run backwards: it is not taken apart.
            same = squeezed(node.shape) == squeezed(group.frames[0].shape)
            return group.frames if same else []
        return group.frames[1:] if group.kind == "columns" else group.frames

    def _attempt(self, group: Group, node: Node, index: Index) -> bool:
        pull = group.pull
        value = pull.at(node, index, own=True)
        if (
            pull.conflict
            or reaches(value, group.downs)
            or (group.kind == "contract" and not _plain(pull.fresh))
        ):
            pull.undo()
            return False
        pull.members[node] = value
        if group.kind == "contract":
            address = self._layout(group, node).address(group.space, index)
            if not address.is_linear:
                del pull.members[node]
                pull.undo()
                return False
        pull.keep()
        return True

    def _try_inverse(self, group: Group, node: Node, read: list[Node]) -> bool:
        """Pulls the anchor over its own variables, to see where it reads the group's nodes."""
        members = [n for n in read if n in group.members]
        if not members or all(sh.count(n.shape) != sh.count(node.shape) for n in members):
            return False
        space = group.space
        variables = tuple([space.var(n) for n in node.shape])
        probe = Pull(space, self.leaves, self.layouts, self.found.unrolled)
        probe.at(node, variables, own=True)
        for value in probe.fresh:
            member = group.members.get(value.node)
            if member is None or sh.count(value.node.shape) != sh.count(node.shape):
                continue
            index = invert(space, variables, value.index, member.index)
            return index is not None and self._attempt(group, node, index)
        return False

    def _try_scan(self, group: Group, node: Node) -> bool:
        """Joins a scan along the same axis, in the same direction, as a whole."""
        first = group.node
        if group.kind != "scan" or first is None or group.chunk or node.op is SCAN_PIECES:
            return False
        if node.shape != first.shape or node.attrs != first.attrs:
            return False
        pull = group.pull
        value = pull.scan(node, group.frames[0].index)
        if pull.conflict:
            pull.undo()
            return False
        pull.members[node] = value
        pull.keep()
        return True

    def _try_reduction(self, group: Group, node: Node) -> bool:
        if group.kind not in ("loops", "columns") or not group.frames:
            return False
        x = node.inputs[0]
        frame = group.frames[0]
        if squeezed(frame.shape) != squeezed(x.shape):
            return False
        inner = propose(group.space, frame, x.shape)
        if inner is None:
            return False
        cols = {t for a in node.attrs[0] for t, _ in inner[a].terms}
        partial = node.op.name == "partial"
        if partial and group.kind == "loops" and group.cols and cols == set(group.rows):
            return not group.chunk and self._try_down(group, node, inner)
        if group.cols:
            same_chunk = (group.chunk is not None) == partial
            if set(group.cols) != cols or not same_chunk:
                return False
            if partial and group.chunk is not None and node.attrs[3] != group.chunk.size:
                return False
        elif partial or group.kind == "columns" or not self._rows_allow(group, cols, x):
            return False
        index = self._reduced_index(group, node, inner)
        return self._attempt_reduction(group, node, index, inner, cols)

    def _try_down(self, group: Group, node: Node, inner: Index) -> bool:
        """Adds up over a piece of the rows what the kernel has at hand of each: gradients of a
        weight beside those of the rows that it was applied to."""
        _, _, axis, size = node.attrs
        pieces = node.shape[axis]
        if inner[axis].single is not group.rows[0] or now(pieces) < ENOUGH:
            return False
        if group.down is None:
            piece = group.space.var(pieces).terms[0][0]
            down = Chunk(group.rows[0], piece, size, inner[axis].single.hi + 1)
        elif group.down.size == size:
            down = group.down
        else:
            return False
        index = [group.space.zero if d in node.attrs[0] else a for d, a in enumerate(inner)]
        index[axis] = group.space.make(((down.piece, 1),), 0)
        pull = group.pull
        value = pull.reduction(node, tuple(index), inner)
        if pull.conflict or reaches(value.args[0], group.downs):
            pull.undo()
            return False
        pull.members[node] = value
        pull.keep()
        group.down = down
        group.downs.add(value)
        return True

    def _rows_allow(self, group: Group, cols: set[Atom], x: Node) -> bool:
        """Whether a pointwise group may become one of rows reduced along `cols`."""
        if not group.rows or group.rows[-1] not in cols:
            return False
        kept = sh.count([t.hi + 1 for t in group.rows if t not in cols])
        return varies(kept) or kept >= 16 or sh.count(x.shape) < LARGE

    def _reduced_index(self, group: Group, node: Node, inner: Index) -> Index:
        out = [group.space.zero if d in node.attrs[0] else a for d, a in enumerate(inner)]
        if node.op.name == "partial" and group.chunk is not None:
            out[node.attrs[2]] = group.space.make(((group.chunk.piece, 1),), 0)
        return tuple(out)

    def _attempt_reduction(
        self, group: Group, node: Node, index: Index, inner: Index, cols: set[Atom]
    ) -> bool:
        pull = group.pull
        value = pull.reduction(node, index, inner)
        inside = group.kind == "columns" and _reaches_members(value.args[0], group)
        inside = inside or reaches(value.args[0], group.downs)
        if pull.conflict or inside:
            pull.undo()
            return False
        pull.members[node] = value
        pull.keep()
        if not group.cols:
            group.cols = [t for t in group.rows if t in cols]
            group.rows = [t for t in group.rows if t not in cols]
        if len(group.frames) == 1:
            group.frames.append(Frame(node.shape, index))
        return True

    # --- new groups ----------------------------------------------------------------------------

    def _found(self, node: Node) -> Group:
        kind = node.op.kind
        if kind == "contract":
            group = self._new_contraction(node)
        elif kind == "scatter":
            group = scatter_group(
                len(self.groups), node, self.leaves, self.layouts, self.found.unrolled
            )
        elif kind == "attention":
            pull = Pull(Space(), self.leaves, self.layouts, self.found.unrolled)
            group = Group(len(self.groups), kind, pull, [], node=node)
            group.strided = self.found.strided[node]
            self._compute(group, node)
        elif kind == "recurrence":
            pull = Pull(Space(), self.leaves, self.layouts, self.found.unrolled)
            group = Group(len(self.groups), kind, pull, [], node=node)
            self._recurrences[key_of(node)] = group
        elif kind == "scan":
            group = self._new_scan(node)
        elif an.in_parts(node) and node not in self.padding:
            group = join_group(
                len(self.groups), node, self.leaves, self.layouts, self.found.unrolled
            )
        elif kind == "host" or node in self.padding:
            pull = Pull(Space(), self.leaves, self.layouts, self.found.unrolled)
            kind = "host" if kind == "host" else "border"
            group = Group(len(self.groups), kind, pull, [], node=node)
        elif kind == "reduce" and node not in self.found.unrolled:
            group = self._new_reduction(node)
        else:
            group = self._new_pointwise(node)
        self.groups.append(group)
        return group

    def _new_contraction(self, node: Node) -> Group:
        operands = self.found.operands[node]
        pull = Pull(operands.space, self.leaves, self.layouts, self.found.unrolled)
        index = tuple([operands.labels[label] for label in node.attrs[2]])
        group = Group(len(self.groups), "contract", pull, [Frame(node.shape, index)], node=node)
        group.operands = operands
        group.rows = [t for a in index for t, _ in a.terms]
        pull.members[node] = pull.accumulator(node, index)
        return group

    def _new_pointwise(self, node: Node) -> Group:
        space = Space()
        pull = Pull(space, self.leaves, self.layouts, self.found.unrolled)
        index = tuple([space.var(n) for n in node.shape])
        value = pull.at(node, index, own=True)
        order = [t for a in index for t, _ in a.terms]
        order = loop_order(order, pull.fresh, node in self.found.row_major)
        group = Group(len(self.groups), "loops", pull, [], order)
        radices = _radices(index, order, pull.fresh)
        if radices:
            window = any(v.node in self.found.unrolled for v in pull.fresh)
            pull.undo()
            self._split(group, node, index, radices, window)
        else:
            pull.members[node] = value
            group.frames = [Frame(node.shape, index)]
        pull.keep()
        return group

    def _split(
        self, group: Group, node: Node, index: Index, radices: dict[Atom, list[int]], window: bool
    ) -> None:
        """Counts dimensions in mixed radices; places within a window are written out side by
        side, since they share most of what they read."""
        space, pull = group.space, group.pull
        parts: dict[Atom, Affine] = {}
        places: list[dict[Atom, int]] = [{}]
        for atom, digits in radices.items():
            steps = sh.strides(digits)
            outer = digits
            if window and len(places) * digits[-1] <= an.SMALL_WINDOW:
                outer = digits[:-1]
                places = [{**p, atom: k} for p in places for k in range(fixed(digits[-1]))]
            parts[atom] = space.dot([space.var(n) for n in outer], steps[: len(outer)])
        group.rows = [
            t
            for atom in group.rows
            for t, _ in (sorted(parts[atom].terms, key=_step) if atom in parts else [(atom, 1)])
        ]
        for place in places:
            at = [
                space.add(parts[a.single], space.const(place.get(a.single, 0)))
                if a.single in parts
                else a
                for a in index
            ]
            group.parts.append(pull.at(node, tuple(at), own=True))
        pull.members[node] = group.parts[0]
        if len(places) == 1:
            group.frames = [Frame(node.shape, group.parts.pop().index)]

    def _new_reduction(self, node: Node) -> Group:
        space = Space()
        pull = Pull(space, self.leaves, self.layouts, self.found.unrolled)
        x = node.inputs[0]
        inner = tuple([space.var(n) for n in x.shape])
        chunk = None
        extra: list[Atom] = []
        if node.op.name == "partial":
            _, _, axis, size = node.attrs
            piece = space.var(node.shape[axis])
            if piece.terms:
                extra = [piece.terms[0][0]]
                chunk = Chunk(inner[axis].terms[0][0], extra[0], size, x.shape[axis])
        group = Group(len(self.groups), "loops", pull, [Frame(x.shape, inner)], chunk=chunk)
        index = self._reduced_index(group, node, inner)
        value = pull.reduction(node, index, inner)
        atoms = loop_order([t for a in inner for t, _ in a.terms], pull.fresh, False)
        cols = {t for a in node.attrs[0] for t, _ in inner[a].terms}
        group.cols = [t for t in atoms if t in cols]
        group.rows = extra + [t for t in atoms if t not in cols]
        group.kind = "loops" if not atoms or atoms[-1] in cols else "columns"
        group.frames.append(Frame(node.shape, index))
        pull.members[node] = value
        pull.keep()
        return group

    def _new_scan(self, node: Node) -> Group:
        """Loops over all dimensions but one around the turns along that one, in order."""
        space = Space()
        pull = Pull(space, self.leaves, self.layouts, self.found.unrolled)
        axis, chunked = node.attrs[0], node.op is SCAN_PIECES
        reverse = node.attrs[2] if chunked else node.attrs[1]
        index = [space.var(n) for n in node.shape]
        turn = index[axis]
        if reverse:
            last = space.const(node.shape[axis] - 1)
            index[axis] = space.add(last, space.scale(turn, -1))
        chunk, start = None, list(index)
        extra: list[Atom] = []
        if chunked:
            piece = space.var(node.inputs[1].shape[axis])
            extra = [piece.terms[0][0]]
            chunk = Chunk(turn.terms[0][0], extra[0], node.attrs[3], node.shape[axis])
            start[axis] = piece
        value = pull.scan(node, tuple(index), tuple(start) if chunked else ())
        frames = [Frame(node.shape, tuple(index))]
        group = Group(len(self.groups), "scan", pull, frames, chunk=chunk, node=node)
        group.cols = [turn.terms[0][0]]
        group.rows = extra + [t for a in index for t, _ in a.terms if t not in group.cols]
        pull.members[node] = value
        pull.keep()
        return group


def _as_large(leaf: Node, node: Node) -> bool:
    """Whether what a node shares with another kernel is worth it: not a mere row of the node."""
    count = sh.count(leaf.shape)
    return surely(count, 2) and surely(count - sh.count(node.shape), 0)


def _comparable(group: Group, node: Node) -> bool:
    """Whether a group has as many elements as a node, or as what the node reduces."""
    count = sh.count(node.inputs[0].shape if node.op.kind == "reduce" else node.shape)
    counts = [sh.count(v.node.shape) for v in group.members.values()]
    counts += [sh.count(frame.shape) for frame in group.frames]
    return count in counts or sh.count(node.shape) in counts


def _delay(group: Group, needs: dict[int, Group]) -> int:
    """For how many more groups a group would have to wait if something joined it."""
    waits = 0
    for g in needs.values():
        if g is not group:
            waits |= g.ancestors | 1 << g.number
    return (waits & ~group.ancestors).bit_count()


def _step(term: tuple[Atom, int]) -> int:
    return -term[1]


def _plain(values: Iterable[Value]) -> bool:
    """Whether values fit a contraction's epilogue: arithmetic on strided reads."""
    for value in values:
        body = value.body
        if isinstance(body, Read):
            if not body.address.is_linear:
                return False
        elif value.kind != "expr" or body is None or not _plain_body(body):
            return False
    return True


def _plain_body(body: Expr) -> bool:
    stack = [body]
    while stack:
        e = stack.pop()
        if isinstance(e, Affine | Intrinsic):
            return False
        if not isinstance(e, Value | Const):
            stack += [getattr(e, f) for f in ("a", "b", "x", "condition") if hasattr(e, f)]
    return True


def _reaches_members(value: Value, group: Group) -> bool:
    """Whether an element to be reduced depends on a reduction of the same group."""
    stack, seen = [value], set()
    while stack:
        at = stack.pop()
        if at in seen:
            continue
        seen.add(at)
        if at.kind == "reduce":
            return True
        stack += at.args
    return False


def _radices(index: Index, order: Sequence[Atom], values: Iterable[Value]) -> dict[Atom, list[int]]:
    """Dimensions that reads take apart by `//` and `%`, as mixed radices that make it needless."""
    moduli: dict[Atom, set[int]] = {}
    for value in values:
        found: list[Affine] = []
        affines_in(value.body, found)
        for a in found:
            for atom in atoms_of(a):
                if atom.kind in ("div", "mod") and atom.arg.single is not None:
                    moduli.setdefault(atom.arg.single, set()).add(atom.n)
    out: dict[Atom, list[int]] = {}
    for a in index:
        variable = a.single
        if variable is None or variable not in moduli:
            continue
        steps = sorted(moduli[variable])
        if variable is order[-1] and steps[0] < MIN_LANES:
            continue
        radices: list[int] = []
        below = 1
        for step in [*steps, variable.hi + 1]:
            if step % below:
                break
            radices.append(step // below)
            below = step
        else:
            out[variable] = radices[::-1]
    return out
