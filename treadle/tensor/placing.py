"""Copies of tensors with a part put in another's place, and what is counted by place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import shape as sh
from treadle.base.errors import ShapeError
from treadle.tensor import arithmetic as ar
from treadle.tensor import gathering, indexing, inplace
from treadle.tensor import movement as mv
from treadle.tensor import reduction as red
from treadle.tensor.arrange import diagonal
from treadle.tensor.creation import clone
from treadle.tensor.size import Size

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor


def _placed(input: Tensor, src: Any, key: Any, axis: int) -> Tensor:
    out = clone(input)
    indexing.setitem(out, (*(slice(None),) * axis, key), src)
    return out


def select_scatter(input: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    """A copy of `input` with `src` in the place of `input.select(dim, index)`."""
    return _placed(input, src, index, sh.axis(dim, len(input._node.shape)))


def slice_scatter(
    input: Tensor, src: Tensor, dim: int = 0, start: int | None = None, end: int | None = None,
    step: int = 1,
) -> Tensor:  # fmt: skip
    """A copy of `input` with `src` in the place of its slice `start:end:step` along `dim`."""
    return _placed(input, src, slice(start, end, step), sh.axis(dim, len(input._node.shape)))


def diagonal_scatter(
    input: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """A copy of `input` with `src` in the place of `input.diagonal(offset, dim1, dim2)`."""
    out = clone(input)
    place: Any = diagonal(out, offset, dim1, dim2)
    if tuple(place._node.shape) != tuple(src._node.shape):
        raise ShapeError(
            f"diagonal_scatter: expected src to have a size equal to the slice of self. src size = "
            f"{tuple(src._node.shape)}, slice size = {tuple(place._node.shape)}"
        )
    inplace.copy_(place, src)
    return out


def index_reduce(
    input: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, *,
    include_self: bool = True,
) -> Tensor:  # fmt: skip
    """A copy into whose slices at `index` along `dim` those of `source` are combined.

    Args:
        reduce: `"prod"`, `"mean"`, `"amax"` or `"amin"`.
        include_self: whether what is there counts; places that nothing goes to keep it anyway.
    """
    shape = source._node.shape
    if not shape:
        return gathering.scatter_reduce(
            input, dim, mv.reshape(index, ()), source, reduce, include_self=include_self
        )
    axis = sh.axis(dim, len(shape))
    line = [1] * len(shape)
    line[axis] = shape[axis]
    wide = mv.expand(mv.reshape(index, line), shape)
    return gathering.scatter_reduce(input, axis, wide, source, reduce, include_self=include_self)


def put(input: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    """A copy with elements of `source` at the row-major positions `index`, added if asked to."""
    flat = mv.reshape(input, -1)
    at = (mv.reshape(index, -1),)
    out = gathering.index_put(flat, at, mv.reshape(source, -1), accumulate)
    return mv.reshape(out, tuple(input._node.shape))


def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """The slices along `dim`, those of a p-norm above `maxnorm` scaled down to it."""
    axis = sh.axis(dim, len(input._node.shape))
    others = tuple(d for d in range(len(input._node.shape)) if d != axis)
    size = red.norm(input, p, others, True)
    factor = ar.where(ar.gt(size, maxnorm), ar.div(maxnorm, ar.add(size, 1e-7)), 1.0)
    return ar.mul(input, factor)


def unravel_index(indices: Tensor, shape: int | Sequence[int]) -> tuple[Tensor, ...]:
    """The index along each axis of row-major positions in a tensor of `shape`."""
    extents = (shape,) if isinstance(shape, int) else tuple(shape)
    steps = sh.strides(extents)
    return tuple(
        ar.remainder(ar.div(indices, step, rounding_mode="floor"), n)
        for n, step in zip(extents, steps, strict=True)
    )


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of the listed extents along `dim`."""
    return mv.split(input, list(split_sizes), dim)


def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """The sum over the axes along which a tensor of `size` would be broadcast to this one.

    Raises:
        ShapeError: it would not.
    """
    wanted, shape = mv.sizes(size), input._node.shape
    extra = len(shape) - len(wanted)
    fits = extra >= 0 and all(m in (1, n) for m, n in zip(wanted, shape[extra:], strict=True))
    if not fits:
        raise ShapeError(f"size {list(wanted)} is not expandable to size {Size(shape)}")
    axes = [*range(extra), *(extra + d for d, m in enumerate(wanted) if m != shape[extra + d])]
    out = red.sum(input, tuple(axes), True) if axes else input
    return mv.reshape(out, wanted)


def gradient(
    input: Tensor,
    *,
    spacing: Any = None,
    dim: int | Sequence[int] | None = None,
    edge_order: int = 1,
) -> tuple[Tensor, ...]:
    """Estimates of the slope along each axis, by central differences of second order.

    Args:
        spacing: the distance of neighbours (1 unless given), one for each axis, or the coordinates
            along each.
        dim: the axes, all unless given.
        edge_order: 1 or 2, of the one-sided differences at the ends.

    Returns:
        A tensor of the shape of `input` for each axis.
    """
    rank = len(input._node.shape)
    axes = [dim] if isinstance(dim, int) else list(range(rank) if dim is None else dim)
    spacing = 1 if spacing is None else spacing
    gaps = list(spacing) if isinstance(spacing, (tuple, list)) else [spacing] * len(axes)
    if len(gaps) != len(axes):
        raise ValueError(
            f"gradient: expected a spacing for each of {len(axes)} axes, got {len(gaps)}"
        )
    if edge_order not in (1, 2):
        raise ValueError(f"gradient: edge_order is 1 or 2, not {edge_order}")
    whole = input if input._node.dtype.kind == "f" else ar.mul(input, 1.0)
    return tuple(
        _slope(whole, gap, sh.axis(d, rank), edge_order) for d, gap in zip(axes, gaps, strict=True)
    )


def _slope(x: Any, gap: Any, axis: int, edge_order: int) -> Any:
    n = x._node.shape[axis]
    if n <= edge_order:
        raise ShapeError(f"gradient: expected more than {edge_order} elements, got {n}")
    line = [1] * len(x._node.shape)
    line[axis] = -1

    def at(start: int, length: int) -> Any:
        return mv.narrow(x, axis, start, length)

    def step(start: int, length: int) -> Any:
        """Distances from the elements at `start` and on to the next ones."""
        if not hasattr(gap, "_node"):
            return float(gap)
        ends = mv.narrow(gap, 0, start + 1, length), mv.narrow(gap, 0, start, length)
        return mv.reshape(ar.sub(*ends), line)

    parts = [(at(1, 1) - at(0, 1)) / step(0, 1), (at(n - 1, 1) - at(n - 2, 1)) / step(n - 2, 1)]
    if edge_order == 2:
        for end, (i, j, k) in enumerate(((0, 1, 2), (n - 1, n - 2, n - 3))):
            d, e = (step(0, 1), step(1, 1)) if end == 0 else (step(n - 2, 1), step(n - 3, 1))
            near = (at(j, 1) - at(i, 1)) / d * ((d + d + e) / (d + e))
            slope = near - (at(k, 1) - at(j, 1)) / e * (d / (d + e))
            parts[end] = slope if end == 0 else -slope
    if n > 2:
        d, e = step(0, n - 2), step(1, n - 2)
        left, right = (at(1, n - 2) - at(0, n - 2)) / d, (at(2, n - 2) - at(1, n - 2)) / e
        parts.insert(1, (left * e + right * d) / (d + e))
    return mv.cat(parts, axis)
