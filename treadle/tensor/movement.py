"""Functions that move elements about: shapes, axes, joining, splitting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import shape as sh
from treadle.base.dtype import DType, promote
from treadle.base.errors import ShapeError
from treadle.ops import view as ops
from treadle.ops.gather import JOIN
from treadle.tensor.promote import as_dtype
from treadle.tensor.record import block, record, view

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor


def sizes(values: tuple[Any, ...]) -> tuple[int, ...]:
    """A shape given as separate numbers or as one sequence."""
    if len(values) == 1 and isinstance(values[0], (tuple, list)):
        values = tuple(values[0])
    for v in values:
        if type(v) is not int:
            return tuple([int(v) for v in values])
    return values


def resolve(shape: tuple[int, ...], total: int) -> tuple[int, ...]:
    """A shape with its `-1`, if any, replaced; raises `ShapeError` where it does not fit."""
    if -1 not in shape:
        return shape
    known = 1
    for n in shape:
        known *= n if n != -1 else 1
    if shape.count(-1) > 1:
        raise ShapeError("only one dimension can be inferred")
    if known == 0 or total % known:
        raise ShapeError(f"shape '{list(shape)}' is invalid for input of size {total}")
    return tuple(total // known if n == -1 else n for n in shape)


def reshape(input: Tensor, *shape: Any) -> Tensor:
    """The elements in row-major order under another shape; one extent may be -1."""
    target = sizes(shape)
    if -1 in target:
        target = resolve(target, sh.count(input._node.shape))
    return view(ops.RESHAPE, input, (target,))


def permute(input: Tensor, *dims: Any) -> Tensor:
    """The axes in the order `dims`."""
    rank = len(input._node.shape)
    order = tuple(sh.axis(d, rank) for d in sizes(dims))
    if sorted(order) != list(range(rank)):
        raise ShapeError(
            f"permute: dims {tuple(order)} is not an order of the {rank} dimensions of the input"
        )
    return view(ops.PERMUTE, input, (order,))


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """Two axes exchanged."""
    rank = len(input._node.shape)
    order = list(range(rank))
    if rank:
        i, j = sh.axis(dim0, rank), sh.axis(dim1, rank)
        order[i], order[j] = order[j], order[i]
    return view(ops.PERMUTE, input, (tuple(order),))


def t(input: Tensor) -> Tensor:
    """The transpose of a matrix; vectors and scalars stay as they are."""
    rank = len(input._node.shape)
    if rank > 2:
        raise ShapeError(f"t() expects a tensor with <= 2 dimensions, but self is {rank}D")
    return transpose(input, 0, 1) if rank == 2 else input


def movedim(input: Tensor, source: int | Sequence[int], destination: int | Sequence[int]) -> Tensor:
    """The axes `source` moved to the places `destination`; the others keep their order."""
    rank = len(input._node.shape)
    src = [sh.axis(a, rank) for a in ([source] if isinstance(source, int) else source)]
    dst = [
        sh.axis(a, rank) for a in ([destination] if isinstance(destination, int) else destination)
    ]
    order = [a for a in range(rank) if a not in src]
    for place, axis in sorted(zip(dst, src, strict=True)):
        order.insert(place, axis)
    return permute(input, order)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Axes `start_dim` to `end_dim` merged into one."""
    shape = input._node.shape
    rank = len(shape)
    if not rank:
        return reshape(input, 1)
    i, j = sh.axis(start_dim, rank), sh.axis(end_dim, rank)
    if i > j:
        raise ShapeError("flatten() has invalid args: start_dim cannot come after end_dim")
    return reshape(input, (*shape[:i], sh.count(shape[i : j + 1]), *shape[j + 1 :]))


