"""The thread pool: Python threads that live inside the native worker loop.

There is one pool record per process and its address never changes, so plans may keep it. Workers
start at the first run, not at import. A worker enters native code once and stays there without the
interpreter lock until the pool shrinks or the process ends. What a run relies on (number of
threads, scratch memory) changes only under the native lock that runs hold, so it can be changed at
any time from any thread.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import sys
import threading
import warnings
from typing import Final

from treadle.base.settings import settings
from treadle.codegen.driver import FIELDS, POOL_BYTES
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
_PATIENCE: Final = 2000
# With more threads than processors, whoever spins keeps another from working.
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
        assert POOL_BYTES <= PAGE
        self.ready = False
        self._threads = settings.threads
        self._workers: list[threading.Thread] = []
        self._scratch = 0
        self._stride = 0
        self._scratch_threads = 0
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
                self._write_record()
                self._fit_scratch(self._stride)
                self._fit_workers()
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
                with _Locked(self.address):
                    self._fit_scratch(self._stride)
                    self._fit_workers()

    def reserve(self, scratch: int) -> None:
        """Gives each thread at least `scratch` bytes of private memory, from the next run on."""
        if scratch <= self._stride:
            return
        with self._lock:
            if not self.ready:
                self._stride = max(scratch, self._stride)
                return
            with _Locked(self.address):
                self._fit_scratch(scratch)

    def wake(self) -> None:
        """Wakes sleeping workers ahead of a run: getting up takes them longer than many a run."""
        if self.ready:
            driver().wake(self.address)

    def forget(self) -> None:
        """In a forked child: only the calling thread is left, whatever the others were doing."""
        self._lock = threading.RLock()
        self._workers = []
        self.ready = False
        self._write_record()

    def shutdown(self) -> None:
        """Sends the workers home before the interpreter ends; later runs use one thread."""
        if self.ready:
            self._set("threads", 0)
            driver().wake(self.address)
            for worker in self._workers:
                worker.join(_EXIT_SECONDS)

    def _fit_workers(self) -> None:
        wanted = self.threads
        crowded = wanted > available()
        self._set("spins", _SPINS_CROWDED if crowded else _SPINS)
        self._set("patience", _SPINS_CROWDED if crowded else _PATIENCE)
        self._set("threads", wanted)
        driver().wake(self.address)
        while len(self._workers) >= wanted:
            worker = self._workers[-1]
            if worker.ident is not None:
                worker.join()
            self._workers.pop()
        while len(self._workers) < wanted - 1:
            if not self._hire(len(self._workers) + 1):
                break

    def _hire(self, number: int) -> bool:
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
            self._set("threads", number)
            warnings.warn(
                f"treadle runs on {number} of {self.threads} threads: {error}",
                RuntimeWarning,
                stacklevel=4,
            )
            return False
        return True

    def _fit_scratch(self, nbytes: int) -> None:
        stride = -(-max(nbytes, _LEAST_SCRATCH) // PAGE) * PAGE
        threads = max(self.threads, self._scratch_threads)
        if (stride, threads) != (self._stride, self._scratch_threads) or not self._scratch:
            fresh = map_pages(stride * threads)
            if self._scratch:
                unmap_pages(self._scratch, self._stride * self._scratch_threads)
            self._scratch, self._stride, self._scratch_threads = fresh, stride, threads
        self._set("scratch", self._scratch)
        self._set("stride", self._stride)

    def _write_record(self) -> None:
        ctypes.memset(self.address, 0, POOL_BYTES)
        self._set("threads", 1)
        self._set("scratch", self._scratch)
        self._set("stride", self._stride)
        self._set("spins", _SPINS)
        self._set("yields", _YIELDS)
        self._set("patience", _PATIENCE)
        for field, function in _system_calls().items():
            self._set(field, function)
        self._set("futex", _FUTEX.get(platform.machine(), 0))

    def _set(self, field: str, value: int) -> None:
        ctypes.c_int64.from_address(self.address + FIELDS[field]).value = value


class _Locked:
    """Keeps runs out while the body runs."""

    __slots__ = ("address",)

    def __init__(self, address: int) -> None:
        self.address = address

    def __enter__(self) -> None:
        driver().lock(self.address)

    def __exit__(self, *_: object) -> None:
        driver().unlock(self.address)


def _system_calls() -> dict[str, int]:
    libc = ctypes.CDLL(None)
    names = {"yield": "sched_yield", "nap": "usleep", "clock": "clock_gettime"}
    if sys.platform == "linux" and platform.machine() in _FUTEX:
        names["syscall"] = "syscall"
    found = {f: ctypes.cast(getattr(libc, n), ctypes.c_void_p).value for f, n in names.items()}
    return {field: address for field, address in found.items() if address}


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
