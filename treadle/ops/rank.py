"""Positions by rank, on the host: each element and its position as one whole number.

The element goes to the upper half of 64 bits, in a form that has its order as a number, and the
position to the lower half. No two are equal then, so any algorithm keeps equal elements in order,
and NumPy's fastest ones apply: they are in lanes for whole numbers, and select without sorting.
"""

from __future__ import annotations

from typing import Any

from treadle.base.lazy import LazyModule
from treadle.ops.host import by_rows

np = LazyModule("numpy")


def positions(x: Any, axis: int, start: int, stop: int, descending: bool) -> Any:
    """The positions of the elements of ranks `start .. stop-1` along an axis, in order.

    Args:
        x: an array of a dtype that NumPy can order.
        axis: the axis along which elements are ranked.
        start, stop: the ranks, from 0.
        descending: rank the largest first; NaN is larger than everything.

    Returns:
        int64, of the shape of `x` but for `stop - start` along the axis; of equal elements the
        first has the lower rank.
    """
    rows = np.moveaxis(x, axis, -1)
    shape = (*rows.shape[:-1], stop - start)
    flat = rows.reshape(-1, rows.shape[-1]) if rows.size else np.zeros((0, 1), x.dtype)
    rank = _narrow if x.dtype.itemsize <= 4 else _wide
    found = by_rows(lambda part: rank(part, start, stop, descending), flat, (stop - start,))
    return np.moveaxis(found.reshape(shape), -1, axis)


def _narrow(rows: Any, start: int, stop: int, descending: bool) -> Any:
    """Of elements of 32 bits at most."""
    n = rows.shape[-1]
    keys = _keys(rows)
    if descending:
        keys = ~keys
    whole = keys.astype(np.uint64)
    whole <<= np.uint64(32)
    whole |= np.arange(n, dtype=np.uint64)
    if stop - start < n:
        edges = [at for at in (start - 1, stop) if 0 <= at < n]
        whole.partition(edges, -1)
        whole = whole[:, start:stop]
    whole.sort(-1)
    return whole & np.uint64(0xFFFFFFFF)


def _keys(rows: Any) -> Any:
    """uint32 in the order of the elements."""
    kind = rows.dtype.kind
    if kind == "f":
        # A sum with 0 makes -0 and 0 equal.
        plain = rows.astype(np.float32) + np.float32(0)
        plain[plain != plain] = np.nan
        bits = plain.view(np.int32)
        # Below 0 all bits turn round, else the sign alone.
        turned = bits >> np.int32(31)
        turned |= np.int32(-(1 << 31))
        return (bits ^ turned).view(np.uint32)
    if kind == "i":
        return rows.astype(np.int32).view(np.uint32) ^ np.uint32(1 << 31)
    return rows.astype(np.uint32)


def _wide(rows: Any, start: int, stop: int, descending: bool) -> Any:
    """Of elements of 64 bits: no room for a position beside them."""
    if not descending:
        return np.argsort(rows, -1, kind="stable")[:, start:stop]
    # Sorted backwards and read backwards: equal elements keep their order.
    order = np.argsort(rows[:, ::-1], -1, kind="stable")[:, ::-1]
    return (rows.shape[-1] - 1 - order)[:, start:stop]
