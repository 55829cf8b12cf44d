"""The thread pool: Python threads that live inside the native worker loop.

There is one pool record per process and its address never changes, so plans may keep it. Workers
start with the first program, not at import. A worker enters native code once and stays there
without the interpreter lock until the pool shrinks or the process ends. What a run relies on
(number of threads, scratch memory) changes only under the native lock that runs hold, so it can be
changed at any time from any thread.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import sys
import threading
import time
import warnings
from typing import Final, NamedTuple

from treadle.base.settings import settings
from treadle.codegen.pool_record import FIELDS, PLACED, POOL_BYTES
from treadle.runtime.driver import driver
from treadle.runtime.pages import PAGE, map_pages, unmap_pages
from treadle.runtime.processors import available

MOST_THREADS: Final = 1024
_LEAST_SCRATCH: Final = 64 << 10
_FUTEX: Final = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
# Looks at the next launch before a worker first yields and then sleeps: some 30 µs, then about a
# millisecond, long enough for the Python code between two steps of a training loop.
_SPINS: Final = 1000
_YIELDS: Final = 2000
_SPINS_CROWDED: Final = 50
_EXIT_SECONDS: Final = 1.0


class Pool:
    """Threads that share launches with the caller of `Program.run`.

    Attributes:
        address: of the pool record, for the life of the process.
        ready: whether the workers of this process were started; a forked child starts its own.
    """

    def __init__(self) -> None:
        # Never unmapped: a worker may outlive everything that the interpreter knows of.
        self.address: Final = map_pages(PAGE)
        self.ready = False
        self._threads = settings.threads
        self._workers: list[threading.Thread] = []
        self._scratch = _Scratch(0, 0, 0)
        self._lock = threading.RLock()

    @property
    def threads(self) -> int:
        """How many threads run kernels, the caller among them."""
        if self._threads <= 0:
            self._threads = min(available(), MOST_THREADS)
        return self._threads

    def start(self) -> None:
        """Starts the workers unless they run already."""
        with self._lock:
            if not self.ready:
                for field, value in _constants().items():
                    self._set(field, value)
                self._fit(self.threads, self._scratch.stride)
                self.ready = True

    def resize(self, threads: int) -> None:
        """Sets the number of threads, once the run that may be going on has ended.

        Raises:
            ValueError: outside of 1..1024.
        """
        if not 1 <= threads <= MOST_THREADS:
            raise ValueError(f"threads must be between 1 and {MOST_THREADS}, not {threads}")
        with self._lock:
            self._threads = threads
            if self.ready:
                self._fit(threads, self._scratch.stride)

    def reserve(self, scratch: int) -> None:
        """Gives each thread at least `scratch` bytes of private memory, from the next run on."""
        if scratch > self._scratch.stride or not self.ready:
            with self._lock:
                self.start()
                if scratch > self._scratch.stride:
                    self._fit(self.threads, scratch)

    def wake(self) -> None:
        """Wakes sleeping workers ahead of a run: getting up takes them longer than many a run."""
        if self.ready:
            driver().wake(self.address)

    def forget(self) -> None:
        """In a forked child: only the calling thread is left, whatever the others were doing."""
        self._lock = threading.RLock()
        self._workers = []
        self.ready = False
        ctypes.memset(self.address, 0, POOL_BYTES)
        self._set("scratch", self._scratch.address)
        self._set("stride", self._scratch.stride)

    def shutdown(self) -> None:
        """Sends the workers home before the interpreter ends; later runs use one thread."""
        if self.ready:
            # Not through `configure`: a run that still goes on must not hold up the exit.
            self._set("threads", 0)
            driver().wake(self.address)
            deadline = time.monotonic() + _EXIT_SECONDS
            for worker in self._workers:
                worker.join(max(0.0, deadline - time.monotonic()))

    def _fit(self, threads: int, stride: int) -> None:
        """Makes workers and scratch memory what they should be. The lock is held."""
        old = self._scratch
        fresh = old.grown(threads, stride)
        self._scratch = fresh
        self._configure(threads)
        if old.address and fresh is not old:
            unmap_pages(old.address, old.stride * old.threads)
        while len(self._workers) >= threads:
            worker = self._workers[-1]
            if worker.ident is not None:
                worker.join()
            self._place(len(self._workers), 0)
            self._workers.pop()
        while len(self._workers) < threads - 1 and self._hire(len(self._workers) + 1):
            pass

    def _hire(self, number: int) -> bool:
        """Starts one worker; says so where the system refuses."""
        worker = threading.Thread(
            target=driver().worker,
            args=(self.address, number),
            name=f"treadle-{number}",
            daemon=True,
        )
        # Listed first: an interrupt in between must never lead to two workers of one number.
        self._workers.append(worker)
        try:
            worker.start()
        except RuntimeError as error:
            self._workers.pop()
            self._configure(number)
            warnings.warn(
                f"treadle runs on {number} of {self.threads} threads: {error}",
                RuntimeWarning,
                stacklevel=2,
            )
            return False
        self._place(number, worker.native_id or 0)
        return True

    def _place(self, number: int, system_id: int) -> None:
        """Notes by which number the system knows a worker, so that waking it can place it."""
        if number < PLACED:
            ids = self.address + FIELDS["ids"]
            ctypes.c_int32.from_address(ids + 4 * number).value = system_id

    def _configure(self, threads: int) -> None:
        # With more threads than processors, whoever spins keeps another from working.
        spins = _SPINS if threads <= available() else _SPINS_CROWDED
        scratch = self._scratch
        driver().configure(self.address, threads, scratch.address, scratch.stride, spins)

    def _set(self, field: str, value: int) -> None:
        ctypes.c_int64.from_address(self.address + FIELDS[field]).value = value


class _Scratch(NamedTuple):
    """Private memory: `stride` bytes for each of `threads` threads."""

    address: int
    stride: int
    threads: int

    def grown(self, threads: int, stride: int) -> _Scratch:
        """This memory if it is large enough, else new memory that is. It never shrinks: a worker
        on its way out may still take part in a run."""
        threads = max(threads, self.threads)
        stride = -(-max(stride, _LEAST_SCRATCH) // PAGE) * PAGE
        if threads == self.threads and stride <= self.stride:
            return self
        stride = max(stride, self.stride)
        return _Scratch(map_pages(stride * threads), stride, threads)


def _constants() -> dict[str, int]:
    """Fields of the pool record that never change: tuning, and the system's functions."""
    libc = ctypes.CDLL(None)
    names = {"yield": "sched_yield", "nap": "usleep", "clock": "clock_gettime"}
    out = {"yields": _YIELDS, "clock_id": time.CLOCK_MONOTONIC}
    if sys.platform == "linux":
        names |= {
            "cpu": "sched_getcpu", "affinity": "sched_getaffinity", "confine": "sched_setaffinity"
        }  # fmt: skip
        if platform.machine() in _FUTEX:
            names["syscall"] = "syscall"
            out["futex"] = _FUTEX[platform.machine()]
    for field, name in names.items():
        out[field] = ctypes.cast(getattr(libc, name), ctypes.c_void_p).value or 0
    return out


pool: Final = Pool()
"""The pool of this process."""
os.register_at_fork(after_in_child=pool.forget)
atexit.register(pool.shutdown)


def get_num_threads() -> int:
    """How many threads run kernels, the calling one among them."""
    return pool.threads


def set_num_threads(threads: int) -> None:
    """Sets how many threads run kernels; results do not depend on it.

    Args:
        threads: at least 1, the calling thread included. More than there are processors is
            allowed and rarely of use.

    Raises:
        ValueError: outside of 1..1024.
    """
    pool.resize(threads)
