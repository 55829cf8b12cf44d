"""Buffers and the caching allocator: reuse, lifetime, statistics, threads and forks."""

from __future__ import annotations

import gc
import os
import random
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treadle.base import dtype as dt
from treadle.runtime import allocator
from treadle.runtime.allocator import LARGE, SLAB, class_size, host
from treadle.runtime.buffer import Buffer, empty, empty_cache, memory_stats, reset_peak

pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
SIZES = (0, 1, 64, 65, 1000, 4096, LARGE - 1, LARGE, LARGE + 1, SLAB, 5 << 20, (9 << 20) + 5)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    gc.collect()
    empty_cache()
    reset_peak()
    yield


@given(st.integers(0, 1 << 40))
def test_classes_fit_and_waste_little(nbytes: int) -> None:
    size = class_size(nbytes)
    assert size >= max(nbytes, 64)
    assert size % 64 == 0
    assert size <= max(nbytes * 1.25 + 64, 64)
    assert class_size(size) == size
    assert size <= LARGE or size % allocator.PAGE == 0


@pytest.mark.parametrize("nbytes", SIZES)
def test_blocks_are_aligned_writable_and_reused(nbytes: int) -> None:
    buffer = empty(nbytes)
    assert buffer.address % 64 == 0
    assert buffer.nbytes == nbytes
    buffer.view(dt.uint8, (nbytes,), writable=True).fill(7)
    address = buffer.address
    reserved = memory_stats()["reserved"]
    del buffer
    for _ in range(10):
        buffer = empty(nbytes)
        assert buffer.address == address
        del buffer
    assert memory_stats()["reserved"] == reserved


def test_live_blocks_never_overlap() -> None:
    rng = random.Random(1)
    live: list[tuple[Buffer, int]] = []
    for n in range(2000):
        if live and rng.random() < 0.45:
            buffer, mark = live.pop(rng.randrange(len(live)))
            assert (buffer.view(dt.uint8, (buffer.nbytes,)) == mark).all()
        else:
            buffer = empty(int(2 ** rng.uniform(0, 18)))
            buffer.view(dt.uint8, (buffer.nbytes,), writable=True).fill(n % 251)
            live.append((buffer, n % 251))
    for buffer, mark in live:
        assert (buffer.view(dt.uint8, (buffer.nbytes,)) == mark).all()


def test_statistics_follow_what_is_alive() -> None:
    before = memory_stats()
    buffers = [empty(n) for n in SIZES]
    held = sum(class_size(n) for n in SIZES)
    during = memory_stats()
    assert during["allocated"] - before["allocated"] == held
    assert during["count"] - before["count"] == len(SIZES)
    assert during["peak"] == during["allocated"]
    assert during["reserved"] >= during["allocated"]
    assert during["cached"] == during["reserved"] - during["allocated"]
    del buffers
    after = memory_stats()
    assert after["allocated"] == before["allocated"]
    assert after["count"] == before["count"]
    assert after["peak"] == during["peak"]
    reset_peak()
    assert memory_stats()["peak"] == after["allocated"]


def test_emptying_the_cache_gives_pages_back_and_spares_the_living() -> None:
    before = memory_stats()
    kept = empty(1000)
    kept.view(dt.uint8, (1000,), writable=True).fill(3)
    others = [empty(1000) for _ in range(5000)] + [empty(3 << 20) for _ in range(3)]
    grown = memory_stats()["reserved"]
    del others
    assert memory_stats()["reserved"] == grown
    empty_cache()
    after = memory_stats()
    assert after["reserved"] <= before["reserved"] + SLAB
    assert after["count"] == before["count"] + 1
    assert (kept.view(dt.uint8, (1000,)) == 3).all()
    assert empty(1000).address != kept.address


def test_memory_of_the_wrong_size_does_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocator, "_SPARE", 8 << 20)
    base = memory_stats()
    for megabytes in range(1, 40):
        empty(megabytes << 20)
    most = 2 * base["allocated"] + (8 << 20) + 2 * (48 << 20)
    assert memory_stats()["reserved"] <= most


