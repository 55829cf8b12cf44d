"""Which loop goes around which."""

from __future__ import annotations

from collections.abc import Iterable

from treadle.base import shape as sh
from treadle.base.symbolic import varies
from treadle.graph.index import Atom
from treadle.graph.pull import Read, Value

MIN_LANES = 8
"""The innermost loop is not cut into shorter runs than this."""


def loop_order(atoms: list[Atom], values: Iterable[Value], row_major: bool) -> list[Atom]:
    """Variables from outer to inner: as the result lies in memory (`row_major`), else as the
    largest thing that is read; innermost what most accesses have unit stride along."""
    reads = [v.body for v in values if isinstance(v.body, Read)]
    order = atoms
    linear = [r for r in reads if r.address.is_linear]
    if linear and not row_major:
        best = max(linear, key=lambda r: (len(r.address.terms), sh.count(r.node.shape)))
        step = dict(best.address.terms)
        absent = [t for t in atoms if t not in step]
        order = absent + sorted([t for t in atoms if t in step], key=lambda t: -step[t])
    if len(order) < 2:
        return order
    score = dict.fromkeys(order, 0.0)
    for read in reads:
        for atom, k in read.address.terms:
            if atom in score:
                score[atom] += 1 if k == 1 else -1
    if row_major:
        for atom in order:
            score[atom] += 1.5 if atom is order[-1] else -1.5
    last = max(order, key=lambda t: score[t])
    if score[last] > score[order[-1]] and (varies(last.hi) or last.hi + 1 >= MIN_LANES):
        return [t for t in order if t is not last] + [last]
    return order
