"""Batches between processes: a small pickle through a pipe, the arrays through shared memory.

The main process owns every segment: it makes them, lends one with each task, copies the arrays out
when the task is done and unlinks them at the end. A worker that dies leaves nothing behind, and a main process
that dies leaves its segments to Python's resource tracker.
"""

from __future__ import annotations

import io
import os
import pickle
from dataclasses import dataclass
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


@dataclass(slots=True)
class Parcel:
    """A packed object: its pickle, the sizes of its buffers, and whether they lie in the lent segment."""

    pickled: bytes
    sizes: list[int]
    shared: bool


class _Packer(pickle.Pickler):
    """Pickles tensors as their arrays; arrays themselves go out of band (pickle protocol 5)."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Tensor):
            return from_numpy, (np.ascontiguousarray(obj.detach().numpy()),)
        return NotImplemented


def send(connection: Connection, message: Any, segment: SharedMemory | None) -> None:
    """Send `message`, its arrays through `segment` where they fit, else through the pipe."""
    out, buffers = io.BytesIO(), []
    _Packer(out, protocol=5, buffer_callback=buffers.append).dump(message)
    raw = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in raw]
    if segment is not None and extent(sizes) <= segment.size:
        start = 0
        for view in raw:
            segment.buf[start : start + view.nbytes] = view
            start += _padded(view.nbytes)
        connection.send(Parcel(out.getvalue(), sizes, True))
        return
    connection.send(Parcel(out.getvalue(), sizes, False))
    for view in raw:
        if view.nbytes:
            connection.send_bytes(view)


def receive(connection: Connection, segment: SharedMemory | None) -> tuple[Any, int]:
    """A message, and how many bytes its arrays take; what lay in shared memory is copied out."""
    parcel: Parcel = connection.recv()
    total = extent(parcel.sizes)
    room = _aligned(total)
    views, start = [], 0
    for size in parcel.sizes:
        views.append(room[start : start + size])
        start += _padded(size)
    if parcel.shared:
        assert segment is not None
        room[:] = segment.buf[:total]
    else:
        for view in views:
            if view.nbytes:
                connection.recv_bytes_into(view)
    return pickle.loads(parcel.pickled, buffers=views), total


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
    return memoryview(room)[start : start + size]
