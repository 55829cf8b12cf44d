"""Work of the host on many rows, shared among threads: NumPy lets go of the interpreter's lock."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from treadle.base.lazy import LazyModule
from treadle.base.settings import settings

np = LazyModule("numpy")

SHARE: Final = 1 << 16
"""Elements that one thread takes at once: enough to be worth it, few enough for its cache."""


def by_rows(function: Callable[[Any], Any], rows: Any, shape: tuple[int, ...] = ()) -> Any:
    """A function of rows, int64 of `shape` for each, whatever rows it is given at once.

    Args:
        function: takes some of the rows and gives as many results.
        rows: an array of at least one dimension.
        shape: of the result of one row.

    Returns:
        The results of all rows.
    """
    out = np.empty((len(rows), *shape), np.int64)
    if not out.size:
        return out
    step = max(1, SHARE * len(rows) // max(rows.size, 1))
    starts = range(0, len(rows), step)
    threads = min(settings.threads or os.cpu_count() or 1, len(starts))

    def work(start: int) -> None:
        part = slice(start, start + step)
        out[part] = function(rows[part])

    if threads < 2:
        for start in starts:
            work(start)
        return out
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, starts))
    return out
