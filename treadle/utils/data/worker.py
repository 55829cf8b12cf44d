"""What runs in a worker process of a `DataLoader`."""

from __future__ import annotations

import contextlib
import pickle
import random
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from treadle.base.errors import DataError
from treadle.base.lazy import LazyModule
from treadle.runtime.pool import set_num_threads
from treadle.tensor.random import manual_seed
from treadle.utils.data.fetch import Exhausted, Fetched, IterableFetcher, MapFetcher, Task
from treadle.utils.data.transport import FITS_A_PIPE, Parcel, attach, pack

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.shared_memory import SharedMemory

    import numpy as np
else:
    np = LazyModule("numpy")


@dataclass(slots=True)
class WorkerInfo:
    """Which worker this is: its number `id`, of how many, its seed, and its copy of the data
    set."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


@dataclass(slots=True)
class Setup:
    """Everything a worker needs to know at its start."""

    dataset: Any
    iterable: bool
    batched: bool
    drop_last: bool
    collate_fn: Callable[[Any], Any] | None
    init_fn: Callable[[int], None] | None
    num_workers: int


@dataclass(slots=True)
class Epoch:
    """Tells a worker that a new epoch begins, with its seed."""

    seed: int


@dataclass(slots=True)
class Failure:
    """An exception in a worker: itself, and its traceback as text."""

    error: BaseException
    trace: str


@dataclass(slots=True)
class End:
    """A worker's iterable data set has no more samples."""


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """The `WorkerInfo` of this worker process, or `None` in the main process."""
    return _info


def run(connection: Connection, setup: Setup, worker: int, seed: int) -> None:
    """The life of a worker: do tasks in order until the main process says so or is gone."""
    # Ctrl-C goes to every process of the terminal; the main process alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    # The workers are the parallelism: threads in each would only stand in each other's way.
    set_num_threads(1)
    try:
        _Worker(connection, setup, worker, seed).serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        # The main process is gone or no longer listens: nobody is left to tell.
        connection.close()


class _Worker:
    def __init__(self, connection: Connection, setup: Setup, worker: int, seed: int) -> None:
        global _info
        self.connection = connection
        self.setup = setup
        self.worker = worker
        self.seed = seed
        self.fetcher: MapFetcher | IterableFetcher | None = None
        self.broken: Failure | None = None
        self.segments: dict[str, SharedMemory] = {}
        self.todo: deque[Any] = deque()
        _info = WorkerInfo(worker, setup.num_workers, seed + worker, setup.dataset)
        self._seed_all(seed + worker)
        if setup.init_fn is not None:
            try:
                setup.init_fn(worker)
            except Exception as error:
                self.broken = _failure(error)

    def serve(self) -> None:
        """Answer tasks until told to stop; raises `EOFError` where the main process is gone."""
        while (message := self._next()) is not None:
            if isinstance(message, Epoch):
                self._begin(message.seed)
                continue
            task, lent = message
            segment = self._segment(lent)
            try:
                parcel = pack(self._answer(task), segment)
            except Exception as error:
                # The batch holds something that cannot be pickled.
                parcel = pack(_failure(error), None)
            self._send(parcel)

    def _next(self) -> Any:
        return self.todo.popleft() if self.todo else self.connection.recv()

    def _send(self, parcel: Parcel) -> None:
        if parcel.inline < FITS_A_PIPE:
            parcel.send(self.connection)
            return
        # This fills the pipe and waits for the main process, which may itself be waiting for us to
        # take a long task: so take tasks meanwhile.
        sender = threading.Thread(target=_send_quietly, args=(parcel, self.connection), daemon=True)
        sender.start()
        while sender.is_alive():
            if self.connection.poll(0.001):
                self.todo.append(self.connection.recv())

    def _begin(self, seed: int) -> None:
        self.seed = seed
        assert _info is not None
        _info.seed = seed + self.worker
        setup = self.setup
        self.fetcher = None
        if self.broken is not None:
            return
        try:
            if setup.iterable:
                self.fetcher = IterableFetcher(setup.dataset, setup.collate_fn, setup.drop_last)
            else:
                self.fetcher = MapFetcher(setup.dataset, setup.collate_fn, setup.batched)
        except Exception as error:
            self.broken = _failure(error)

    def _answer(self, task: Task) -> Fetched | Failure | End:
        if self.fetcher is None:
            assert self.broken is not None
            return self.broken
        # Seeded by batch, not by worker, so that results do not depend on the number of workers;
        # a user with a `worker_init_fn` has seeded the generators in another way.
        if self.setup.init_fn is None and not self.setup.iterable:
            self._seed_all(self.seed + task.number)
        try:
            return self.fetcher.fetch(task, self.seed)
        except Exhausted:
            return End()
        except Exception as error:
            return _failure(error)

    def _segment(self, name: str | None) -> SharedMemory | None:
        if name is None:
            return None
        if name not in self.segments:
            if len(self.segments) >= 64:
                # Outgrown segments are already removed by the main process: let go of them.
                for old in self.segments.values():
                    old.close()
                self.segments.clear()
            self.segments[name] = attach(name)
        return self.segments[name]

    def _seed_all(self, seed: int) -> None:
        random.seed(seed)
        manual_seed(seed)
        if "numpy" in sys.modules:
            np.random.seed(seed % 2**32)


def _send_quietly(parcel: Parcel, connection: Connection) -> None:
    # Where the main process is gone, the reading side finds out and ends the worker.
    with contextlib.suppress(OSError):
        parcel.send(connection)


def _failure(error: BaseException) -> Failure:
    trace = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        # Not every exception survives the way to another process: its text does.
        error = DataError(f"{type(error).__name__}: {error}")
    return Failure(error, trace)
