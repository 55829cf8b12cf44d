"""Random numbers for transforms: the same for any number of workers, whole batch or one by one.

Every batch has its own numbers, found from the epoch's seed and the number of the batch. They form
a table for each random transform in turn, with a row per sample; who works on a whole batch takes
the table, who works on one sample takes its row. So both get the same values, in any process.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING

from treadle.base.lazy import LazyModule
from treadle.tensor.random import host_generator

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


class Draws:
    """The random numbers of batch number `batch`, of `count` samples; a context in which they hold.

    Args:
        seed: the epoch's seed.
        batch: the number of the batch in the epoch.
        count: samples in the batch.
        used: how many transforms have already drawn theirs (in another process).
    """

    __slots__ = ("_count", "_key", "_row", "_tables", "_token", "used")

    def __init__(self, seed: int, batch: int, count: int, used: int = 0) -> None:
        self._key = (seed, batch)
        self._count = count
        self._row = 0
        self.used = used
        self._tables: dict[tuple[int, int], np.ndarray] = {}

    def __enter__(self) -> Draws:
        self._token = _active.set(self)
        return self

    def __exit__(self, *_: object) -> None:
        _active.reset(self._token)

    def begin(self, row: int) -> None:
        """Go to the first transform of sample `row`."""
        self._row = row
        self.used = 0

    def table(self, columns: int) -> np.ndarray:
        """The next transform's numbers in [0, 1), float64 of shape `(count, columns)`."""
        place = (self.used, columns)
        self.used += 1
        found = self._tables.get(place)
        if found is None:
            bits = np.random.Philox(key=list(self._key), counter=[0, 0, 0, place[0]])
            found = np.random.Generator(bits).random((self._count, columns))
            self._tables[place] = found
        return found

    def row(self, columns: int) -> np.ndarray:
        """The next transform's numbers for the current sample: float64 of shape `(columns,)`."""
        return self.table(columns)[self._row]


_active: ContextVar[Draws | None] = ContextVar("draws", default=None)


def draws() -> Draws:
    """The numbers of the batch being loaded; outside of a loader, fresh ones from the seed."""
    found = _active.get()
    if found is not None:
        return found
    return Draws(int(host_generator(None).integers(2**63)), 0, 1)


def loading() -> bool:
    """Whether a loader is at work: then samples are many and small, and NumPy handles them best."""
    return _active.get() is not None
