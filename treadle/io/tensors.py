"""Tensors as windows on flat storages, the way PyTorch's format writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.io import adaptor

_numpy = LazyModule("numpy")


class Window(NamedTuple):
    """Where the elements of a tensor lie in a storage; counts and strides are in elements."""

    key: str
    dtype: DType
    total: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class Storages(NamedTuple):
    """The windows of tensors, by the identity of the tensor, and the storages by their key."""

    windows: dict[int, Window]
    arrays: list[Any]


class _Piece(NamedTuple):
    first: int  # address of the lowest byte
    last: int  # address after the highest byte
    array: Any
    owner: int


def lay_out(tensors: Iterable[Any]) -> Storages:
    """Gives every tensor a window; tensors that share memory get windows on one storage.

    Only the memory between the first and the last element in use is stored, so a row of a large
    array does not drag the whole array into the file.
    """
    order = {id(tensor): tensor for tensor in tensors}
    pieces = [_piece(adaptor.array_of(tensor), owner) for owner, tensor in order.items()]
    numbers = {owner: number for number, owner in enumerate(order)}
    groups = [_dense(group) for group in _overlapping(pieces)]
    groups.sort(key=lambda group: min(numbers[piece.owner] for piece in group))
    windows: dict[int, Window] = {}
    arrays = []
    for number, group in enumerate(groups):
        arrays.append(_flat(group))
        for piece in group:
            windows[piece.owner] = _window(piece, group[0].first, arrays[-1], str(number))
    return Storages(windows, arrays)


def _piece(array: Any, owner: int) -> _Piece:
    if any(s < 0 or s % array.itemsize for s in array.strides):
        array = _numpy.ascontiguousarray(array).reshape(array.shape)
    start = array.__array_interface__["data"][0]
    if not array.size:
        return _Piece(start, start, array, owner)
    span = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
    if _distinct(array.shape, array.strides) * array.itemsize > span + array.itemsize:
        return _piece(_numpy.ascontiguousarray(array), owner)  # overlapping windows
    return _Piece(start, start + span + array.itemsize, array, owner)


def _overlapping(pieces: list[_Piece]) -> list[list[_Piece]]:
    """Groups of pieces of one element type that share memory, each in the order of addresses."""
    groups: list[list[_Piece]] = []
    open_groups: dict[Any, tuple[list[_Piece], int]] = {}
    for piece in sorted(pieces, key=lambda piece: piece[:2]):
        group, end = open_groups.get(piece.array.dtype, ([], -1))
        aligned = group and not (piece.first - group[0].first) % piece.array.itemsize
        if aligned and piece.first < end:
            group.append(piece)
        else:
            group = [piece]
            groups.append(group)
            end = -1
        open_groups[piece.array.dtype] = group, max(end, piece.last)
    return groups


def _dense(group: list[_Piece]) -> list[_Piece]:
    """A lone tensor that skips over memory of others is stored without the gaps."""
    piece = group[0]
    if len(group) == 1 and piece.last - piece.first > piece.array.nbytes:
        return [_piece(_numpy.ascontiguousarray(piece.array), piece.owner)]
    return group


def _flat(group: list[_Piece]) -> Any:
    """All memory of a group as one array: it is covered by its pieces, which keep it alive."""
    base = group[0].array
    count = (max(piece.last for piece in group) - group[0].first) // base.itemsize
    return _numpy.lib.stride_tricks.as_strided(base, (count,), (base.itemsize,), writeable=False)


def _window(piece: _Piece, first: int, storage: Any, key: str) -> Window:
    array = piece.array
    return Window(
        key,
        adaptor.dtype_of(array),
        storage.size,
        (piece.first - first) // array.itemsize,
        tuple(array.shape),
        tuple(s // array.itemsize for s in array.strides),
    )


def fault(total: int, offset: Any, shape: Any, strides: Any) -> str | None:
    """What is wrong with a window on a storage of `total` elements, or `None`."""
    numbers = [offset]
    for part in (shape, strides):
        if not isinstance(part, tuple):
            return "its shape and strides are not tuples"
        numbers.extend(part)
    if any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
        return "its offset, shape and strides are not all non-negative integers"
    if len(shape) != len(strides):
        return f"its shape {shape} and its strides {strides} differ in length"
    if len(shape) > 64:
        return f"it has {len(shape)} dimensions"
    count = _distinct(shape, strides)
    if not count:
        return None if _total(shape) < 2**63 else "it has more elements than can be counted"
    last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    if last >= total:
        return f"it reaches element {last:,} of a storage of {total:,}"
    if count > total:
        return "its elements overlap in memory; save a contiguous copy of it"
    return None


def _distinct(shape: Sequence[int], strides: Sequence[int]) -> int:
    """The number of elements, where a broadcast dimension (stride 0) counts once."""
    return _total([min(n, 1) if s == 0 else n for n, s in zip(shape, strides, strict=True)])


def _total(shape: Sequence[int]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def view_of(array: Any, window: Window) -> Any:
    """The NumPy view that a checked window makes of its storage."""
    strides = tuple(s * array.itemsize for s in window.strides)
    return _numpy.lib.stride_tricks.as_strided(array[window.offset :], window.shape, strides)
