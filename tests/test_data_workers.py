"""Worker processes: same batches for any number of them, and every way in which one can fail."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    TensorDataset,
    get_worker_info,
    transport,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="these tests fork and kill")


class Rows(Dataset):
    """Sample i is a row of i, wide enough to travel by shared memory."""

    def __init__(self, count: int = 24, width: int = 5000) -> None:
        self.count = count
        self.width = width

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index):
        return np.full(self.width, index, np.float32), index, f"s{index}"


class Noise(Dataset):
    """Samples from every random generator that a user may reach for."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, index):
        return random.random(), float(np.random.rand()), treadle.rand(1)


class Share(IterableDataset):
    def __iter__(self):
        info = get_worker_info()
        step, first = (info.num_workers, info.id) if info else (1, 0)
        return iter(range(first, 11, step))


class Failing(Rows):
    """Does something terrible at sample 5."""

    def __init__(self, deed) -> None:
        super().__init__(16, 4)
        self.deed = deed

    def __getitem__(self, index):
        if index == 5:
            self.deed()
        return super().__getitem__(index)


def processes() -> list[int]:
    """The workers that are still running."""
    return [child.pid for child in multiprocessing.active_children() if child.pid]


def flat(loader: DataLoader) -> list:
    return [
        (x.numpy().tobytes(), y.tolist(), names if isinstance(names, list) else list(names))
        for x, y, names in loader
    ]


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_start_methods(method) -> None:
    loader = DataLoader(Rows(6), 2, num_workers=1, multiprocessing_context=method)
    assert flat(loader) == flat(DataLoader(Rows(6), 2))


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("width", [1, 5000])
def test_the_number_of_workers_changes_nothing(workers, width) -> None:
    data = Rows(25, width)
    treadle.manual_seed(1)
    alone = flat(DataLoader(data, 4, shuffle=True))
    treadle.manual_seed(1)
    loader = DataLoader(data, 4, shuffle=True, num_workers=workers)
    assert flat(loader) == alone
    assert not processes()


def test_whole_batches_come_from_workers_too() -> None:
    data = TensorDataset(treadle.arange(40000).reshape(20, 2000), treadle.arange(20))
    got = list(DataLoader(data, 8, num_workers=2))
    for (x, y), (a, b) in zip(got, DataLoader(data, 8), strict=True):
        assert np.array_equal(x.numpy(), a.numpy()) and np.array_equal(y.numpy(), b.numpy())
        x += 1  # a batch is the user's own


@pytest.mark.parametrize("dtype", [treadle.bfloat16, treadle.float16, treadle.bool, treadle.uint8])
def test_every_element_type_travels(dtype) -> None:
    data = TensorDataset((treadle.arange(40) % 2).to(dtype).reshape(2, 20))
    (got,) = next(iter(DataLoader(data, 2, num_workers=1)))
    assert got.dtype is dtype and got.tolist() == data.tensors[0].tolist()
    (sample,) = next(iter(DataLoader(data, 2, num_workers=1, collate_fn=lambda s: s[1])))
    assert sample.dtype is dtype and sample.tolist() == data.tensors[0][1].tolist()


def test_random_numbers_do_not_depend_on_the_number_of_workers() -> None:
    def run(workers):
        treadle.manual_seed(8)
        loader = DataLoader(Noise(), 2, num_workers=workers)
        return [[t.flatten().tolist() for t in batch] for batch in loader]

    one = run(1)
    assert run(3) == one == run(1)
    assert len({row for batch in one for row in batch[0]}) == 12


def test_worker_init_and_info() -> None:
    class Info(Rows):
        def __getitem__(self, index):
            info = get_worker_info()
            return info.id, info.num_workers, info.seed - info.id, int(np.random.randint(100))

    loader = DataLoader(
        Info(8), 2, num_workers=2, worker_init_fn=lambda worker: np.random.seed(worker)
    )
    got = [[t.tolist() for t in batch] for batch in loader]
    assert [b[0] for b in got] == [[0, 0], [1, 1]] * 2
    assert all(b[1] == [2, 2] for b in got)
    assert len({s for b in got for s in b[2]}) == 1
    wanted = [np.random.RandomState(i).randint(100, size=4).tolist() for i in (0, 1)]
    assert [got[0][3] + got[2][3], got[1][3] + got[3][3]] == wanted
    assert get_worker_info() is None


@pytest.mark.parametrize("persistent", [False, True])
def test_iterable_shares(persistent) -> None:
    loader = DataLoader(Share(), 2, num_workers=3, persistent_workers=persistent)
    for _ in range(2):
        got = [batch.tolist() for batch in loader]
        assert got == [[0, 3], [1, 4], [2, 5], [6, 9], [7, 10], [8]]


def test_persistent_workers_live_on() -> None:
    class Pid(Rows):
        def __getitem__(self, index):
            return os.getpid()

    loader = DataLoader(Pid(8), 2, num_workers=2, persistent_workers=True)
    first = {pid for batch in loader for pid in batch.tolist()}
    assert first == {pid for batch in loader for pid in batch.tolist()} == set(processes())
    next(iter(loader))  # an epoch left early
    assert first == {pid for batch in loader for pid in batch.tolist()}
    old = iter(loader)
    next(old)
    next(iter(loader))
    with pytest.raises(RuntimeError, match="newer iterator"):
        next(old)
    del loader, old
    gc.collect()
    assert not processes()


def test_leaving_early_stops_the_workers() -> None:
    for batch in DataLoader(Rows(100), 1, num_workers=2):
        assert batch is not None
        break
    gc.collect()
    assert not processes()


