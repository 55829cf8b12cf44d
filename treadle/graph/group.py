"""A group: the nodes that one kernel computes, over one set of loop variables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from treadle.base import shape as sh
from treadle.base.shape import Shape
from treadle.graph.anchors import Operands
from treadle.graph.index import Affine, Atom, Space
from treadle.graph.pull import Index, Pull, Value
from treadle.graph.strided import Strided
from treadle.ir.node import Node


@dataclass(slots=True)
class Frame:
    """A domain of a group: a node of this shape is computed at this index."""

    shape: Shape
    index: Index


@dataclass(slots=True)
class Chunk:
    """The pieces of a split reduction: `position = piece * size + j`, below `extent`."""

    position: Atom
    piece: Atom
    size: int
    extent: int


@dataclass(slots=True, eq=False)
class Group:
    """What one kernel computes.

    kind: `loops` (pointwise work and rows: reductions run along the inner loops), `columns`
    (reductions across rows, side by side along the inner loop), `scan` (every element along `cols`
    combined with those before it), `contract`, `attention`, `scatter`, `join` (a kernel for
    each of the `parts`), `host`, `border` (the zeros around a node that is stored inside of a
    padded buffer), `recurrence`.
    `rows` and `cols` are the loop variables from outer to inner; `cols` are those reduced or
    scanned.
    Of rows that are also added up the other way, `downs` are those sums over a piece of the rows,
    `down` the pieces; a task is a piece then.
    `ancestors` has the bit of every group that must run before. Of a scatter, `elements` are what
    is added and the position that it is added at, `target` the index of the result. `parts` are
    the values of a node computed several elements at a time, one for each place in a window.
    `histories` are the nodes of one recurrence.
    """

    number: int
    kind: str
    pull: Pull
    frames: list[Frame]
    rows: list[Atom] = field(default_factory=list)
    cols: list[Atom] = field(default_factory=list)
    chunk: Chunk | None = None
    down: Chunk | None = None
    downs: set[Value] = field(default_factory=set)
    node: Node | None = None
    operands: Operands | None = None
    strided: dict[str, Strided] = field(default_factory=dict)
    ancestors: int = 0
    elements: list[Value] = field(default_factory=list)
    parts: list[Value] = field(default_factory=list)
    target: Index = ()
    histories: list[Node] = field(default_factory=list)

    @property
    def space(self) -> Space:
        """The variables."""
        return self.pull.space

    @property
    def members(self) -> dict[Node, Value]:
        """The anchors that the group computes."""
        return self.pull.members


def squeezed(shape: Sequence[int]) -> list[int]:
    """A shape without its extents of 1."""
    return [n for n in shape if n != 1]


def propose(space: Space, frame: Frame, shape: Shape) -> Index | None:
    """The index at which a node of `shape` has the element of the frame's index, if they are the
    same elements in row-major order."""
    if shape == frame.shape:
        return frame.index
    if sh.count(shape) != sh.count(frame.shape):
        return None
    if squeezed(shape) == squeezed(frame.shape):
        kept = [a for a, n in zip(frame.index, frame.shape, strict=True) if n != 1]
        rest = iter(kept)
        return tuple([space.zero if n == 1 else next(rest) for n in shape])
    flat = space.dot(frame.index, sh.strides(frame.shape))
    return space.unflatten(flat, shape)


def invert(space: Space, variables: Sequence[Affine], index: Index, target: Index) -> Index | None:
    """`variables` such that `index` (over them) becomes `target`, if each is easily told.

    Understands permutations, dimensions split by `//` and `%`, and dimensions merged by a sum.
    """
    found: dict[Atom, list[tuple[int, Affine]]] = {}
    for a, goal in zip(index, target, strict=True):
        if not a.terms:
            continue
        if len(a.terms) == 1 and a.terms[0][1] == 1 and a.const == 0:
            atom = a.terms[0][0]
            scale = 1
            while atom.kind in ("div", "mod"):
                scale *= atom.n if atom.kind == "div" else 1
                if len(atom.arg.terms) != 1 or atom.arg.const or atom.arg.terms[0][1] != 1:
                    return None
                atom = atom.arg.terms[0][0]
            if atom.kind != "var":
                return None
            found.setdefault(atom, []).append((scale, goal))
        elif a.is_linear and a.const == 0:
            for atom, k in a.terms:
                part = space.mod(space.floordiv(goal, k), atom.hi + 1)
                found.setdefault(atom, []).append((1, part))
        else:
            return None
    out: list[Affine] = []
    for v in variables:
        if not v.terms:
            out.append(space.zero)
            continue
        parts = found.get(v.terms[0][0])
        if parts is None:
            return None
        out.append(space.dot([goal for _, goal in parts], [scale for scale, _ in parts]))
    return tuple(out)