def unflatten(input: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """Axis `dim` split into axes of the given extents."""
    old = input._node.shape
    i = sh.axis(dim, len(old))
    return reshape(input, (*old[:i], *resolve(tuple(shape), old[i]), *old[i + 1 :]))


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A new axis of extent 1 at `dim`."""
    shape = input._node.shape
    i = sh.axis(dim, len(shape) + 1)
    return view(ops.RESHAPE, input, ((*shape[:i], 1, *shape[i:]),))


def squeeze(input: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """Without the axes of extent 1, or without those of them that are named."""
    shape = input._node.shape
    named = sh.axes(dim, len(shape))
    kept = tuple(n for i, n in enumerate(shape) if n != 1 or i not in named)
    return view(ops.RESHAPE, input, (kept,))


def expand(input: Tensor, *shape: Any) -> Tensor:
    """Axes of extent 1 repeated to `shape`; -1 keeps an extent."""
    old = input._node.shape
    wanted = sizes(shape)
    extra = len(wanted) - len(old)
    if extra < 0:
        raise ShapeError(
            f"expand: the number of sizes provided ({len(wanted)}) must be greater or equal to "
            f"the number of dimensions in the tensor ({len(old)})"
        )
    target = tuple(old[i - extra] if n == -1 else n for i, n in enumerate(wanted))
    return view(ops.EXPAND, input, (target,))


def expand_as(input: Tensor, other: Tensor) -> Tensor:
    """Expanded to the shape of another tensor."""
    return expand(input, other._node.shape)


def broadcast_to(input: Tensor, shape: Sequence[int]) -> Tensor:
    """Expanded to a shape."""
    return expand(input, tuple(shape))


def broadcast_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All expanded to their common shape."""
    shape = sh.broadcast(*(x._node.shape for x in tensors))
    return tuple(expand(x, shape) for x in tensors)


def repeat(input: Tensor, *repeats: Any) -> Tensor:
    """The tensor tiled `repeats[i]` times along each axis."""
    times = sizes(repeats)
    shape = (1,) * (len(times) - len(input._node.shape)) + tuple(input._node.shape)
    column = [n for extent in shape for n in (1, extent)]
    wide = [n for k, extent in zip(times, shape, strict=True) for n in (k, extent)]
    out = expand(reshape(input, column), wide)
    return reshape(out, tuple(k * n for k, n in zip(times, shape, strict=True)))


def flip(input: Tensor, *axes: Any, dims: Sequence[int] | int | None = None) -> Tensor:
    """The order along the named axes reversed; they may be given as `dims=` as well."""
    rank = len(input._node.shape)
    named = axes if dims is None else (dims,)
    axes = sh.axes(sizes(named), rank)
    return record(ops.FLIP, (input,), (axes,))


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` elements from `start` along an axis."""
    shape = input._node.shape
    axis = sh.axis(dim, len(shape))
    start, length = int(start), int(length)
    first = start + shape[axis] if start < 0 else start
    if not 0 <= first <= first + length <= shape[axis]:
        raise IndexError(
            f"start ({start}) + length ({length}) exceeds dimension size ({shape[axis]})."
        )
    starts = tuple(first if i == axis else 0 for i in range(len(shape)))
    stops = tuple(first + length if i == axis else n for i, n in enumerate(shape))
    return view(ops.SLICE, input, (starts, stops, (1,) * len(shape)))


def split(input: Tensor, split_size: int | Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Pieces of `split_size` elements (the last may be smaller), or of the listed sizes."""
    extent = input._node.shape[sh.axis(dim, len(input._node.shape))]
    if isinstance(split_size, int):
        if split_size <= 0:
            raise ValueError(f"split: the size must be positive, got {split_size}")
        parts = [min(split_size, extent - i) for i in range(0, max(extent, 1), split_size)]
    else:
        parts = list(split_size)
        if sum(parts) != extent:
            raise ShapeError(f"split: sizes {parts} do not sum to the extent {extent} of dim {dim}")
    out, start = [], 0
    for n in parts:
        out.append(narrow(input, dim, start, n))
        start += n
    return tuple(out)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` pieces of equal size (the last may be smaller)."""
    extent = input._node.shape[sh.axis(dim, len(input._node.shape))]
    return split(input, max(1, -(-extent // chunks)), dim)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """The slices along an axis, without that axis."""
    axis = sh.axis(dim, len(input._node.shape))
    return tuple(squeeze(narrow(input, axis, i, 1), axis) for i in range(input._node.shape[axis]))


def common_dtype(tensors: Sequence[Any]) -> DType:
    """The dtype that several tensors are joined in."""
    dtype: DType = tensors[0]._node.dtype
    for x in tensors[1:]:
        dtype = promote(dtype, x._node.dtype)
    return dtype


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along an axis; the other extents must agree.

    Raises:
        ShapeError: extents differ, or there is nothing to join.
    """
    if not tensors:
        raise ShapeError("cat: expected a non-empty list of tensors")
    return block(_cat, tensors, (dim,))


def _cat(*arguments: Any) -> Any:
    *tensors, dim = arguments
    parts = [x for x in tensors if x._node.shape != (0,)] or tensors
    shapes = [x._node.shape for x in parts]
    axis = sh.axis(dim, len(shapes[0]))
    for other in shapes[1:]:
        if len(other) != len(shapes[0]) or any(
            m != n for i, (m, n) in enumerate(zip(other, shapes[0], strict=True)) if i != axis
        ):
            raise ShapeError(
                f"cat: sizes of tensors must match except in dimension {dim}: got "
                f"{list(shapes[0])} and {list(other)}"
            )
    dtype = common_dtype(parts)
    parts = [x for x in parts if x._node.shape[axis]] or parts[:1]
    return record(JOIN, tuple(as_dtype(x, dtype) for x in parts), (axis,))


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new axis."""
    if not tensors:
        raise ShapeError("stack expects a non-empty list of tensors")
    return block(_stack, tensors, (dim,))


def _stack(*arguments: Any) -> Any:
    *tensors, dim = arguments
    shapes = {tuple(x._node.shape) for x in tensors}
    if len(shapes) != 1:
        raise ShapeError(f"stack expects each tensor to be equal size, got {sorted(shapes)}")
    return _cat(*(unsqueeze(x, dim) for x in tensors), dim)
