"""The thread pool where things go wrong: threads, forks, interrupts, exits, odd systems."""

from __future__ import annotations

import _thread
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from native_kernels import kernels

from treadle.base import dtype as dt
from treadle.runtime import pool as pool_module
from treadle.runtime.buffer import empty
from treadle.runtime.pool import Pool, get_num_threads, pool, set_num_threads
from treadle.runtime.program import Launch, Program

# Python 3.12 and later warn about any fork with threads around.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)


def counts_right(launches: int = 100, tasks: int = 64, runs: int = 5) -> bool:
    """Whether every task of a parallel program runs exactly once."""
    buffer = empty(8 * tasks)
    array = buffer.view(dt.int64, (tasks,), writable=True)
    array[:] = 0
    program = Program([Launch(kernels()["faulty"], (0, 0, -1, 0), tasks, 1)] * launches, 1)
    results = [program.run([buffer.address]) for _ in range(runs)]
    return not any(results) and bool((array == launches * runs).all())


def in_child(check: str) -> int:
    """Forks; returns the exit status of a child that ran `check`, killed after 20 seconds."""
    child = os.fork()
    if child == 0:
        ok = False
        try:
            ok = bool(eval(check, globals()))
        finally:
            os._exit(0 if ok else 1)
    for _ in range(2000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return -1


def run_script(body: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    """Runs a script in a fresh interpreter that can import the tests' kernels."""
    here = Path(__file__).parent
    path = os.pathsep.join((str(here.parent), str(here), os.environ.get("PYTHONPATH", "")))
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body)],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=timeout,
    )


def test_workers_are_as_many_as_asked() -> None:
    for threads in (1, 4, 2, 8, 1, 3):
        set_num_threads(threads)
        assert get_num_threads() == threads
        assert counts_right()
        named = [t for t in threading.enumerate() if t.name.startswith("treadle-")]
        assert len(named) == threads - 1


@pytest.mark.parametrize("threads", [0, -1, 5000])
def test_impossible_thread_counts_are_refused(threads: int) -> None:
    with pytest.raises(ValueError, match="between 1 and"):
        set_num_threads(threads)


def test_sleeping_workers_come_back() -> None:
    set_num_threads(4)
    for _ in range(3):
        assert counts_right()
        time.sleep(0.05)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_woken_workers_may_run_wherever_they_could_before() -> None:
    set_num_threads(4)
    assert counts_right()
    named = [t for t in threading.enumerate() if t.name.startswith("treadle-")]
    before = [os.sched_getaffinity(t.native_id or 0) for t in named]
    for _ in range(5):
        time.sleep(0.02)
        pool.wake()
        assert counts_right(launches=1)
    assert [os.sched_getaffinity(t.native_id or 0) for t in named] == before


def test_python_threads_may_run_at_once() -> None:
    set_num_threads(3)
    outcomes: list[bool] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(counts_right(runs=40))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 6


def test_one_program_may_run_in_two_threads() -> None:
    set_num_threads(2)
    program = Program([Launch(kernels()["faulty"], (0, 0, -1, 0), 64, 1)] * 10, 1)
    buffers = [empty(8 * 64) for _ in range(4)]
    arrays = [b.view(dt.int64, (64,), writable=True) for b in buffers]
    for array in arrays:
        array[:] = 0

    def work(address: int) -> None:
        for _ in range(200):
            program.run([address])

    threads = [threading.Thread(target=work, args=(b.address,)) for b in buffers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all((array == 2000).all() for array in arrays)


def test_the_pool_may_change_while_runs_go_on() -> None:
    outcomes: list[bool] = []
    runner = threading.Thread(target=lambda: outcomes.append(counts_right(runs=500)))
    runner.start()
    for n in range(40):
        set_num_threads(n % 5 + 1)
        pool.reserve(4096 * (20 + n))
    runner.join()
    assert outcomes == [True]


def test_forked_children_run_and_so_does_the_parent() -> None:
    set_num_threads(3)
    assert counts_right()
    assert in_child("counts_right()") == 0
    assert in_child("in_child('counts_right()') == 0") == 0
    assert counts_right()


def test_a_fork_in_the_middle_of_a_run() -> None:
    set_num_threads(3)
    stop = threading.Event()
    outcomes: list[bool] = []

    def work() -> None:
        while not stop.is_set():
            outcomes.append(counts_right(runs=2))

    runner = threading.Thread(target=work)
    runner.start()
    try:
        assert [in_child("counts_right()") for _ in range(5)] == [0] * 5
    finally:
        stop.set()
        runner.join()
    assert all(outcomes)


def test_an_interrupt_leaves_the_pool_whole() -> None:
    set_num_threads(2)
    buffer = empty(64)
    program = Program([Launch(kernels()["slow"], (0, 0, 1_000_000), 64, 1)], 1)
    for _ in range(3):
        timer = threading.Timer(0.01, _thread.interrupt_main)
        with pytest.raises(KeyboardInterrupt):
            timer.start()
            while True:
                program.run([buffer.address])
        timer.join()
        assert counts_right()


def test_the_interpreter_exits_with_workers_in_any_state() -> None:
    script = """
        import threading, time
        from test_runtime_pool import counts_right, set_num_threads
        set_num_threads(4)
        assert counts_right()
        time.sleep({pause})
    """
    for pause in (0.0, 0.0005, 0.1):
        done = run_script(script.format(pause=pause))
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_interpreter_exits_in_the_middle_of_a_run() -> None:
    done = run_script("""
        import threading, time
        from test_runtime_pool import counts_right, set_num_threads
        set_num_threads(4)
        def forever():
            while True:
                counts_right()
        threading.Thread(target=forever, daemon=True).start()
        time.sleep(0.3)
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_runs_at_exit_still_work() -> None:
    done = run_script("""
        import atexit
        atexit.register(lambda: print(counts_right()))
        from test_runtime_pool import counts_right, set_num_threads
        set_num_threads(4)
        assert counts_right()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_without_a_futex(monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pool_module._constants()
    monkeypatch.setattr(
        pool_module, "_constants", lambda: {**constants, "syscall": 0, "yields": 10}
    )
    own = Pool()
    monkeypatch.setattr("treadle.runtime.program.pool", own)
    for threads in (3, 1, 2):
        own.resize(threads)
        assert counts_right()
        time.sleep(0.01)
        assert counts_right()
    own.resize(1)


def test_a_system_without_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    set_num_threads(1)

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        with pytest.warns(RuntimeWarning, match="runs on 1 of 4 threads"):
            set_num_threads(4)
        assert counts_right()
    set_num_threads(4)
    assert counts_right()
