"""Batches between processes: a small pickle through a pipe, the arrays through shared memory.

The main process owns every segment: it makes them, lends one with each task, copies the arrays out
when the task is done and unlinks them at the end. A worker that dies leaves nothing behind, and a
main process that dies leaves its segments to Python's resource tracker.
"""

from __future__ import annotations

import io
import os
import pickle
from typing import TYPE_CHECKING, Any

from treadle.base.lazy import LazyModule
from treadle.tensor import Tensor, from_numpy

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.shared_memory import SharedMemory

    import numpy as np
else:
    np = LazyModule("numpy")
_memory = LazyModule("multiprocessing.shared_memory")

_ALIGN = 64
WORTH_SHARING = 1 << 14
"""Bytes below which a pipe is as quick as shared memory."""
FITS_A_PIPE = 1 << 16
"""Bytes that a pipe takes without anybody reading it."""


class Parcel:
    """A packed object: its pickle and its buffers, which lie in shared memory or follow inline."""

    __slots__ = ("_pickled", "_sizes", "_views", "inline")

    def __init__(self, pickled: bytes, sizes: list[int], views: list[memoryview]) -> None:
        self._pickled = pickled
        self._sizes = sizes
        self._views = views
        self.inline = len(pickled) + sum(view.nbytes for view in views)

    def send(self, connection: Connection) -> None:
        """Send the parcel; raises `OSError` where nobody listens any more."""
        connection.send((self._pickled, self._sizes, not self._views))
        for view in self._views:
            if view.nbytes:
                connection.send_bytes(view)


class _Packer(pickle.Pickler):
    """Pickles tensors as their arrays; arrays themselves go out of band (pickle protocol 5)."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return from_numpy, (np.ascontiguousarray(obj.detach().numpy()),)
        return NotImplemented


def pack(message: Any, segment: SharedMemory | None) -> Parcel:
    """Pack `message`, its arrays into `segment` where they fit."""
    out = io.BytesIO()
    buffers: list[pickle.PickleBuffer] = []
    _Packer(out, protocol=5, buffer_callback=buffers.append).dump(message)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    if segment is None or extent(sizes) > segment.size:
        return Parcel(out.getvalue(), sizes, views)
    assert segment.buf is not None
    room, start = segment.buf, 0
    for view in views:
        room[start : start + view.nbytes] = view
        start += _padded(view.nbytes)
    return Parcel(out.getvalue(), sizes, [])


def receive(connection: Connection, segment: SharedMemory | None) -> tuple[Any, int]:
    """A message, and how many bytes its arrays take; what lay in shared memory is copied out."""
    pickled, sizes, shared = connection.recv()
    total = extent(sizes)
    room = _aligned(total)
    views, start = [], 0
    for size in sizes:
        views.append(room[start : start + size])
        start += _padded(size)
    if not shared:
        for view in views:
            if view.nbytes:
                connection.recv_bytes_into(view)
    elif sizes:
        assert segment is not None and segment.buf is not None
        room[:] = segment.buf[:total]
    return pickle.loads(pickled, buffers=views), total


def extent(sizes: list[int]) -> int:
    """The bytes that buffers of these sizes take, each one aligned."""
    return sum(map(_padded, sizes))


def create(size: int) -> SharedMemory | None:
    """A new segment of `size` bytes, or `None` where the system has no room for it."""
    try:
        # A segment beyond what the file system holds would be made, and kill its writer (SIGBUS).
        free = os.statvfs("/dev/shm")
        if free.f_bavail * free.f_frsize < size:
            return None
    except (AttributeError, FileNotFoundError):
        # Not Linux: there segments do not live in a file system of limited size.
        pass
    try:
        return _memory.SharedMemory(create=True, size=size)
    except OSError:
        return None


def attach(name: str) -> SharedMemory:
    """The segment called `name`, made by the main process."""
    return _memory.SharedMemory(name)


def destroy(segment: SharedMemory) -> None:
    """Unmap and remove a segment."""
    segment.close()
    segment.unlink()


def _padded(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _aligned(size: int) -> memoryview:
    room = np.empty(size + _ALIGN, dtype=np.uint8)
    start = -room.ctypes.data % _ALIGN
    return room[start : start + size].data
