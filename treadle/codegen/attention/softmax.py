"""Between the products: scores become weights, and weights become gradients of scores.

A block of scores is a panel: a row for each key, queries side by side in lanes. So the softmax,
which runs along keys, never crosses lanes. Scores are kept in units of log 2: `2^x` is cheaper.
"""

from __future__ import annotations

import math
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.codegen.attention.parts import Parts
from treadle.codegen.contract.flow import Flow
from treadle.codegen.convert import cast
from treadle.codegen.math_exp import exp2_normal
from treadle.codegen.polynomial import integer
from treadle.codegen.value import Value, ir

LOG2_E: Final = math.log2(math.e)
LN_2: Final = math.log(2.0)


def factor_of(f: Flow, parts: Parts, at: Any, times: float = 1.0) -> Value:
    """The scale of a launch times a constant, in every lane."""
    wide = f.value(f.builder.load(at, typ=ir.DoubleType()), dt.float64) * times
    return cast(wide, parts.dtype).spread(parts.tile.lanes)


class _Scores:
    """Emits the scores of one key from a product of queries and keys."""

    def __init__(
        self, f: Flow, parts: Parts, tile: Any, mask: Any, ahead: Value, scale: Any
    ) -> None:
        self.f = f
        self.parts = parts
        self.tile = tile
        self.mask = mask
        self.factor = factor_of(f, parts, scale, LOG2_E)
        self.nothing = f.const(-math.inf, parts.dtype, parts.tile.lanes)
        counter = integer(self.factor)
        first = cast(ahead, counter)
        lanes = parts.tile.lanes
        self.seen = [first + f.iota(counter, lanes) + v * lanes for v in range(parts.tile.vectors)]
        self.counter = counter

    def at(self, key: Value) -> list[Value]:
        """The scores of all queries for one key; -inf where a mask hides it."""
        f, parts = self.f, self.parts
        start = key * parts.row
        scores = [x * self.factor for x in parts.vectors(f, f.at(self.tile, start))]
        mask = parts.pattern.find("mask")
        if mask is not None:
            given = parts.vectors(f, f.at(self.mask, start))
            if mask.dtype is dt.bool_:
                pairs = zip(given, scores, strict=True)
                scores = [(m > 0.0).where(x, self.nothing) for m, x in pairs]
            else:
                scores = [m.madd(LOG2_E, x) for m, x in zip(given, scores, strict=True)]
        if parts.pattern.causal:
            number = cast(key, self.counter).spread(parts.tile.lanes)
            pairs = zip(self.seen, scores, strict=True)
            scores = [(number <= last).where(x, self.nothing) for last, x in pairs]
        return scores


def render_softmax(parts: Parts) -> Any:
    """`softmax(tile, count, peaks, sums, out, features, mask, ahead, scale)`: one step of the
    online softmax.

    Scores of `count` keys become weights, relative to the largest score of each query so far;
    the sums of weights and of weighted values (`out`) of earlier keys are rescaled to it.
    `ahead` is how many keys past the first one of the block the first query may see.
    """
    made, f, args = parts.function("softmax", "pipppipip")
    tile, count, peaks, sums, out, features, mask, ahead, scale = args
    scores = _Scores(f, parts, tile, mask, ahead, scale)
    zero = f.const(0.0, parts.dtype, parts.tile.lanes)
    before = parts.vectors(f, peaks)
    peak = [f.cell(x) for x in before]
    with f.loop(0, count) as key:
        for offset, x, cell in zip(parts.offsets, scores.at(key), peak, strict=True):
            parts.store(f, x, f.at(tile, key * parts.row + offset))
            largest = cell.get()
            cell.set((x > largest).where(x, largest))
    after = [cell.get() for cell in peak]
    # Of nothing but -inf so far: any finite number will do.
    base = [x.equals(scores.nothing).where(zero, x) for x in after]
    shrink = [exp2_normal(x - y) for x, y in zip(before, base, strict=True)]
    total = [f.cell(x * by) for x, by in zip(parts.vectors(f, sums), shrink, strict=True)]
    with f.loop(0, count) as key:
        start = f.at(tile, key * parts.row)
        for offset, x, cell, y in zip(
            parts.offsets, parts.vectors(f, start), total, base, strict=True
        ):
            weight = exp2_normal(x - y)
            parts.store(f, weight, f.at(start, offset))
            cell.set(cell.get() + weight)
    for offset, x, cell in zip(parts.offsets, after, total, strict=True):
        parts.store(f, x, f.at(peaks, offset))
        parts.store(f, cell.get(), f.at(sums, offset))
    with f.loop(0, features) as feature:
        start = f.at(out, feature * parts.row)
        for offset, x, by in zip(parts.offsets, parts.vectors(f, start), shrink, strict=True):
            parts.store(f, x * by, f.at(start, offset))
    f.builder.ret_void()
    return made


def render_differentiate(parts: Parts) -> Any:
    """`differentiate(tile, against, count, lse, delta, mask, ahead, scale)`: scores become weights
    `p`, and the gradients of weights (`against`) gradients of scores: `p (against - delta)`.

    `lse` is in units of log 2, and +inf for queries that see nothing.
    """
    made, f, args = parts.function("differentiate", "ppipppip")
    tile, against, count, lse, delta, mask, ahead, scale = args
    scores = _Scores(f, parts, tile, mask, ahead, scale)
    known, less = parts.vectors(f, lse), parts.vectors(f, delta)
    with f.loop(0, count) as key:
        start = f.at(against, key * parts.row)
        gradients = parts.vectors(f, start)
        for v, (offset, x) in enumerate(zip(parts.offsets, scores.at(key), strict=True)):
            weight = exp2_normal(x - known[v])
            parts.store(f, weight, f.at(tile, key * parts.row + offset))
            parts.store(f, weight * (gradients[v] - less[v]), f.at(start, offset))
    f.builder.ret_void()
    return made
