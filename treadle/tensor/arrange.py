"""Joins, rolls, tiles, windows, diagonals and padding: movements made of the basic ones."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.errors import ShapeError
from treadle.ops import view as ops
from treadle.tensor import movement as mv
from treadle.tensor.creation import tensor
from treadle.tensor.padding import pad
from treadle.tensor.promote import as_dtype
from treadle.tensor.record import Lazy, record, view
from treadle.tensor.size import Size

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

swapaxes = swapdims = mv.transpose
moveaxis = mv.movedim
concat = concatenate = mv.cat


def ravel(input: Tensor) -> Tensor:
    """All elements in row-major order along one axis."""
    return mv.reshape(input, -1)


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """The slice at one position of an axis, without that axis."""
    axis = sh.axis(dim, len(input._node.shape))
    extent = input._node.shape[axis]
    if not -extent <= index < extent:
        raise IndexError(
            f"select(): index {index} out of range for tensor of size {list(input.shape)} at "
            f"dimension {dim}"
        )
    return mv.squeeze(mv.narrow(input, axis, index % extent, 1), axis)


# --- joining and splitting ---------------------------------------------------------------------


def _each(function: Callable[[Any], Any]) -> Callable[..., Any]:
    """A function of a tensor that takes several, or a sequence of them, and gives a tuple then."""

    def of_many(*tensors: Any) -> Any:
        if len(tensors) == 1 and not isinstance(tensors[0], (tuple, list)):
            return function(tensors[0])
        return tuple(map(function, tensors[0] if len(tensors) == 1 else tensors))

    of_many.__name__ = function.__name__
    of_many.__doc__ = function.__doc__
    return of_many


@_each
def atleast_1d(input: Any) -> Any:
    """The tensor, or each of several, with at least one axis."""
    return input if input._node.shape else mv.reshape(input, 1)


@_each
def atleast_2d(input: Any) -> Any:
    """The tensor, or each of several, with at least two axes: a vector becomes a row."""
    return input if len(input._node.shape) >= 2 else mv.unsqueeze(atleast_1d(input), 0)


@_each
def atleast_3d(input: Any) -> Any:
    """The tensor, or each of several, with at least three axes: a matrix gets one at the end."""
    return input if len(input._node.shape) >= 3 else mv.unsqueeze(atleast_2d(input), -1)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined side by side: along the second axis, vectors along their only one."""
    parts = [atleast_1d(x) for x in tensors]
    return mv.cat(parts, 0 if len(parts[0]._node.shape) == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined one below another: along the first axis, vectors as rows."""
    return mv.cat([atleast_2d(x) for x in tensors], 0)


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined in depth: along the third axis."""
    return mv.cat([atleast_3d(x) for x in tensors], 2)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Tensors joined side by side, vectors as columns."""
    return hstack([mv.reshape(x, -1, 1) if len(x._node.shape) < 2 else x for x in tensors])


def tensor_split(
    input: Tensor, indices_or_sections: int | Sequence[int] | Tensor, dim: int = 0
) -> tuple[Tensor, ...]:
    """Pieces as equal as they can be, or pieces cut at the listed positions; a tensor of these
    is read."""
    if isinstance(indices_or_sections, Lazy):
        indices_or_sections = indices_or_sections.tolist()
    extent = input._node.shape[sh.axis(dim, len(input._node.shape))]
    if isinstance(indices_or_sections, int):
        n = indices_or_sections
        if n <= 0:
            raise ValueError(f"tensor_split: the number of sections must be positive, got {n}")
        return mv.split(input, [extent // n + (i < extent % n) for i in range(n)], dim)
    cuts = [0, *(slice(i).indices(extent)[1] for i in indices_or_sections), extent]
    pieces = itertools.pairwise(cuts)
    return tuple(mv.narrow(input, dim, a, max(b - a, 0)) for a, b in pieces)


def hsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along the second axis, of a vector along its only one."""
    return tensor_split(input, indices_or_sections, 0 if len(input._node.shape) == 1 else 1)


def vsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along the first axis."""
    return tensor_split(input, indices_or_sections, 0)


def dsplit(input: Tensor, indices_or_sections: int | Sequence[int]) -> tuple[Tensor, ...]:
    """`tensor_split` along the third axis."""
    return tensor_split(input, indices_or_sections, 2)


# --- turning and repeating ---------------------------------------------------------------------


def fliplr(input: Tensor) -> Tensor:
    """The order of columns reversed."""
    return mv.flip(input, 1)


def flipud(input: Tensor) -> Tensor:
    """The order of rows reversed."""
    return mv.flip(input, 0)


def roll(
    input: Tensor, shifts: int | Sequence[int], dims: int | Sequence[int] | None = None
) -> Tensor:
    """The elements moved along axes by `shifts`; what leaves one end comes in at the other.

    Without `dims` the flattened tensor is rolled.
    """
    if dims is None:
        if not isinstance(shifts, int):
            raise ShapeError("roll: several shifts need as many dims")
        return mv.reshape(roll(ravel(input), shifts, 0), input._node.shape)
    by = [shifts] if isinstance(shifts, int) else list(shifts)
    axes = [dims] if isinstance(dims, int) else list(dims)
    if len(by) != len(axes):
        raise ShapeError(f"roll: {len(by)} shifts and {len(axes)} dims do not pair up")
    out = input
    for shift, dim in zip(by, axes, strict=True):
        extent = out._node.shape[sh.axis(dim, len(out._node.shape))]
        cut = -shift % extent if extent else 0
        if cut:
            head, tail = mv.narrow(out, dim, 0, cut), mv.narrow(out, dim, cut, extent - cut)
            out = mv.cat([tail, head], dim)
    return out


def tile(input: Tensor, *dims: Any) -> Tensor:
    """The tensor repeated along each axis; missing counts are 1."""
    counts = mv.sizes(dims)
    return mv.repeat(input, (1,) * (len(input._node.shape) - len(counts)) + counts)


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned `k` quarter turns from the first towards the second of two axes."""
    a, b = (sh.axis(d, len(input._node.shape)) for d in dims)
    if a == b:
        raise ShapeError(f"rot90: dims {tuple(dims)} name one dimension twice")
    turns: dict[int, Callable[[Tensor], Tensor]] = {
        0: lambda x: record(ops.ALIAS, (x,)),
        1: lambda x: mv.flip(mv.transpose(x, a, b), a),
        2: lambda x: mv.flip(x, (a, b)),
        3: lambda x: mv.flip(mv.transpose(x, a, b), b),
    }
    return turns[k % 4](input)


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows of `size` elements every `step` along an axis; they lie along a new last axis.

    Raises:
        ShapeError: the window is longer than the axis.
    """
    shape = tuple(input._node.shape)
    if not shape:
        return mv.reshape(input, 1)
    axis = sh.axis(dimension, len(shape))
    if not 0 < size <= shape[axis] or step <= 0:
        raise ShapeError(
            f"unfold: windows of {size} every {step} do not fit the extent {shape[axis]} of "
            f"dimension {axis}"
        )
    extent = (shape[axis] - size) // step + 1
    wide = view(ops.EXPAND, view(ops.RESHAPE, input, ((*shape, 1),)), ((*shape, size),))
    return view(ops.SKEW, wide, ((axis,), (step,), (1,), (extent,)))


# --- diagonals ---------------------------------------------------------------------------------


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """The diagonals of the matrices along two axes, as a view with the diagonal as last axis.

    Args:
        offset: how far above (negative: below) the main diagonal.
        dim1, dim2: the axes of the rows and of the columns.
    """
    rank = len(input._node.shape)
    a, b = sh.axis(dim1, rank), sh.axis(dim2, rank)
    if a == b:
        raise ShapeError(f"diagonal: dim1 and dim2 are both {a}")
    rest = tuple(i for i in range(rank) if i not in (a, b))
    x = mv.permute(input, (*rest, a, b))
    *outer, m, n = x._node.shape
    count = max(0, min(m + min(offset, 0), n - max(offset, 0)))
    # In the flattened matrix the diagonal is every (n + 1)-th element.
    start = max(offset, 0) - n * min(offset, 0)
    flat = mv.reshape(x, (*outer, m * n))
    stop = start + (count - 1) * (n + 1) + 1 if count else 0
    first = start if count else 0
    starts, steps = (*(0,) * len(outer), first), (*(1,) * len(outer), n + 1 if count else 1)
    return view(ops.SLICE, flat, (starts, (*outer, stop), steps))


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix of a diagonal."""
    rank = len(input._node.shape)
    if rank not in (1, 2):
        raise ShapeError(f"diag(): expects a vector or a matrix, got {rank} dimensions")
    # The argument shadows the function of the same name.
    return diag_embed(input, diagonal) if rank == 1 else globals()["diagonal"](input, diagonal)


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the last axis on a diagonal, zeros elsewhere."""
    *outer, n = input._node.shape
    size = n + abs(offset)
    start = max(offset, 0) - size * min(offset, 0)
    starts, steps = (*(0,) * len(outer), start), (*(1,) * len(outer), size + 1)
    laid = record(ops.UNSLICE, (input,), ((*outer, size * size), starts, steps))
    return mv.movedim(mv.reshape(laid, (*outer, size, size)), (-2, -1), (dim1, dim2))


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """The matrix with all elements of the tensor on a diagonal."""
    return diag_embed(ravel(input), offset)


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    if len(input._node.shape) != 2:
        raise ShapeError(f"trace: expected a matrix, got {len(input._node.shape)} dimensions")
    return diagonal(input).sum()


# --- grids -------------------------------------------------------------------------------------


def broadcast_shapes(*shapes: int | Sequence[int]) -> Size:
    """The shape that tensors of the given shapes broadcast to."""
    return Size(sh.broadcast(*((s,) if isinstance(s, int) else s for s in shapes)))


def meshgrid(*tensors: Any, indexing: str = "ij") -> tuple[Tensor, ...]:
    """The coordinates of a grid from the values along each axis.

    Args:
        indexing: `"ij"`: the axes in order; `"xy"`: the first two exchanged.
    """
    if indexing not in ("ij", "xy"):
        raise ValueError(f"meshgrid: indexing is 'ij' or 'xy', not {indexing!r}")
    many = len(tensors) == 1 and isinstance(tensors[0], (tuple, list))
    values: list[Any] = list(tensors[0]) if many else list(tensors)
    swap = indexing == "xy" and len(values) >= 2
    if swap:
        values[0], values[1] = values[1], values[0]
    shape = tuple(sh.count(x._node.shape) for x in values)
    grids: list[Any] = []
    for i, x in enumerate(values):
        column = tuple(n if j == i else 1 for j, n in enumerate(shape))
        grids.append(mv.expand(mv.reshape(x, column), shape))
    if swap:
        grids[0], grids[1] = grids[1], grids[0]
    return tuple(grids)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of the elements of vectors, one a row."""
    if len(tensors) == 1:
        return tensors[0]
    return mv.stack([ravel(x) for x in meshgrid(*tensors)], 1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of `r` elements of a vector in order, one a row."""
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = list(choose(range(input._node.shape[0]), r))
    index = tensor(rows or [[0] * r][:0], dtype=dt.int64)
    return input[mv.reshape(index, -1, r)]


def block_diag(*tensors: Tensor) -> Tensor:
    """A matrix with the given matrices along its diagonal, zeros elsewhere."""
    parts: list[Any] = [atleast_2d(x) for x in tensors]
    dtype = mv.common_dtype(parts)
    width = sum(p._node.shape[1] for p in parts)
    rows, left = [], 0
    for part in parts:
        n = part._node.shape[1]
        rows.append(pad(as_dtype(part, dtype), (left, width - left - n)))
        left += n
    return mv.cat(rows, 0)
