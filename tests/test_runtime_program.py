"""Programs of hand-written kernels against a model in Python, on any number of threads."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest
from native_kernels import kernels

from treadle.base import dtype as dt
from treadle.runtime.buffer import Buffer, empty
from treadle.runtime.pool import get_num_threads, set_num_threads
from treadle.runtime.program import Fault, Launch, Program, fault


@pytest.fixture(autouse=True)
def restored_threads() -> Iterator[None]:
    before = get_num_threads()
    yield
    set_num_threads(before)


def numbers(length: int, fill: int = 0) -> tuple[Buffer, np.ndarray]:
    buffer = empty(8 * length)
    array = buffer.view(dt.int64, (length,), writable=True)
    array[:] = fill
    return buffer, array


@pytest.mark.parametrize("threads", [1, 2, 3, 5, 8])
@pytest.mark.parametrize(
    ("tasks", "grain"), [(0, 1), (1, 1), (2, 1), (7, 2), (8, 8), (64, 1), (1000, 3), (1000, 999)]
)
def test_each_task_runs_exactly_once(threads: int, tasks: int, grain: int) -> None:
    set_num_threads(threads)
    buffer, array = numbers(max(tasks, 1))
    launch = Launch(kernels()["faulty"], (0, 0, -1, 0), tasks, grain)
    program = Program([launch] * 50, 1)
    for _ in range(3):
        assert program.run([buffer.address]) == 0
    assert (array[:tasks] == 150).all()


@pytest.mark.parametrize("threads", [1, 2, 4, 8])
def test_random_programs_agree_with_the_model(threads: int) -> None:
    set_num_threads(threads)
    rng = random.Random(threads)
    length, slots = 500, 6
    for _ in range(20):
        buffers, arrays = zip(*(numbers(length, n) for n in range(slots)), strict=True)
        model = [a.copy() for a in arrays]
        launches = []
        for _ in range(rng.randrange(1, 60)):
            y, x = rng.sample(range(slots), 2)
            start, a = rng.randrange(length), rng.randrange(-3, 4)
            tasks = rng.randrange(length - start + 1)
            params = (y, 8 * start, x, 8 * start, a)
            launches.append(Launch(kernels()["affine"], params, tasks, rng.choice((1, 7, 100))))
            part = slice(start, start + tasks)
            model[y][part] += a * model[x][part] + np.arange(tasks)
        program = Program(launches, slots)
        assert program.run([b.address for b in buffers]) == 0
        for got, expected in zip(arrays, model, strict=True):
            np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("threads", [1, 2, 8])
@pytest.mark.parametrize(("tasks", "grain", "bad"), [(100, 1, 60), (100, 100, 0), (1000, 7, 999)])
def test_a_fault_ends_the_run(threads: int, tasks: int, grain: int, bad: int) -> None:
    set_num_threads(threads)
    (first, a), (second, b), (third, c) = (numbers(tasks) for _ in range(3))
    faulty = kernels()["faulty"]
    program = Program(
        [
            Launch(faulty, (0, 0, -1, 0), tasks, grain),
            Launch(faulty, (1, 0, bad, 77), tasks, grain),
            Launch(faulty, (2, 0, -1, 0), tasks, grain),
        ],
        3,
    )
    addresses = [first.address, second.address, third.address]
    for n in range(1, 20):
        assert fault(program.run(addresses)) == Fault(launch=1, code=77)
        assert (a == n).all()
        assert b[bad] == n
        assert b.max() <= n
        assert not c.any()


def test_the_range_is_whole_where_it_is_not_shared() -> None:
    buffer, array = numbers(1)
    slow = kernels()["slow"]
    set_num_threads(2)
    assert Program([Launch(slow, (0, 0, 1), 9, 9)], 1).run([buffer.address]) == 0
    assert array[0] == 1
    set_num_threads(1)
    assert Program([Launch(slow, (0, 0, 1), 9, 2)], 1).run([buffer.address]) == 0
    assert array[0] == 2


@pytest.mark.parametrize("words", [1, 1000, 100_000])
def test_scratch_is_private_aligned_and_as_large_as_asked(words: int) -> None:
    set_num_threads(4)
    program = Program([Launch(kernels()["private"], (words,), 16, 1)] * 5, 0, 8 * words)
    assert program.run([]) == 0


def test_scratch_grows_for_programs_bound_before() -> None:
    set_num_threads(2)
    small = Program([Launch(kernels()["private"], (100,), 16, 1)], 0, 800)
    Program([], 0, 4 << 20)
    set_num_threads(3)
    assert small.run([]) == 0


def test_times_are_ordered() -> None:
    set_num_threads(2)
    buffer, _ = numbers(8)
    good = Launch(kernels()["slow"], (0, 0, 1000), 8, 1)
    bad = Launch(kernels()["faulty"], (0, 0, 3, 5), 8, 1)
    result, times = Program([good, good, good], 1).run_timed([buffer.address])
    assert result == 0
    flat = [stamp for pair in times for stamp in pair]
    assert flat == sorted(flat)
    assert all(stop > start > 0 for start, stop in times)
    result, times = Program([good, bad, good], 1).run_timed([buffer.address])
    assert fault(result) == Fault(1, 5)
    assert times[2] == (0, 0)


def test_wrong_calls_are_refused() -> None:
    program = Program([], 2)
    with pytest.raises(ValueError):
        program.run([1])
    assert program.run([1, 2]) == 0
    with pytest.raises(ValueError, match="grains of 0"):
        Program([Launch(1, (), 5, 0)], 0)
    assert fault(0) is None
