"""The caching allocator of host memory: blocks go back to a free list, pages stay.

A fresh page costs a fault and 4 KiB of zeroing, several times what a kernel needs to fill it, so
what was freed is handed out again. Sizes fall into classes, four per power of two, and each class
has its free list. Small blocks are cut from slabs; large ones are mappings of their own.

The hot path takes no lock: `list.pop` and `list.append` are atomic. That matters beyond speed,
because a buffer may be freed by the garbage collector at any point, also in the middle of an
allocation on the same thread, where a lock would wait for itself.
"""

from __future__ import annotations

import os
import threading
from typing import Final

from treadle.runtime.pages import HUGE, PAGE, map_pages, unmap_pages

ALIGNMENT: Final = 64
SLAB: Final = 1 << 20
LARGE: Final = 128 << 10
_HUGE_FROM: Final = 2 * HUGE
_REMEMBERED_SIZES: Final = 4096
# Blocks that nobody uses may add up to what is in use and this much before some are given back.
_SPARE: Final = 256 << 20


class Counters:
    """Bytes in use, and the most that ever were."""

    __slots__ = ("peak", "used")

    def __init__(self) -> None:
        self.used = 0
        self.peak = 0


class SizeClass:
    """The blocks of one size: how many there are, and those among them that are free."""

    __slots__ = ("counters", "free", "size", "total")

    def __init__(self, size: int, counters: Counters) -> None:
        self.size: Final = size
        self.total = 0
        self.free: Final[list[int]] = []
        self.counters: Final = counters


def class_size(nbytes: int) -> int:
    """The size of the blocks that serve a request: at most a quarter larger, at least 64 bytes."""
    if nbytes <= 4 * ALIGNMENT:
        return max(-(-nbytes // ALIGNMENT), 1) * ALIGNMENT
    step = 1 << ((nbytes - 1).bit_length() - 3)
    if nbytes > LARGE:
        step = max(step, PAGE)
    return -(-nbytes // step) * step


class Allocator:
    """Free lists by size class over slabs and mappings. Thread-safe; goes on after a fork.

    Taking and returning a block is written out in `buffer.py`, without a call in between.

    Attributes:
        by_request: the class that serves each number of bytes asked for so far.
    """

    def __init__(self) -> None:
        self.by_request: Final[dict[int, SizeClass]] = {}
        self._counters: Final = Counters()
        self._classes: Final[dict[int, SizeClass]] = {}
        self._reserved = 0
        self._lock = threading.Lock()

    def stats(self) -> dict[str, int]:
        """What `memory_stats` shows."""
        used = self._counters.used
        return {
            "allocated": used,
            "reserved": self._reserved,
            "cached": self._reserved - used,
            "peak": self._counters.peak,
            "count": sum(c.total - len(c.free) for c in tuple(self._classes.values())),
        }

    def reset_peak(self) -> None:
        """Lets `peak` start again from what is in use now."""
        self._counters.peak = self._counters.used

    def empty_cache(self) -> None:
        """Gives free memory back to the system: large blocks, and slabs with nothing in use."""
        with self._lock:
            self._release_free()

    def reset_lock(self) -> None:
        """After a fork: whoever held the lock does not exist in the child."""
        self._lock = threading.Lock()

    def class_of(self, nbytes: int) -> SizeClass:
        """The class that serves `nbytes`; raises `ValueError` for a negative size."""
        if nbytes < 0:
            raise ValueError(f"a buffer cannot have {nbytes} bytes")
        size = class_size(nbytes)
        found = self._classes.setdefault(size, SizeClass(size, self._counters))
        if len(self.by_request) >= _REMEMBERED_SIZES:
            self.by_request.clear()
        self.by_request[nbytes] = found
        return found

    def grow(self, home: SizeClass) -> int:
        """The address of one more block of a class that has none free.

        Raises:
            MemoryError: the system gives no more, even after the cache was emptied.
        """
        with self._lock:
            # Memory that is held but of the wrong size must not pile up without bound.
            if self._reserved > 2 * self._counters.used + _SPARE + home.size:
                self._release_free()
            try:
                return self._map(home)
            except MemoryError:
                self._release_free()
                return self._map(home)

    def _map(self, home: SizeClass) -> int:
        size = home.size
        if size > LARGE:
            address = map_pages(size, HUGE if size >= _HUGE_FROM else PAGE)
            self._reserved += size
            home.total += 1
            return address
        slab = map_pages(SLAB, SLAB)
        blocks = SLAB // size
        self._reserved += SLAB
        home.total += blocks
        # Handed out from the start of the slab, so that only pages in use are ever touched.
        home.free.extend(range(slab + (blocks - 1) * size, slab, -size))
        return slab

    def _release_free(self) -> None:
        for home in tuple(self._classes.values()):
            free = _drain(home.free)
            if home.size > LARGE:
                for address in free:
                    unmap_pages(address, home.size)
                    self._reserved -= home.size
                    home.total -= 1
            else:
                home.free.extend(self._release_slabs(home, free))

    def _release_slabs(self, home: SizeClass, free: list[int]) -> list[int]:
        """Unmaps each slab whose blocks are all in `free`; returns the other blocks."""
        by_slab: dict[int, list[int]] = {}
        for address in free:
            by_slab.setdefault(address & -SLAB, []).append(address)
        kept: list[int] = []
        for slab, blocks in by_slab.items():
            if len(blocks) == SLAB // home.size:
                unmap_pages(slab, SLAB)
                self._reserved -= SLAB
                home.total -= len(blocks)
            else:
                kept.extend(sorted(blocks, reverse=True))
        return kept


def _drain(free: list[int]) -> list[int]:
    """Empties a free list one atomic step at a time: other threads may be using it."""
    out: list[int] = []
    while True:
        try:
            out.append(free.pop())
        except IndexError:
            return out


host: Final = Allocator()
"""The allocator of this process's main memory."""
os.register_at_fork(after_in_child=host.reset_lock)
