"""How much the caches hold that all processors share."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import Final

_UNKNOWN: Final = 32 << 20
"""Bytes where the system does not tell: what processors of desktops and servers have at least."""
_UNITS: Final = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@functools.cache
def last_level() -> int:
    """Bytes of the largest caches that the processors of this process reach, each counted once."""
    return cache_bytes(_processors())


def cache_bytes(processors: frozenset[int], system: Path = Path("/sys/devices/system/cpu")) -> int:
    """Bytes of the largest cache of each of some processors; one that they share counts once.

    Args:
        processors: their numbers.
        system: where Linux describes processors.
    """
    found: dict[str, int] = {}
    for number in processors:
        sizes: dict[str, int] = {}
        for cache in (system / f"cpu{number}" / "cache").glob("index*"):
            try:
                size = (cache / "size").read_text().strip()
                shared = (cache / "shared_cpu_list").read_text().strip()
                sizes[f"{cache.name} {shared}"] = int(size[:-1]) * _UNITS[size[-1]]
            except (OSError, ValueError, KeyError, IndexError):
                # A cache that is not described as expected counts for nothing.
                continue
        if sizes:
            largest = max(sizes, key=lambda name: sizes[name])
            found[largest] = sizes[largest]
    return sum(found.values()) or _UNKNOWN


def _processors() -> frozenset[int]:
    if hasattr(os, "sched_getaffinity"):
        return frozenset(os.sched_getaffinity(0))
    return frozenset(range(os.cpu_count() or 1))
