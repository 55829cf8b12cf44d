"""The worker processes of a `DataLoader`, as its main process sees them."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import signal
import sys
import time
import warnings
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

from treadle.base.errors import DataError
from treadle.base.lazy import LazyModule
from treadle.utils.data.fetch import Fetched, Task
from treadle.utils.data.transport import WORTH_SHARING, create, destroy, receive
from treadle.utils.data.worker import End, Epoch, Failure, Setup, run

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess
    from multiprocessing.shared_memory import SharedMemory

_multiprocessing = LazyModule("multiprocessing")
_connections = LazyModule("multiprocessing.connection")
_tracker = LazyModule("multiprocessing.resource_tracker")


# The main process's ends of all pipes. A forked process must close its copies, or a worker would
# not # notice that the main process is gone.
_inherited: weakref.WeakSet[Connection] = weakref.WeakSet()


def _close_inherited() -> None:
    for connection in _inherited:
        connection.close()
    _inherited.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)


class WorkerTraceback(Exception):
    """The traceback in the worker process, shown as the cause of the exception in the main one."""

    def __str__(self) -> str:
        return f"\n\n{self.args[0]}"


class _Hand:
    """One worker: its process, its pipe, the tasks it has, and the segments lent to it."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self.process = process
        self.connection = connection
        self.lent: deque[SharedMemory | None] = deque()
        self.spare: list[SharedMemory] = []
        self.wanted = 0
        self.poller = select.poll() if hasattr(select, "poll") else None
        if self.poller is not None:
            self.poller.register(connection.fileno(), select.POLLIN)
            self.poller.register(process.sentinel, select.POLLIN)

    def ready(self, timeout: float) -> bool:
        """Wait for an answer or the end of the worker: `timeout` seconds, or for ever if 0."""
        if self.poller is not None:
            return bool(self.poller.poll(timeout * 1000 if timeout else None))
        watched = [self.connection, self.process.sentinel]
        return bool(_connections.wait(watched, timeout or None))

    def segment(self) -> SharedMemory | None:
        """A segment for the next task: large enough for the largest answer so far."""
        if self.wanted < WORTH_SHARING:
            return None
        while self.spare:
            segment = self.spare.pop()
            if segment.size >= self.wanted:
                return segment
            destroy(segment)
        return create(self.wanted)

    def returned(self, size: int) -> None:
        """The oldest task is answered, with arrays of `size` bytes."""
        segment = self.lent.popleft()
        self.wanted = max(self.wanted, size)
        if segment is not None:
            self.spare.append(segment)


class Pool:
    """Workers that answer tasks, each in the order in which it got them.

    Args:
        setup: what every worker is told at its start.
        context: the start method's `multiprocessing` context.
        timeout: seconds to wait for one answer, or 0 for ever.
        seed: the seed of the first epoch.
    """

    def __init__(self, setup: Setup, context: Any, timeout: float, seed: int) -> None:
        self.timeout = timeout
        self._epoch = 0
        self._hands: list[_Hand] = []
        self._close = weakref.finalize(self, _shut_down, self._hands, os.getpid())
        # Workers must share this process's tracker, or each one's own would remove our segments.
        if sys.platform != "win32":
            _tracker.ensure_running()
        try:
            for worker in range(setup.num_workers):
                self._hands.append(_start(setup, context, worker, seed))
        except BaseException:
            self.close()
            raise

    def begin(self, seed: int) -> int:
        """Start an epoch and give its number; what is left of an older one is thrown away."""
        self._epoch += 1
        for worker, hand in enumerate(self._hands):
            while hand.lent:
                self._receive(worker)
            self._tell(worker, Epoch(seed))
        return self._epoch

    def submit(self, worker: int, task: Task) -> None:
        """Give a worker one more task."""
        hand = self._hands[worker]
        segment = hand.segment()
        hand.lent.append(segment)
        self._tell(worker, (task, None if segment is None else segment.name))

    def answer(self, worker: int, epoch: int) -> Fetched | None:
        """The answer to the oldest task of a worker, or `None` if its samples are at an end.

        Raises:
            Exception: what the worker's code raised, with its traceback as the cause.
            DataError: the worker died, took longer than `timeout`, or has begun a newer epoch.
        """
        if epoch != self._epoch:
            raise DataError(
                "a newer iterator of this DataLoader has taken over its persistent workers"
            )
        message = self._receive(worker)
        if isinstance(message, Failure):
            raise message.error from WorkerTraceback(message.trace)
        return None if isinstance(message, End) else message

    def close(self) -> None:
        """Stop all workers; those that do not stop by themselves are killed."""
        self._close()

    def _tell(self, worker: int, message: Any) -> None:
        hand = self._hands[worker]
        try:
            hand.connection.send(message)
        except OSError:
            raise self._death(worker) from None

    def _receive(self, worker: int) -> Any:
        hand = self._hands[worker]
        if not hand.ready(self.timeout):
            raise DataError(
                f"DataLoader timed out after {self.timeout} seconds waiting for worker {worker}"
            )
        try:
            if not hand.process.is_alive() and not hand.connection.poll():
                raise EOFError
            message, size = receive(hand.connection, hand.lent[0])
        except (EOFError, OSError):
            raise self._death(worker) from None
        hand.returned(size)
        return message

    def _death(self, worker: int) -> DataError:
        process = self._hands[worker].process
        process.join(1)
        code = process.exitcode
        how = f"exited with code {code}"
        if code is not None and code < 0:
            name = signal.Signals(-code).name
            how = f"was killed by signal {-code} ({name})"
            if name == "SIGKILL":
                how += ", as the system does with a process that uses too much memory"
        return DataError(
            f"DataLoader worker {worker} (pid {process.pid}) {how}: no more batches can come from "
            "it. Run with num_workers=0 to see an error in its own place."
        )


