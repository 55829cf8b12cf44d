"""Lays tensors out on flat storages, so that those which share memory share a storage."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from treadle.base import dtype as dtypes
from treadle.base.lazy import LazyModule
from treadle.io.window import Window, distinct
from treadle.tensor import Tensor

_numpy = LazyModule("numpy")


class Storages(NamedTuple):
    """The windows of tensors, by the identity of the tensor, and the storages by their key."""

    windows: dict[int, Window]
    arrays: list[Any]


class _Piece(NamedTuple):
    first: int  # address of the lowest byte
    last: int  # address after the highest byte
    array: Any
    owner: int


def lay_out(tensors: Iterable[Tensor]) -> Storages:
    """Gives every tensor a window; tensors that share memory get windows on one storage.

    Only the memory between the first and the last element in use is stored, so a row of a large
    array does not drag the whole array into the file.
    """
    order = {id(tensor): tensor for tensor in tensors}
    pieces = [_piece(array_of(tensor), owner) for owner, tensor in order.items()]
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


def array_of(tensor: Tensor) -> Any:
    """The elements of a tensor, which may require a gradient, as a NumPy array.

    A view is read through the steps that lead to it from its base, so that the arrays of two views
    share memory where the views do.
    """
    if tensor._base is None:
        return tensor._array()
    array = tensor._base._array()
    for op, attrs in tensor._steps:
        array = op.ref(array, *attrs)
    return array


def _piece(array: Any, owner: int) -> _Piece:
    if any(s < 0 or s % array.itemsize for s in array.strides):
        array = _numpy.ascontiguousarray(array).reshape(array.shape)
    start = array.__array_interface__["data"][0]
    if not array.size:
        return _Piece(start, start, array, owner)
    span = sum((n - 1) * s for n, s in zip(array.shape, array.strides, strict=True))
    if distinct(array.shape, array.strides) * array.itemsize > span + array.itemsize:
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
        dtypes.from_numpy(array.dtype),
        storage.size,
        (piece.first - first) // array.itemsize,
        tuple(array.shape),
        tuple(s // array.itemsize for s in array.strides),
    )