def test_a_request_beyond_the_machine() -> None:
    kept = empty(100)
    with pytest.raises(MemoryError, match="the system has no"):
        empty(1 << 60)
    with pytest.raises(ValueError, match="-1"):
        empty(-1)
    assert memory_stats()["count"] >= 1
    assert kept.nbytes == 100


def test_views_keep_the_buffer_alive() -> None:
    buffer = empty(4000)
    address = buffer.address
    array = buffer.view(dt.float32, (10, 100), writable=True)
    part = array[3:5, ::2]
    array[:] = 1.5
    del buffer, array
    others = [empty(4000) for _ in range(300)]
    assert address not in [b.address for b in others]
    assert (part == 1.5).all()
    del part
    assert empty(4000).address == address


@pytest.mark.parametrize("dtype", dt.ALL, ids=lambda d: d.name)
def test_views_of_every_dtype(dtype: dt.DType) -> None:
    values = np.arange(24).reshape(2, 3, 4) % 2
    buffer = empty(24 * dtype.itemsize)
    view = buffer.view(dtype, (2, 3, 4), writable=True)
    assert view.dtype == dtype.numpy
    assert view.shape == (2, 3, 4)
    view[...] = values.astype(dtype.numpy)
    turned = buffer.view(dtype, (4, 2), strides=(1, 12), offset=4 * dtype.itemsize)
    np.testing.assert_array_equal(turned.astype(np.float64), values[:, 1, :].T.astype(np.float64))
    with pytest.raises(ValueError, match="read-only"):
        turned[0, 0] = 1
    assert buffer.view(dtype, ()).shape == ()
    assert buffer.view(dtype, (0, 5)).shape == (0, 5)


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((26,), None, 0), ((25,), None, 4), ((2,), (-1,), 0), ((2, 2), (1, 25), 0), ((1,), None, -4)],
)
def test_views_stay_inside(
    shape: tuple[int, ...], strides: tuple[int, ...] | None, offset: int
) -> None:
    with pytest.raises(ValueError, match="reaches over bytes"):
        empty(100).view(dt.float32, shape, strides=strides, offset=offset)


def test_reversed_views() -> None:
    buffer = empty(40)
    buffer.view(dt.int64, (5,), writable=True)[:] = range(5)
    assert buffer.view(dt.int64, (5,), strides=(-1,), offset=32).tolist() == [4, 3, 2, 1, 0]


def test_adopted_memory_belongs_to_its_owner() -> None:
    before = memory_stats()
    array = np.arange(12.0)
    buffer = Buffer.adopt(array, array.ctypes.data, array.nbytes)
    view = buffer.view(dt.float64, (3, 4), writable=True)
    view[0, 0] = 100
    assert array[0] == 100
    del array, buffer
    assert view.sum() == 100 + 66
    assert memory_stats() == before


def test_threads_share_the_allocator() -> None:
    before = memory_stats()
    wrong: list[int] = []

    def work(mark: int) -> None:
        rng = random.Random(mark)
        live: list[Buffer] = []
        for _ in range(1500):
            buffer = empty(rng.choice((100, 5000, 200_000)))
            buffer.view(dt.uint8, (100,), writable=True).fill(mark)
            live.append(buffer)
            if len(live) > 20:
                old = live.pop(rng.randrange(20))
                if not (old.view(dt.uint8, (100,)) == mark).all():
                    wrong.append(mark)
            if rng.random() < 0.01:
                empty_cache()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    after = memory_stats()
    assert (after["allocated"], after["count"]) == (before["allocated"], before["count"])


def test_collected_cycles_return_their_blocks() -> None:
    before = memory_stats()["count"]
    for _ in range(100):
        cycle: list[object] = [empty(100)]
        cycle.append(cycle)
    del cycle
    gc.collect()
    assert memory_stats()["count"] == before


def test_a_child_has_memory_of_its_own() -> None:
    buffer = empty(4096)
    view = buffer.view(dt.uint8, (4096,), writable=True)
    view.fill(1)
    with host._lock:  # held by a thread that the child does not have
        child = os.fork()
        if child == 0:
            view.fill(2)
            fresh = [empty(50_000) for _ in range(100)]
            os._exit(0 if (view == 2).all() and len(fresh) == 100 else 1)
    _, status = os.waitpid(child, 0)
    assert status == 0
    assert (view == 1).all()
