"""Keeps the object cache within bounds: what was used longest ago goes first."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Final

BYTES_AT_MOST: Final = 512 << 20
_DOWN_TO: Final = 3 / 4
"""So much of the bound is left after a pruning: the next one is not due at once."""
_DAY: Final = 24 * 3600.0
"""Uses are noted to a day: a write for each would cost more than it tells."""


def note_use(path: Path) -> None:
    """Lets an entry count as used now."""
    try:
        if time.time() - path.stat().st_mtime > _DAY:
            os.utime(path)
    except OSError:
        # Somebody else's cache may be read and not written; another process may have pruned.
        return


def prune(folder: Path, most: int = BYTES_AT_MOST) -> int:
    """Removes the entries used longest ago, if all together have more than `most` bytes.

    Processes that use an entry have loaded it: they lose nothing.

    Returns:
        The bytes removed.
    """
    found: list[tuple[float, int, str]] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            try:
                stat = entry.stat()
            except FileNotFoundError:
                continue
            found.append((stat.st_mtime, stat.st_size, entry.path))
    total = sum(size for _, size, _ in found)
    removed = 0
    if total > most:
        for _, size, path in sorted(found):
            if total - removed <= most * _DOWN_TO:
                break
            Path(path).unlink(missing_ok=True)
            removed += size
    return removed
