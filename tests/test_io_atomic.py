"""Saving replaces a file whole or not at all."""

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from treadle.base.errors import CheckpointError
from treadle.io import load, load_safetensors, save, save_safetensors
from treadle.io.archive import ArchiveWriter
from treadle.tensor import from_numpy


@pytest.fixture
def old(tmp_path):
    """A file that must survive a failed save; nothing may be left beside it."""
    path = tmp_path / "model.pt"
    save("old", path)
    yield path
    assert load(path) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]


def weights(count=1000):
    return {"w": from_numpy(np.ones(count, np.float32))}


@pytest.mark.parametrize("writer", [save, save_safetensors])
def test_a_file_that_grows_too_large_leaves_the_old_one(old, writer):
    """The system refuses in the middle of the write, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"(?i)model\.pt: .*too large"):
            writer(weights(), old)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt(), MemoryError()]
)
@pytest.mark.parametrize("record", ["data.pkl", "data/0", "version"])
def test_an_interruption_leaves_the_old_file(old, monkeypatch, error, record):
    write = ArchiveWriter.add

    def add(self, name, data):
        if name == record:
            raise error
        write(self, name, data)

    monkeypatch.setattr(ArchiveWriter, "add", add)
    if isinstance(error, OSError):
        with pytest.raises(CheckpointError, match="No space left on device; the file that was"):
            save(weights(), old)
    else:
        with pytest.raises(type(error)):
            save(weights(), old)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_refusal_at_the_end_leaves_the_old_file(old, monkeypatch, call):
    def refuse(*args):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(CheckpointError, match="Input/output error"):
        save(weights(), old)
    monkeypatch.undo()


def test_the_data_is_on_the_disk_before_it_takes_the_name(tmp_path, monkeypatch):
    events = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (events.append("replace"), replace(a, b)))
    save(1, tmp_path / "a.pt")
    assert events == ["fsync", "replace", "fsync"]


def test_a_killed_process_leaves_the_old_file(tmp_path):
    path = tmp_path / "model.pt"
    save("old", path)
    code = """
        import os, signal, sys
        from treadle.io import save
        from treadle.io.archive import ArchiveWriter
        ArchiveWriter.finish = lambda self: os.kill(os.getpid(), signal.SIGKILL)
        save("new", sys.argv[1])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert load(path) == "old"


@pytest.mark.parametrize("writer", [save, save_safetensors])
def test_a_folder_that_does_not_exist(tmp_path, writer):
    with pytest.raises(CheckpointError, match=r"the folder .*none does not exist"):
        writer(weights(), tmp_path / "none" / "a.pt")


def test_a_path_that_is_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="Is a directory"):
        save(1, tmp_path)


@pytest.mark.parametrize("writer", [save, save_safetensors])
def test_permissions_are_kept(tmp_path, writer):
    path = tmp_path / "a"
    mask = os.umask(0o027)
    try:
        writer(weights(), path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        path.chmod(0o604)
        writer(weights(), path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o604
    finally:
        os.umask(mask)


def test_a_link_stays_a_link(tmp_path):
    target = tmp_path / "target.pt"
    link = tmp_path / "link.pt"
    save("old", target)
    link.symlink_to(target)
    save("new", link)
    assert link.is_symlink() and load(target) == "new"


@pytest.mark.parametrize(("writer", "reader"), [(save, load), (save_safetensors, load_safetensors)])
def test_a_pipe_is_written_in_place(tmp_path, writer, reader):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received = []
    thread = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    thread.start()
    writer(weights(), pipe)
    thread.join(10)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    copy = tmp_path / "copy"
    copy.write_bytes(received[0])
    assert reader(copy)["w"].tolist() == [1] * 1000


def test_two_threads_saving_the_same_file(tmp_path):
    path = tmp_path / "a.pt"
    threads = [threading.Thread(target=save, args=([n] * 1000, path)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert load(path) in [[n] * 1000 for n in range(8)]
    assert len(list(tmp_path.iterdir())) == 1
