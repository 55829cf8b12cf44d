"""Fetching one batch: the data set works on the whole of it where it can, else sample by sample."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle.base.lazy import LazyModule
from treadle.utils.data.collate import default_collate, default_convert
from treadle.utils.data.dataset import fetch_samples, finish_batch
from treadle.utils.data.draws import Draws
from treadle.utils.data.protocol import speaks

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


class Exhausted(Exception):
    """An iterable data set is at its end. Not `StopIteration`, which a user's code may raise."""


@dataclass(slots=True)
class Task:
    """One batch to fetch: its number in the epoch and its indices.

    `indices` is an int64 ndarray or a list for a batch, one index where batching is off, and the
    number of samples to take (`None`: a single one) from an iterable data set.
    """

    number: int
    indices: Any


@dataclass(slots=True)
class Fetched:
    """What came of a task: a finished batch, or arrays that the main process finishes.

    `used` is how many transforms have drawn their random numbers (see `Draws`).
    """

    batch: Any
    finished: bool = True
    used: int = 0


class MapFetcher:
    """Fetches from a data set with `__getitem__`.

    Args:
        dataset: where samples come from.
        collate_fn: makes a batch of a list of samples, or `None` for the default rules.
        batched: whether a task is a batch; otherwise it is a single index.
    """

    def __init__(
        self, dataset: Any, collate_fn: Callable[[Any], Any] | None, batched: bool
    ) -> None:
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.batched = batched
        self.by_batch = batched and collate_fn in (None, default_collate) and (
            speaks(dataset, "__getbatch__", "__getitem__")
        )  # fmt: skip

    def load(self, task: Task, seed: int) -> Any:
        """The batch of `task`, with random numbers found from `seed` and its number."""
        with Draws(seed, task.number, len(task.indices) if self.batched else 1) as numbers:
            arrays = self._arrays(task)
            if arrays is NotImplemented:
                return self._by_sample(task, numbers)
            return finish_batch(self.dataset, arrays)

    def fetch(self, task: Task, seed: int) -> Fetched:
        """The part of `load` that a worker process does."""
        with Draws(seed, task.number, len(task.indices) if self.batched else 1) as numbers:
            arrays = self._arrays(task)
            if arrays is NotImplemented:
                return Fetched(self._by_sample(task, numbers))
            return Fetched(arrays, False, numbers.used)

    def finish(self, fetched: Fetched, task: Task, seed: int) -> Any:
        """The rest of `load`, done in the main process."""
        if fetched.finished:
            return fetched.batch
        with Draws(seed, task.number, len(task.indices), fetched.used):
            return finish_batch(self.dataset, fetched.batch)

    def _arrays(self, task: Task) -> Any:
        if not self.by_batch or not len(task.indices):
            return NotImplemented
        return self.dataset.__getbatch__(np.asarray(task.indices, dtype=np.int64))

    def _by_sample(self, task: Task, numbers: Draws) -> Any:
        if not self.batched:
            return (self.collate_fn or default_convert)(self.dataset[task.indices])
        listed = task.indices if isinstance(task.indices, list) else task.indices.tolist()
        if speaks(self.dataset, "__getitems__", "__getitem__"):
            return (self.collate_fn or default_collate)(fetch_samples(self.dataset, listed))
        samples = []
        for row, index in enumerate(listed):
            numbers.begin(row)
            samples.append(self.dataset[index])
        return (self.collate_fn or default_collate)(samples)


class IterableFetcher:
    """Takes samples from an iterable data set, in order."""

    def __init__(
        self, dataset: Any, collate_fn: Callable[[Any], Any] | None, drop_last: bool
    ) -> None:
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self._samples: Iterator[Any] = iter(dataset)

    def load(self, task: Task, seed: int) -> Any:
        """The next batch; raises `Exhausted` at the end."""
        wanted = task.indices
        with Draws(seed, task.number, wanted or 1) as numbers:
            samples: list[Any] = []
            for row in range(wanted or 1):
                numbers.begin(row)
                samples.extend(itertools.islice(self._samples, 1))
                if len(samples) == row:
                    break
            if not samples or (wanted and self.drop_last and len(samples) < wanted):
                raise Exhausted
            if wanted is None:
                return (self.collate_fn or default_convert)(samples[0])
            return (self.collate_fn or default_collate)(samples)

    def fetch(self, task: Task, seed: int) -> Fetched:
        """`load`, as a worker process does it: there is nothing left to finish."""
        return Fetched(self.load(task, seed))
