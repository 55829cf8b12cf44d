"""Expansion: what is easy to record becomes what is good to compute.

Contractions come to a canonical form, long reductions are split into pieces that run in parallel
(a partition that depends on the shape only, so results never depend on the number of threads).
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.symbolic import derived, now, varies
from treadle.graph.simplify import rewrite, simpler
from treadle.ir.node import Node
from treadle.ops.contract import CONTRACT, contract
from treadle.ops.pointwise import cast, mul
from treadle.ops.reduce import PARTIAL, combine_of, initial, total
from treadle.ops.scan import SCAN_PIECES, starts_of
from treadle.ops.table import make
from treadle.ops.view import FLIP, permute, reshape, slice_

SPLIT = 1 << 17
"""Reductions of this many elements are worth splitting, if they have few results."""
FEW = 8192
PIECES = 32
"""A split reduction has at most this many pieces."""
SHORTEST = 16
"""Elements of a result in a piece: shorter ones cost more to combine than they gain."""
COLUMNS = 1024
"""Columns that one task of a reduction across rows takes (`columns.BLOCK`)."""
NARROWEST = 256
"""Columns that one task of a scan across rows takes at least (`scans.BLOCKS`)."""


def expand(outputs: Sequence[Node]) -> list[Node]:
    """The same outputs from contractions in canonical form and reductions of bounded length."""
    return rewrite(outputs, _rule)


def _rule(node: Node) -> Node | None:
    if node.op is CONTRACT:
        return _canonical(node)
    if node.op.kind == "reduce" and node.op is not PARTIAL:
        return _by_rows(node) or _pieces(node)
    if node.op.kind == "scan" and node.op is not SCAN_PIECES:
        return _scan(node)
    return simpler(node)


# --- contractions ----------------------------------------------------------------------------


def _canonical(node: Node) -> Node | None:
    """A contraction in which every label is in two of the three places, on floats of 32 bits up."""
    a, b = node.inputs
    left, right, out = node.attrs
    for i, (x, labels) in enumerate(((a, left), (b, right))):
        if len(set(labels)) < len(labels):
            diagonal, kept = _diagonal(x, labels)
            return _with(node, i, diagonal, kept)
        other = set(out) | set(right if i == 0 else left)
        alone = tuple([d for d, label in enumerate(labels) if label not in other])
        if alone:
            kept = tuple([label for label in labels if label in other])
            extents = tuple([n for d, n in enumerate(x.shape) if d not in alone])
            return _with(node, i, reshape(total(x, alone), extents), kept)
    if node.dtype.is_floating_point and node.dtype.bits < 32:
        wide = contract(cast(a, dt.float32), cast(b, dt.float32), left, right, out)
        return cast(wide, node.dtype)
    shared = set(left) & set(right)
    summed = shared - set(out)
    if not node.dtype.is_floating_point or not summed or shared == set(left) | set(right):
        return _product(node)
    return None


def _with(node: Node, i: int, x: Node, labels: tuple[int, ...]) -> Node:
    inputs, attrs = list(node.inputs), list(node.attrs)
    inputs[i], attrs[i] = x, labels
    return make(CONTRACT, tuple(inputs), tuple(attrs))


def _diagonal(x: Node, labels: tuple[int, ...]) -> tuple[Node, tuple[int, ...]]:
    """One pair of equal labels as the diagonal of its two dimensions."""
    first = next(d for d, label in enumerate(labels) if label in labels[d + 1 :])
    second = labels.index(labels[first], first + 1)
    rest = tuple([d for d in range(len(labels)) if d not in (first, second)])
    n = x.shape[first]
    lead = tuple([x.shape[d] for d in rest])
    flat = reshape(permute(x, (*rest, first, second)), (*lead, n * n))
    zeros, ones = (0,) * len(rest), (1,) * len(rest)
    diagonal = slice_(flat, (*zeros, 0), (*lead, n * n), (*ones, n + 1))
    return diagonal, (*[labels[d] for d in rest], labels[first])


def _product(node: Node) -> Node:
    """A contraction as a product and a sum: nothing is reused in it."""
    left, right, out = node.attrs
    a, b = node.inputs
    summed = tuple([label for label in left if label not in out])
    names = (*out, *summed)
    extents = dict(zip((*left, *right), (*a.shape, *b.shape), strict=True))
    parts: list[Node] = []
    for x, labels in ((a, left), (b, right)):
        order = tuple([labels.index(label) for label in names if label in labels])
        column = tuple([extents[label] if label in labels else 1 for label in names])
        parts.append(reshape(permute(x, order), column))
    product = mul(*parts)
    axes = tuple(range(len(out), len(names)))
    return reshape(total(product, axes), node.shape)


# --- reductions ------------------------------------------------------------------------------


def _by_rows(node: Node) -> Node | None:
    """A reduction over rows of values that were themselves reduced by row: rows first, so that
    they stay in one kernel."""
    (axes,) = node.attrs
    x = node.inputs[0]
    if len(axes) < 2:
        return None
    stack: list[Node] = [x]
    seen: set[Node] = set()
    while stack and len(seen) < 200:
        at = stack.pop()
        if at in seen:
            continue
        seen.add(at)
        if at.op.kind == "reduce" and at.op is not PARTIAL:
            inner = at.attrs[0]
            if at.inputs[0].shape == x.shape and set(inner) < set(axes):
                rest = tuple([d for d in axes if d not in inner])
                return make(node.op, (make(node.op, (x,), (inner,)),), (rest,))
        elif at.op.kind == "pointwise":
            stack += at.inputs
    return None


def _count(count: int, results: int, extent: int) -> int:
    return max(1, min(PIECES, count // (SPLIT // 8), count // results // SHORTEST, extent))


def _pieces(node: Node) -> Node | None:
    """A long reduction with few results as a reduction of pieces of fixed length.

    One whose length varies is split for all lengths, where it is nearly long enough now.
    """
    (axes,) = node.attrs
    x = node.inputs[0]
    count, results = sh.count(x.shape), sh.count(node.shape)
    if x.op is PARTIAL or varies(results) or results >= FEW:
        return simpler(node)
    if now(count) < (SPLIT // 8 if varies(count) else SPLIT) and count < SPLIT:
        return simpler(node)
    kept = [d for d in range(len(x.shape)) if d not in axes and x.shape[d] != 1]
    last = max([d for d in range(len(x.shape)) if x.shape[d] != 1])
    if last in axes and kept and max(kept) < min(axes):
        tasks = results
    else:
        inner = x.shape[kept[-1]] if kept else 1
        tasks = results // inner * -(-inner // COLUMNS)
    if tasks >= 16:
        return simpler(node)
    # The outermost long dimension is cut: pieces then lie one after another in memory.
    long = [d for d in axes if varies(x.shape[d]) or x.shape[d] >= 4]
    if not long:
        return simpler(node)
    axis = long[0]
    pieces = derived(_count, count, results, x.shape[axis], least=1, most=PIECES)
    if not varies(pieces) and pieces < 2:
        return simpler(node)
    chunk = -(-x.shape[axis] // pieces)
    part = make(PARTIAL, (x,), (axes, combine_of(node), axis, chunk))
    return make(node.op, (part,), ((axis,),))


# --- scans -----------------------------------------------------------------------------------


def _scan(node: Node) -> Node | None:
    """A long scan with few others beside it in pieces: their totals, then each from its start."""
    x = node.inputs[0]
    axis, reverse = node.attrs
    extent, count = x.shape[axis], sh.count(x.shape)
    if extent == 1:
        return x
    if not count:
        return None
    inner = sh.count(x.shape[axis + 1 :])
    tasks = count // extent if inner == 1 else count // extent // inner * -(-inner // NARROWEST)
    pieces = min(PIECES, count // (SPLIT // 8), extent // SHORTEST)
    if count < SPLIT or tasks >= 16 or pieces < 2:
        return None
    if node.dtype.is_floating_point and node.dtype.bits < 32:
        wide = make(node.op, (cast(x, dt.float32),), node.attrs)
        return cast(wide, node.dtype)
    chunk = -(-extent // pieces)
    combine = combine_of(node)
    ordered = make(FLIP, (x,), ((axis,),)) if reverse else x
    totals = make(PARTIAL, (ordered,), ((axis,), combine, axis, chunk))
    starts = starts_of(totals, axis, combine, initial(combine, node.dtype))
    return make(SCAN_PIECES, (x, starts), (axis, combine, reverse, chunk))