def _start(setup: Setup, context: Any, worker: int, seed: int) -> _Hand:
    ours, theirs = context.Pipe(duplex=True)
    _inherited.add(ours)
    process = context.Process(
        target=run, args=(theirs, setup, worker, seed), name=f"treadle-loader-{worker}", daemon=True
    )
    try:
        with warnings.catch_warnings():
            # Threads of the kernel pool start anew in a forked child: see runtime.
            warnings.filterwarnings("ignore", ".*use of fork.*", DeprecationWarning)
            process.start()
    except BaseException as error:
        ours.close()
        if isinstance(error, pickle.PicklingError | AttributeError | TypeError):
            raise DataError(
                f"the start method {context.get_start_method()!r} must pickle the data set, the "
                f"transforms and collate_fn, and cannot: {error}. Define them at the top of a "
                "module, not as a lambda or inside of a function."
            ) from error
        raise
    finally:
        # A worker's end must be open in the worker alone, or its death would go unseen.
        theirs.close()
    return _Hand(process, ours)


def _shut_down(hands: list[_Hand], owner: int) -> None:
    if os.getpid() != owner:
        # A forked child has a copy of the pool, but the workers are not its own.
        return
    for hand in hands:
        with contextlib.suppress(OSError):
            hand.connection.send(None)
        hand.connection.close()
    deadline = time.monotonic() + 1
    for hand in hands:
        hand.process.join(max(0, deadline - time.monotonic()))
    for hand in hands:
        if hand.process.is_alive():
            hand.process.terminate()
            hand.process.join(1)
        if hand.process.is_alive():
            hand.process.kill()
            hand.process.join()
        for segment in (*hand.lent, *hand.spare):
            if segment is not None:
                destroy(segment)
        hand.process.close()
    hands.clear()


def start_method(chosen: Any) -> Any:
    """The `multiprocessing` context for `chosen`: a name, a context, or `None` for the default.

    The default is `fork` on Linux: a worker is up in milliseconds, shares the data set's memory,
    and scripts without `if __name__ == "__main__"`, lambdas and notebooks work. Elsewhere it is the
    platform's own. `spawn` and `forkserver` are safer next to libraries that hold locks in threads
    of their own; they need a data set that can be pickled.
    """
    if chosen is None:
        chosen = "fork" if sys.platform == "linux" else None
    if chosen is None or isinstance(chosen, str):
        try:
            return _multiprocessing.get_context(chosen)
        except ValueError:
            known = _multiprocessing.get_all_start_methods()
            raise ValueError(
                f"multiprocessing_context should be one of {known}, but got {chosen!r}"
            ) from None
    return chosen
