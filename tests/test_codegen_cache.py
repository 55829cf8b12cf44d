"""The object cache: hits, damage, concurrent writers, folders that do not take it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from kernels import call, elementwise, operand

from treadle.base import dtype as dt
from treadle.base.settings import settings
from treadle.codegen import cache, compile, prune
from treadle.codegen.image import Image
from treadle.codegen.target import AVX2, PORTABLE, host
from treadle.ir.loop import Binary, Const, Kernel

KEY = bytes(range(32))
IMAGE = Image(b"\x90\xc3" * 100, {"kernel": 4, "other": 2})


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(settings, "cache", tmp_path)
    monkeypatch.setattr(compile, "_placed", {})
    monkeypatch.setattr(compile, "counts", compile.Counts())
    monkeypatch.setattr(cache, "_warned", set())
    yield tmp_path / "objects"


def entry(folder: Path) -> Path:
    (found,) = folder.iterdir()
    return found


def doubling() -> Kernel:
    return elementwise(Binary("mul", operand(0, dt.float32), Const(2.0, dt.float32)), dt.float32)


def works(address: int) -> bool:
    x, y = np.arange(5, dtype=np.float32), np.empty(5, dtype=np.float32)
    return call(address, [x, y], [5]) == 0 and bool((y == 2 * x).all())


def test_an_image_comes_back_as_it_was(folder: Path) -> None:
    assert cache.find(KEY) is None
    cache.keep(KEY, IMAGE)
    assert cache.find(KEY) == IMAGE
    assert [p.name for p in folder.iterdir()] == [KEY.hex()]


@pytest.mark.parametrize("at", [0, 7, 8, 40, 72, 79, 80, 100, -1])
def test_a_changed_byte_is_noticed(folder: Path, at: int) -> None:
    cache.keep(KEY, IMAGE)
    data = bytearray(entry(folder).read_bytes())
    data[at] ^= 1
    entry(folder).write_bytes(data)
    assert cache.find(KEY) is None


@pytest.mark.parametrize("length", [0, 1, 50, 80, 100, 150])
def test_a_truncated_entry_is_noticed(folder: Path, length: int) -> None:
    cache.keep(KEY, IMAGE)
    entry(folder).write_bytes(entry(folder).read_bytes()[:length])
    assert cache.find(KEY) is None


def test_an_entry_of_another_key_is_foreign(folder: Path) -> None:
    cache.keep(KEY, IMAGE)
    other = bytes(32)
    entry(folder).rename(folder / other.hex())
    assert cache.find(other) is None


def test_a_pattern_is_compiled_once(folder: Path) -> None:
    first, second = compile.bind([doubling(), doubling()])
    assert first == second == compile.bind([doubling()])[0]
    assert works(first)
    assert compile.counts == compile.Counts(compiled=1, loaded=0)


def test_the_next_process_loads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile.bind([doubling()])
    monkeypatch.setattr(compile, "_placed", {})
    (address,) = compile.bind([doubling()])
    assert works(address)
    assert compile.counts == compile.Counts(compiled=1, loaded=1)


def test_a_damaged_entry_is_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile.bind([doubling()])
    sound = entry(folder).read_bytes()
    entry(folder).write_bytes(sound[:-3])
    monkeypatch.setattr(compile, "_placed", {})
    assert works(compile.bind([doubling()])[0])
    assert compile.counts.compiled == 2
    assert entry(folder).read_bytes() == sound


def test_loading_needs_no_llvm(folder: Path) -> None:
    program = (
        "import sys; sys.path[:0] = {path!r}\n"
        "from test_codegen_cache import doubling\n"
        "import numpy; before = 'llvmlite' in sys.modules\n"
        "from treadle.codegen import compile\n"
        "compile.bind([doubling()])\n"
        "assert not before and 'llvmlite' not in sys.modules, 'imported'\n"
        "assert compile.counts.loaded == 1, compile.counts\n"
    )
    compile.bind([doubling()])
    environment = {**os.environ, "TREADLE_CACHE": str(folder.parent)}
    path = [str(Path(__file__).parent), *sys.path]
    subprocess.run(
        [sys.executable, "-c", program.format(path=path)], check=True, env=environment, timeout=60
    )


def test_targets_do_not_share_entries() -> None:
    assert cache.key_of("text", AVX2) != cache.key_of("text", PORTABLE)
    assert cache.key_of("text", AVX2) != cache.key_of("text.", AVX2)


def test_many_writers_of_one_entry(folder: Path) -> None:
    errors: list[BaseException] = []

    def write() -> None:
        try:
            for _ in range(30):
                cache.keep(KEY, IMAGE)
                assert cache.find(KEY) == IMAGE
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert [p.name for p in folder.iterdir()] == [KEY.hex()]


def test_a_folder_that_takes_nothing_is_warned_about_once(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    settings.cache = blocked
    with pytest.warns(RuntimeWarning) as caught:
        (address,) = compile.bind([doubling()])
        compile.bind([elementwise(Binary("add", *[operand(0, dt.float32)] * 2), dt.float32)])
    assert works(address)
    kept = [w for w in caught if "cannot keep compiled kernels" in str(w.message)]
    assert len(kept) == 1


def test_a_full_disk_leaves_no_rubbish(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        self.touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.warns(RuntimeWarning, match="No space left"):
        assert works(compile.bind([doubling()])[0])
    assert list(folder.iterdir()) == []


def test_every_stage_can_be_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "dump", str(tmp_path / "dump"))
    compile.bind([doubling()])
    texts = {p.suffix: p.read_text() for p in (tmp_path / "dump").iterdir()}
    assert "vector i in 0..$0" in texts[".loops"]
    assert "define i64 @" in texts[".ll"]
    assert "kernel:" in texts[".s"]
    loops, made = compile.stages(doubling())
    assert loops == texts[".loops"]
    assert "alloca i64" in made.rendered and "alloca i64" not in made.optimised


def test_native_code_from_text() -> None:
    text = f'target triple = "{host().triple}"\ndefine i64 @seven() {{\n  ret i64 7\n}}\n'
    import ctypes

    first, again = compile.native(text), compile.native(text)
    assert first == again
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(first["seven"])() == 7


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    day = 24 * 3600
    now = time.time()
    for i in range(10):
        (tmp_path / str(i)).write_bytes(bytes(100))
        os.utime(tmp_path / str(i), (now, now - (10 - i) * 2 * day))
    prune.note_use(tmp_path / "0")
    assert prune.prune(tmp_path, most=1000) == 0
    assert prune.prune(tmp_path, most=800) == 400
    assert sorted(p.name for p in tmp_path.iterdir()) == ["0", "5", "6", "7", "8", "9"]
    prune.note_use(tmp_path / "gone")
