"""Pages straight from the operating system: zeroed, aligned, never touched before they are used."""

from __future__ import annotations

import ctypes
import mmap
import sys
from typing import Final

PAGE: Final = mmap.PAGESIZE
HUGE: Final = 2 << 20
_FAILED: Final = 2 ** (8 * ctypes.sizeof(ctypes.c_void_p)) - 1

_libc: Final = ctypes.CDLL(None, use_errno=True)
_map = _libc.mmap
_map.restype = ctypes.c_void_p
_map.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long,
)  # fmt: skip
_unmap = _libc.munmap
_unmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_advise = _libc.madvise
_advise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


def map_pages(nbytes: int, align: int = PAGE) -> int:
    """The address of `nbytes` of fresh, zeroed, private memory.

    Args:
        nbytes: size in bytes, a multiple of the page size.
        align: alignment in bytes, a power of two. From `HUGE` on, huge pages are asked for: the
            first touch of a large array then costs one fault for 2 MiB instead of 512.

    Raises:
        MemoryError: the system gives no more.
    """
    slack = align - PAGE if align > PAGE else 0
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    start = _map(None, nbytes + slack, mmap.PROT_READ | mmap.PROT_WRITE, flags, -1, 0)
    if start is None or start == _FAILED:
        raise MemoryError(f"the system has no {nbytes:,} bytes left")
    address = -(-start // align) * align
    if address > start:
        unmap_pages(start, address - start)
    if start + slack > address:
        unmap_pages(address + nbytes, start + slack - address)
    if align >= HUGE and sys.platform == "linux":
        _advise(address, nbytes, mmap.MADV_HUGEPAGE)  # advice: a refusal changes nothing
    return address


def unmap_pages(address: int, nbytes: int) -> None:
    """Gives pages back to the system."""
    if _unmap(address, nbytes):
        raise OSError(ctypes.get_errno(), f"cannot unmap {nbytes:,} bytes at {address:#x}")
