"""Arithmetic on shapes: tuples of non-negative integers."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.base.errors import ShapeError

Shape = tuple[int, ...]


def count(shape: Sequence[int]) -> int:
    """The number of elements: the product of the extents."""
    total = 1
    for extent in shape:
        total *= extent
    return total


def same(a: Shape, b: Shape) -> bool:
    """Whether two shapes are equal. Extents of another rank are not compared: where they are
    formulas, that would be a condition."""
    return len(a) == len(b) and a == b


def strides(shape: Sequence[int]) -> tuple[int, ...]:
    """Row-major strides, in elements."""
    out: list[int] = []
    step = 1
    for extent in reversed(shape):
        out.append(step)
        step *= extent
    return tuple(reversed(out))


def broadcast(*shapes: Sequence[int]) -> Shape:
    """The common shape by NumPy's rule; raises `ShapeError` naming the dimension that differs."""
    rank = max((len(s) for s in shapes), default=0)
    out = [1] * rank
    for shape in shapes:
        for i, extent in enumerate(shape, rank - len(shape)):
            if extent == out[i] or extent == 1:
                continue
            if out[i] != 1:
                listed = " and ".join(str(tuple(s)) for s in shapes)
                raise ShapeError(
                    f"shapes {listed} do not broadcast: dimension {i - rank} is "
                    f"{out[i]} in one and {extent} in the other"
                )
            out[i] = extent
    return tuple(out)


def axis(value: int, rank: int) -> int:
    """`value` as a non-negative axis; raises `IndexError` outside of `[-rank, rank)`."""
    bound = max(rank, 1)
    if not -bound <= value < bound:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-bound}, {bound - 1}], "
            f"but got {value})"
        )
    return value + bound if value < 0 else value


def axes(values: int | Sequence[int] | None, rank: int) -> tuple[int, ...]:
    """Sorted non-negative axes; `None` means all of them. Repeated axes raise `ShapeError`.

    Of a scalar, as in PyTorch, 0 and -1 may be named and are no axes.
    """
    if values is None:
        return tuple(range(rank))
    listed = (values,) if isinstance(values, int) else tuple(values)
    out = sorted(axis(v, rank) for v in listed)
    if len(set(out)) != len(out):
        raise ShapeError(f"dim {tuple(listed)} names a dimension twice")
    return tuple(out) if rank else ()