def test_an_exception_comes_with_the_workers_traceback() -> None:
    def deed():
        raise KeyError("lost sample")

    with pytest.raises(KeyError, match="lost sample") as caught:
        list(DataLoader(Failing(deed), 2, num_workers=2))
    shown = str(caught.value.__cause__)
    assert "in __getitem__" in shown and 'raise KeyError("lost sample")' in shown
    del caught
    gc.collect()
    assert not processes()


def test_an_exception_that_cannot_travel() -> None:
    class Local(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} and {b}")

    def deed():
        raise Local(1, 2)

    with pytest.raises(RuntimeError, match="Local: 1 and 2"):
        list(DataLoader(Failing(deed), 2, num_workers=1))


def test_a_batch_that_cannot_travel() -> None:
    class Odd(Rows):
        def __getitem__(self, index):
            return lambda: index

    with pytest.raises(Exception, match="pickle"):
        list(DataLoader(Odd(2), 2, num_workers=1, collate_fn=list))


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize(
    ("deed", "match"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), r"killed by signal 9 \(SIGKILL\)"),
        (lambda: os._exit(3), "exited with code 3"),
    ],
)
def test_a_worker_that_dies_is_an_error(deed, match, persistent) -> None:
    loader = DataLoader(Failing(deed), 2, num_workers=2, persistent_workers=persistent)
    for _ in range(2):
        with pytest.raises(RuntimeError, match=f"DataLoader worker 0 .*{match}"):
            list(loader)
        assert not processes()


def test_a_worker_killed_from_outside() -> None:
    loader = DataLoader(Rows(400, 4), 1, num_workers=1)
    iterator = iter(loader)
    next(iterator)
    os.kill(processes()[0], signal.SIGKILL)
    with pytest.raises(RuntimeError, match="SIGKILL"):
        list(iterator)


def test_timeout() -> None:
    with pytest.raises(RuntimeError, match=r"timed out after 0\.3 seconds"):
        list(DataLoader(Failing(lambda: time.sleep(60)), 2, num_workers=1, timeout=0.3))
    assert not processes()


def test_worker_init_that_fails() -> None:
    def init(worker):
        raise ValueError("no such device")

    with pytest.raises(ValueError, match="no such device"):
        list(DataLoader(Rows(), 2, num_workers=1, worker_init_fn=init))


def test_what_spawn_cannot_pickle() -> None:
    data = Rows(2)
    data.transform = lambda x: x
    with pytest.raises(RuntimeError, match=r"spawn.*pickle"):
        list(DataLoader(data, num_workers=1, multiprocessing_context="spawn"))
    with pytest.raises(ValueError, match="should be one of"):
        list(DataLoader(data, num_workers=1, multiprocessing_context="teleport"))


def test_batches_that_grow() -> None:
    class Growing(Rows):
        def __getitem__(self, index):
            return np.full(10 ** (index % 6), index, np.float32)

    got = list(DataLoader(Growing(18), None, num_workers=2))
    assert [len(x) for x in got] == [10 ** (i % 6) for i in range(18)]
    assert all((x == i).all().item() for i, x in enumerate(got))


def test_without_room_for_shared_memory(monkeypatch) -> None:
    monkeypatch.setattr("treadle.utils.data.pool.create", lambda size: None)
    # Large tasks and large answers at once fill both directions of the pipe.
    data = TensorDataset(treadle.arange(400_000))
    loader = DataLoader(data, 100_000, num_workers=2, sampler=list(range(400_000)))
    got = np.concatenate([b[0].numpy() for b in loader])
    assert np.array_equal(got, np.arange(400_000))


def test_no_segment_is_left_behind(monkeypatch) -> None:
    made = []

    def create(size):
        made.append(transport.create(size))
        return made[-1]

    monkeypatch.setattr("treadle.utils.data.pool.create", create)
    list(DataLoader(Rows(), 2, num_workers=2))
    assert made
    for segment in made:
        with pytest.raises(FileNotFoundError):
            transport.attach(segment.name)


def test_a_full_file_system_for_shared_memory() -> None:
    assert transport.create(1 << 62) is None


def test_samplers_that_fail_do_not_leave_workers() -> None:
    def groups():
        yield [0]
        raise OSError("no more indices")

    with pytest.raises(OSError, match="no more indices"):
        list(DataLoader(Rows(), batch_sampler=groups(), num_workers=1))
    gc.collect()
    assert not processes()


SCRIPT = """
import sys, time
import numpy as np
from treadle.utils.data import DataLoader, Dataset

class Slow(Dataset):
    def __len__(self): return 1000
    def __getitem__(self, i):
        time.sleep(0.05)
        return np.zeros(5000)

if __name__ == "__main__":
    for i, batch in enumerate(DataLoader(Slow(), 2, num_workers=2)):
        if i == 2:
            print("running", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_stopping_the_main_process_stops_the_workers(how, tmp_path) -> None:
    (tmp_path / "script.py").write_text(textwrap.dedent(SCRIPT))
    with subprocess.Popen(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "running\n"
        if how is signal.SIGINT:
            os.killpg(process.pid, how)  # as the terminal does it: to every process of the group
        else:
            process.kill()
        process.wait(10)
        errors = process.stderr.read()
    if how is signal.SIGINT:
        assert errors.count("Traceback") == 1 and errors.rstrip().endswith("KeyboardInterrupt")
        assert "leaked" not in errors
    deadline = time.monotonic() + 10
    while _group_lives(process.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _group_lives(process.pid)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
