"""`DataLoader`: batches of a data set, in order, fetched here or by worker processes."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from treadle.tensor.random import Generator, host_generator
from treadle.utils.data.collate import default_collate, default_convert
from treadle.utils.data.dataset import Dataset, IterableDataset
from treadle.utils.data.fetch import Exhausted, IterableFetcher, MapFetcher, Task
from treadle.utils.data.pool import Pool, start_method
from treadle.utils.data.protocol import speaks
from treadle.utils.data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from treadle.utils.data.worker import Setup

T = TypeVar("T", covariant=True)


class DataLoader(Generic[T]):
    """Batches of a data set.

    A data set that can fetch a whole batch at once (`Dataset.__getbatch__`) does so, as long as the
    collation is the default one; otherwise samples are fetched one by one and collated. The order
    follows from `manual_seed` (or `generator`) alone, and so do the random numbers of treadle's
    transforms: the number of workers changes nothing.

    Args:
        dataset: where the samples come from.
        batch_size: samples in a batch; `None` gives single samples instead of batches.
        shuffle: whether to visit the samples in a new random order in each epoch.
        sampler: the order of the samples; excludes `shuffle`.
        batch_sampler: the groups of samples; excludes `batch_size`, `shuffle`, `sampler`,
            `drop_last`.
        num_workers: processes that fetch; 0 fetches in this one.
        collate_fn: makes a batch of a list of samples (default: `default_collate`).
        pin_memory: accepted for PyTorch's sake; memory of the CPU needs no pinning.
        drop_last: whether to leave out a last batch that is smaller.
        timeout: seconds to wait for a worker's batch; 0 waits for ever.
        worker_init_fn: called in each worker with its number, after seeding. Without it `random`,
            `numpy.random` and treadle are seeded anew for each batch.
        multiprocessing_context: a start method's name or context (default: `fork` on Linux, else
            the platform's own). `spawn` needs a data set that can be pickled and a guarded main
            module.
        generator: source of the order (default: treadle's own).
        prefetch_factor: batches fetched ahead by each worker (default: 2).
        persistent_workers: whether workers live on from one epoch to the next.

    Raises:
        ValueError: options that exclude one another, or a value out of its range.

    Example:
        >>> import treadle
        >>> from treadle.utils.data import TensorDataset
        >>> data = TensorDataset(treadle.zeros(10, 3), treadle.arange(10))
        >>> [len(labels) for _, labels in DataLoader(data, batch_size=4)]
        [4, 4, 2]
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[list[Any]] | Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], None] | None = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
    ) -> None:
        _check_workers(num_workers, timeout, prefetch_factor, persistent_workers)
        if num_workers == 0 and multiprocessing_context is not None:
            raise ValueError(
                "multiprocessing_context can only be used with multi-process loading "
                "(num_workers > 0)"
            )
        self.dataset = dataset
        self.num_workers = num_workers
        self.prefetch_factor = 2 if num_workers and prefetch_factor is None else prefetch_factor
        self.pin_memory = pin_memory
        self.pin_memory_device = pin_memory_device
        self.timeout = timeout
        self.worker_init_fn = worker_init_fn
        self.multiprocessing_context = multiprocessing_context
        self.generator = generator
        self.persistent_workers = persistent_workers
        self._iterable = isinstance(dataset, IterableDataset)
        self._choose_order(batch_size, shuffle, sampler, batch_sampler, drop_last)
        batched = self.batch_sampler is not None or (self._iterable and self.batch_size is not None)
        self._batched = batched
        self.collate_fn = collate_fn or (default_collate if batched else default_convert)
        self._pool: Pool | None = None

    def _choose_order(
        self,
        batch_size: int | None,
        shuffle: bool | None,
        sampler: Any,
        batch_sampler: Any,
        drop_last: bool,
    ) -> None:
        """Settle what is fetched, in which order; by PyTorch's rules on what excludes what."""
        if self._iterable:
            for name, value in (("shuffle", shuffle), ("sampler", sampler)):
                if value not in (None, False):
                    raise ValueError(
                        f"DataLoader with IterableDataset: expected unspecified {name} option, "
                        f"but got {name}={value}"
                    )
            if batch_sampler is not None:
                raise ValueError(
                    "DataLoader with IterableDataset: expected unspecified batch_sampler option, "
                    f"but got batch_sampler={batch_sampler}"
                )
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_sampler is not None:
            if batch_size != 1 or shuffle or sampler is not None or drop_last:
                raise ValueError(
                    "batch_sampler option is mutually exclusive with batch_size, shuffle, sampler, "
                    "and drop_last"
                )
            batch_size = None
        elif batch_size is None and drop_last:
            raise ValueError(
                "batch_size=None option disables auto-batching and is mutually exclusive with "
                "drop_last"
            )
        if sampler is None and not self._iterable and batch_sampler is None:
            source: Any = self.dataset
            if shuffle:
                sampler = RandomSampler(source, generator=self.generator)
            else:
                sampler = SequentialSampler(source)
        if batch_size is not None and (
            not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size <= 0
        ):
            raise ValueError(
                f"batch_size should be a positive integer value, but got batch_size={batch_size}"
            )
        if batch_size is not None and not self._iterable:
            batch_sampler = BatchSampler(sampler, batch_size, drop_last)
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.sampler = sampler
        self.batch_sampler = batch_sampler

    def __iter__(self) -> Iterator[T]:
        seed = int(host_generator(self.generator).integers(2**62))
        if self.num_workers:
            return self._with_workers(self._ready_pool(seed), seed)
        return self._in_process(seed)

    def __len__(self) -> int:
        if not self._iterable:
            return len(self.sampler if self.batch_sampler is None else self.batch_sampler)
        count = len(self.dataset)  # type: ignore[arg-type]
        if self.batch_size is None:
            return count
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)

    def _tasks(self) -> Iterator[Task]:
        """What is to be fetched in one epoch."""
        if self._iterable:
            return (Task(i, self.batch_size) for i in itertools.count())
        groups = self.sampler if self.batch_sampler is None else self.batch_sampler
        if speaks(groups, "slices", "__iter__"):
            groups = groups.slices()
        return (
            Task(i, group if hasattr(group, "tolist") or not self._batched else list(group))
            for i, group in enumerate(groups)
        )

    def _fetcher(self) -> MapFetcher | IterableFetcher:
        if self._iterable:
            return IterableFetcher(self.dataset, self.collate_fn, self.drop_last)
        return MapFetcher(self.dataset, self.collate_fn, self._batched)

    def _in_process(self, seed: int) -> Iterator[T]:
        fetcher = self._fetcher()
        for task in self._tasks():
            try:
                batch = fetcher.load(task, seed)
            except Exhausted:
                return
            yield batch

    def _ready_pool(self, seed: int) -> Pool:
        if self._pool is not None:
            return self._pool
        setup = Setup(
            self.dataset,
            self._iterable,
            self._batched,
            self.drop_last,
            self.collate_fn,
            self.worker_init_fn,
            self.num_workers,
        )
        pool = Pool(setup, start_method(self.multiprocessing_context), self.timeout, seed)
        if self.persistent_workers:
            self._pool = pool
        return pool

    def _with_workers(self, pool: Pool, seed: int) -> Iterator[T]:
        """Starts the workers on the first batches; the iterator receives them in order."""
        epoch = pool.begin(seed)
        tasks = self._tasks()
        waiting: deque[tuple[int, Task]] = deque()
        ahead = self.num_workers * (self.prefetch_factor or 1)
        for worker, task in zip(
            itertools.islice(itertools.cycle(range(self.num_workers)), ahead), tasks, strict=False
        ):
            pool.submit(worker, task)
            waiting.append((worker, task))
        return self._receive(pool, epoch, seed, tasks, waiting)

    def _receive(
        self,
        pool: Pool,
        epoch: int,
        seed: int,
        tasks: Iterator[Task],
        waiting: deque[tuple[int, Task]],
    ) -> Iterator[T]:
        finisher = (
            None if self._iterable else MapFetcher(self.dataset, self.collate_fn, self._batched)
        )
        healthy = False
        try:
            while waiting:
                worker, task = waiting.popleft()
                fetched = pool.answer(worker, epoch)
                if fetched is None:
                    # This worker's iterable data set is at its end: its other tasks will say so
                    # too.
                    continue
                following = next(tasks, None)
                if following is not None:
                    pool.submit(worker, following)
                    waiting.append((worker, following))
                yield finisher.finish(fetched, task, seed) if finisher else fetched.batch
            healthy = True
        except GeneratorExit:
            healthy = True
            raise
        finally:
            if not (self.persistent_workers and healthy):
                self._release(pool)

    def _release(self, pool: Pool) -> None:
        pool.close()
        if self._pool is pool:
            self._pool = None


def _check_workers(
    num_workers: int, timeout: float, prefetch_factor: int | None, persistent_workers: bool
) -> None:
    if num_workers < 0:
        raise ValueError(
            "num_workers option should be non-negative; use num_workers=0 to disable "
            "multiprocessing."
        )
    if timeout < 0:
        raise ValueError("timeout option should be non-negative")
    if num_workers == 0 and prefetch_factor is not None:
        raise ValueError(
            "prefetch_factor option could only be specified in multiprocessing: let num_workers > 0"
        )
    if prefetch_factor is not None and prefetch_factor < 1:
        raise ValueError("prefetch_factor option should be positive")
    if persistent_workers and num_workers == 0:
        raise ValueError("persistent_workers option needs num_workers > 0")
