"""Dimensions that lie in memory like one are made one: fewer divisions, longer runs."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.contract.layout import Layout

_CLASSES = "bmnk"


def coalesce(layout: Layout, sizes: Sequence[int]) -> tuple[int, ...]:
    """The extents and strides of a launch with neighbouring dimensions merged.

    The number of dimensions is part of the code, so merged ones become leading dimensions of
    extent 1. The last dimension of a class keeps its unit strides.
    """
    result = list(sizes)
    first = 2 * layout.buffers
    operands = range(len(layout.dtypes))
    for kind, rank in enumerate(layout.contraction.dims):
        if rank < 2:
            continue
        extents_at = layout.extents(kind) - first
        strides_at = [layout.strides(x, kind) - first for x in operands]
        dims = [
            (sizes[extents_at + d], tuple(sizes[at + d] for at in strides_at)) for d in range(rank)
        ]
        fixed = [x for x in operands if layout.units[x] == _CLASSES[kind]]
        merged = _merge(dims, fixed)
        merged = [(1, (0,) * len(strides_at))] * (rank - len(merged)) + merged
        for d, (extent, strides) in enumerate(merged):
            result[extents_at + d] = extent
            for at, stride in zip(strides_at, strides, strict=True):
                result[at + d] = stride
    return tuple(result)


_Dim = tuple[int, tuple[int, ...]]


def _merge(dims: list[_Dim], fixed: list[int]) -> list[_Dim]:
    """Merges from the last dimension to the first, along which `fixed` operands have stride 1."""
    merged = [dims[-1]]
    for extent, strides in reversed(dims[:-1]):
        inner, inner_strides = merged[0]
        if extent == 1:
            continue
        if all(s == i * inner for s, i in zip(strides, inner_strides, strict=True)):
            merged[0] = (extent * inner, inner_strides)
        elif inner == 1 and (len(merged) > 1 or all(strides[x] == 1 for x in fixed)):
            merged[0] = (extent, strides)
        else:
            merged.insert(0, (extent, strides))
    return merged
