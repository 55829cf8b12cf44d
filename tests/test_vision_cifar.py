"""CIFAR-10: its two formats, the part that is at hand, and what goes wrong."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest

from treadle.base.errors import DataError
from treadle.base.settings import settings
from treadle.utils.data import DataLoader
from treadle.vision import transforms as T
from treadle.vision.datasets import CIFAR10, cifar


@pytest.fixture(autouse=True)
def alone(monkeypatch) -> None:
    monkeypatch.setattr(settings, "data", None)


def records(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 3072), np.uint8), rng.integers(0, 10, count, np.uint8)


def binary(planes: np.ndarray, labels: np.ndarray) -> bytes:
    return np.concatenate([labels[:, None], planes], axis=1).tobytes()


def put_binary(root: Path) -> None:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for i in range(1, 6):
        (folder / f"data_batch_{i}.bin").write_bytes(binary(*records(3, i)))
    (folder / "test_batch.bin").write_bytes(binary(*records(4, 6)))


def put_python(root: Path) -> None:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, seed, count in [(f"data_batch_{i}", i, 3) for i in range(1, 6)] + [
        ("test_batch", 6, 4)
    ]:
        planes, labels = records(count, seed)
        content = pickle.dumps({"data": planes, "labels": labels.tolist()}, 4)
        (folder / name).write_bytes(content)


@pytest.mark.parametrize("put", [put_binary, put_python])
def test_formats(put, tmp_path) -> None:
    put(tmp_path)
    data = CIFAR10(tmp_path)
    planes = np.concatenate([records(3, i)[0] for i in range(1, 6)])
    assert len(data) == 15 and len(CIFAR10(tmp_path, train=False)) == 4
    assert data.data.shape == (15, 32, 32, 3) and type(data.targets) is list
    assert np.array_equal(data.data.transpose(0, 3, 1, 2).reshape(15, -1), planes)
    assert data.targets == [int(y) for i in range(1, 6) for y in records(3, i)[1]]
    data.transform = T.ToTensor()
    x, y = next(iter(DataLoader(data, 15)))
    np.testing.assert_allclose(x.numpy().reshape(15, -1), planes / 255, rtol=1e-6)
    assert y.tolist() == data.targets


def test_the_part_at_hand(data_folder, monkeypatch, tmp_path) -> None:
    pytest.importorskip("PIL")
    monkeypatch.setattr(settings, "data", str(data_folder))
    with pytest.warns(UserWarning, match="only a first part"):
        data = CIFAR10(tmp_path)
    assert len(data) == 6000 and data.data.shape[1:] == (32, 32, 3)
    # The means over all 50,000 images are published: a part cannot be far from them.
    np.testing.assert_allclose(data.data.mean((0, 1, 2)) / 255, [0.4914, 0.4822, 0.4465], atol=0.01)
    image, label = data[0]
    assert image.mode == "RGB" and image.size == (32, 32) and data.classes[label] in data.classes


def archive(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def test_download(monkeypatch, tmp_path) -> None:
    files = {
        f"cifar-10-batches-bin/data_batch_{i}.bin": binary(*records(3, i)) for i in range(1, 6)
    }
    # A name that leads out of the folder leads nowhere.
    content = archive({**files, "../../escaped.bin": b"x"})
    monkeypatch.setattr(cifar, "fetch", lambda url: content)
    with pytest.raises(DataError, match="not the original file"):
        CIFAR10(tmp_path / "a" / "b", download=True)
    monkeypatch.setattr(CIFAR10, "md5", hashlib.md5(content).hexdigest())
    assert len(CIFAR10(tmp_path / "a" / "b", download=True)) == 15
    assert not list(tmp_path.glob("escaped*"))


def test_missing_and_damaged(monkeypatch, tmp_path) -> None:
    with pytest.raises(DataError, match=r"data_batch_1.*download=True"):
        CIFAR10(tmp_path)

    def refuse(url):
        raise DataError("Name or service not known")

    monkeypatch.setattr(cifar, "fetch", refuse)
    with pytest.raises(DataError, match=r"cannot be fetched: https.*Name or service not known"):
        CIFAR10(tmp_path, download=True)
    put_binary(tmp_path)
    test = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    for content, match in (
        (test.read_bytes()[:-1], "truncated"),
        (gzip.compress(test.read_bytes())[:-9], "truncated gzip"),
        (b"\x0b" * 3073, "label 11"),
        (b"", "truncated"),
    ):
        test.write_bytes(content)
        with pytest.raises(DataError, match=match):
            CIFAR10(tmp_path, train=False)


def test_a_python_version_that_runs_code(tmp_path) -> None:
    put_python(tmp_path)
    path = tmp_path / "cifar-10-batches-py" / "test_batch"
    for content, match in (
        (b"cos\nsystem\n(S'touch pwned'\ntR.", "only NumPy arrays"),
        (pickle.dumps({"data": 1}), "does not hold"),
        (pickle.dumps({"data": np.zeros((2, 3), np.uint8), "labels": [1, 2]}), "not uint8"),
    ):
        path.write_bytes(content)
        with pytest.raises(DataError, match=match):
            CIFAR10(tmp_path, train=False)
