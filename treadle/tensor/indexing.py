"""Reading and writing parts of a tensor: `x[i, 1:3, ..., None, index, mask]`."""

from __future__ import annotations

from typing import Any, NamedTuple

from treadle.base import dtype as dt
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy import LazyModule
from treadle.base.shape import count
from treadle.ops import view as views
from treadle.ops.gather import TAKE
from treadle.ops.pointwise import CHECK
from treadle.tensor import arithmetic as ar
from treadle.tensor.creation import arange, from_numpy, tensor, zeros
from treadle.tensor.gathering import place
from treadle.tensor.movement import expand, permute, reshape
from treadle.tensor.promote import as_dtype
from treadle.tensor.record import Lazy, record, view

np = LazyModule("numpy")


class Basic(NamedTuple):
    """The part of an index that is a view: a slice of every axis, a flip, and a reshape."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]
    flips: tuple[int, ...]
    shape: tuple[int, ...]
    advanced: tuple[tuple[int, Any], ...]
    """(axis of the result, index tensor) of each tensor index."""


def _as_items(index: Any) -> tuple[Any, ...]:
    items = index if isinstance(index, tuple) else (index,)
    return tuple(_item(x) for x in items)


def _item(x: Any) -> Any:
    if isinstance(x, (list, range)):
        x = tensor(list(x)) if len(x) else zeros(0, dtype=dt.int64)
    elif type(x).__module__ == "numpy" and getattr(x, "ndim", 0) > 0:
        x = from_numpy(x)
    elif type(x).__module__ == "numpy":
        x = x.item()
    if isinstance(x, Lazy):
        kind = x._node.dtype.kind
        if kind == "f":
            raise DTypeError(
                f"tensors used as indices must be long, int, byte or bool, not {x._node.dtype.name}"
            )
        return x if kind == "b" else as_dtype(x, dt.int64)
    if x is None or x is Ellipsis or isinstance(x, (slice, bool)):
        return x
    if hasattr(x, "__index__"):
        return x.__index__()
    raise TypeError(f"a tensor cannot be indexed by {type(x).__name__}")


def _consumes(item: Any) -> int:
    if isinstance(item, Lazy):
        return len(item._node.shape) if item._node.dtype is dt.bool_ else 1
    return 0 if item is None or item is Ellipsis or isinstance(item, bool) else 1


def _filled(items: tuple[Any, ...], rank: int) -> list[Any]:
    """The items with the ellipsis, or the end, filled by whole slices."""
    used = sum(_consumes(x) for x in items)
    if used > rank:
        raise IndexError(f"too many indices for tensor of dimension {rank}")
    at = [i for i, x in enumerate(items) if x is Ellipsis]
    if len(at) > 1:
        raise IndexError("an index may have only one ellipsis")
    fill: list[Any] = [slice(None)] * (rank - used)
    if at:
        return [*items[: at[0]], *fill, *items[at[0] + 1 :]]
    return [*items, *fill]


def _positions(mask: Any) -> list[Any]:
    """The index tensors of the true elements of a mask: their number depends on its values."""
    return [from_numpy(np.ascontiguousarray(i)) for i in np.nonzero(mask.detach().numpy())]


def parse(shape: tuple[int, ...], index: Any) -> Basic:
    """An index resolved against a shape; raises `IndexError` where it is out of bounds."""
    cuts: list[tuple[int, int, int]] = []
    flips: list[int] = []
    out: list[int] = []
    advanced: list[tuple[int, Any]] = []
    axis = 0
    for item in _filled(_as_items(index), len(shape)):
        if item is None:
            out.append(1)
            continue
        if isinstance(item, bool):
            if not item:
                advanced.append((len(out), zeros(0, dtype=dt.int64)))
            out.append(1)
            continue
        if isinstance(item, Lazy):
            parts = _positions(item) if item._node.dtype is dt.bool_ else [item]
            _check_mask(item, shape, axis)
            for part in parts:
                advanced.append((len(out), part))
                out.append(shape[axis])
                cuts.append((0, shape[axis], 1))
                axis += 1
            continue
        n = shape[axis]
        if isinstance(item, slice):
            a, b, s = item.indices(n)
            length = len(range(a, b, s))
            if not length:
                a, b, s = 0, 0, 1
            elif s < 0:
                a, b, s = a + (length - 1) * s, a + 1, -s
                flips.append(axis)
            cuts.append((a, a + (length - 1) * s + 1 if length else a, s))
            out.append(length)
        else:
            i = item + n if item < 0 else item
            if not 0 <= i < n:
                raise IndexError(
                    f"index {item} is out of bounds for dimension {axis} with size {n}"
                )
            cuts.append((i, i + 1, 1))
        axis += 1
    starts, stops, steps = (tuple(cut[k] for cut in cuts) for k in range(3))
    return Basic(starts, stops, steps, tuple(flips), tuple(out), tuple(advanced))


def _check_mask(item: Any, shape: tuple[int, ...], axis: int) -> None:
    if item._node.dtype is dt.bool_:
        part = shape[axis : axis + len(item._node.shape)]
        if part != item._node.shape:
            raise IndexError(
                f"the shape of the mask {list(item._node.shape)} does not match the shape of the "
                f"indexed tensor {list(shape)} at index {axis}"
            )


def _select(x: Any, basic: Basic) -> Any:
    """The view part of an index."""
    out = x
    shape = tuple(x._node.shape)
    whole = basic.starts == (0,) * len(shape) and basic.stops == shape
    if not whole or any(s != 1 for s in basic.steps):
        out = view(views.SLICE, out, (basic.starts, basic.stops, basic.steps))
    if basic.flips:
        out = view(views.FLIP, out, (basic.flips,))
    if tuple(out._node.shape) != basic.shape:
        out = view(views.RESHAPE, out, (basic.shape,))
    return out


def _bounded(index: Any, extent: int) -> Any:
    """An index made non-negative; a run fails where it is out of its own axis, before it could
    land in another."""
    wrapped = ar.where(ar.lt(index, 0), ar.add(index, extent), index)
    inside = ar.logical_and(ar.ge(wrapped, 0), ar.lt(wrapped, extent))
    return record(
        CHECK, (wrapped, inside), (f"index out of range for a dimension of size {extent}",)
    )


def _linear(x: Any, advanced: tuple[tuple[int, Any], ...]) -> tuple[Any, Any, list[int], int]:
    """The indexed axes brought to the front as one, the index into it, and how to go back."""
    shape = tuple(x._node.shape)
    axes = [axis for axis, _ in advanced]
    rest = [a for a in range(len(shape)) if a not in axes]
    flat: Any = None
    extent = 1
    for axis, index in advanced:
        n = shape[axis]
        here = index if len(advanced) == 1 else _bounded(index, n)
        flat = here if flat is None else ar.add(ar.mul(flat, n), here)
        extent *= n
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    place = axes[0] if together else 0
    front = reshape(permute(x, (*axes, *rest)), (extent, *(shape[a] for a in rest)))
    return front, flat, rest, place


def getitem(x: Any, index: Any) -> Any:
    """`x[index]`: a view where the index has no tensors, else a copy."""
    basic = parse(tuple(x._node.shape), index)
    out = _select(x, basic)
    if not basic.advanced:
        return out if out is not x else view(views.ALIAS, x, ())
    return _taken(out, basic.advanced)


def _taken(x: Any, advanced: tuple[tuple[int, Any], ...]) -> Any:
    """The elements at tensor indices, their axes where NumPy puts them."""
    front, flat, _, at = _linear(x, advanced)
    taken = record(TAKE, (front, flat), (0,))
    width = len(flat._node.shape)
    if at == 0:
        return taken
    rank = len(taken._node.shape)
    order = (*range(width, width + at), *range(width), *range(width + at, rank))
    return permute(taken, order)


def setitem(x: Any, index: Any, value: Any, accumulate: bool = False) -> None:
    """`x[index] = value`: the value is broadcast to the part and converted to the dtype."""
    basic = parse(tuple(x._node.shape), index)
    part = _select(x, basic)
    wanted = as_dtype(value if isinstance(value, (Lazy, int, float)) else tensor(value),
                      x._node.dtype)  # fmt: skip
    if not basic.advanced:
        fitted = _fitted(wanted, tuple(part._node.shape))
        part.copy_(ar.add(part, fitted) if accumulate else fitted)
        return
    shape = tuple(part._node.shape)
    numbers = reshape(arange(count(shape)), shape)
    places = _taken(numbers, basic.advanced)
    filled = expand(_fitted(wanted, tuple(places._node.shape)), places._node.shape)
    part.copy_(place(part, places, filled, accumulate))


def _fitted(value: Any, shape: tuple[int, ...]) -> Any:
    """A value without the leading axes of extent 1 that a part does not have."""
    source = tuple(value._node.shape)
    extra = len(source) - len(shape)
    if extra > 0:
        if any(n != 1 for n in source[:extra]):
            raise ShapeError(f"shape mismatch: value {source} cannot be assigned to {shape}")
        return reshape(value, source[extra:])
    return value
