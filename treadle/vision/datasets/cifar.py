"""CIFAR-10: found on this machine, or fetched."""

from __future__ import annotations

import io
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

from treadle.base.errors import DataError
from treadle.base.lazy import LazyModule
from treadle.base.settings import settings
from treadle.vision.datasets.download import fetch, verified, write_atomically
from treadle.vision.datasets.idx import unpacked
from treadle.vision.datasets.unpickle import load_arrays
from treadle.vision.datasets.vision_dataset import VisionDataset

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

_RECORD: Final = 1 + 3 * 32 * 32
"""Bytes of one image in the binary format: its label, then the planes of red, green and blue."""


class CIFAR10(VisionDataset):
    """60,000 colour pictures of 32 × 32 pixels in 10 classes (Krizhevsky 2009).

    Files are looked for in `root/cifar-10-batches-bin` (the binary version), in
    `root/cifar-10-batches-py` (the Python version, as torchvision leaves it; read without running
    anything in it), and in the folder `cifar10` of the folder named by `TREADLE_DATA`, which may
    hold a first part (`train_6000.bin.gz`, `test_1000.bin.gz`): that is used with a warning.

    Args:
        root: the folder to look and to write in.
        train: the 50,000 training pictures, or else the 10,000 test pictures.
        transform: applied to the PIL image.
        target_transform: applied to the label.
        download: whether to fetch what is missing (170 MB, checked by its MD5).

    Raises:
        DataError: files are missing, truncated or damaged; says which, and what was tried.
    """

    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    md5: ClassVar[str] = "c32a1d4ab5d03f1284b67883e8d87530"
    classes: ClassVar[list[str]] = [  # type: ignore[misc]
        "airplane", "automobile", "bird", "cat", "deer",
        "dog", "frog", "horse", "ship", "truck",
    ]  # fmt: skip

    def __init__(
        self,
        root: str | Path,
        train: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        download: bool = False,
    ) -> None:
        super().__init__(root, transform, target_transform)
        self.train = train
        self._names = [f"data_batch_{i}" for i in range(1, 6)] if train else ["test_batch"]
        failure = self._download() if download and not self._whole() else ""
        planes, labels = self._read(failure)
        self.data = np.ascontiguousarray(planes.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
        self.targets = labels.tolist()

    def _binary_folder(self) -> Path:
        return self.root / "cifar-10-batches-bin"

    def _whole(self) -> list[Path]:
        """The files of the whole set in the first folder that has them all, or none."""
        for folder, ending in (
            (self._binary_folder(), ".bin"),
            (self.root / "cifar-10-batches-py", ""),
        ):
            paths = [folder / f"{name}{ending}" for name in self._names]
            if all(path.is_file() for path in paths):
                return paths
        return []

    def _part(self) -> list[Path]:
        if not settings.data:
            return []
        folder = Path(settings.data).expanduser() / "cifar10"
        return sorted(folder.glob("train_*.bin*" if self.train else "test_*.bin*"))[:1]

    def _read(self, failure: str) -> tuple[np.ndarray, np.ndarray]:
        paths = self._whole()
        if not paths and (paths := self._part()):
            warnings.warn(f"CIFAR10: only a first part of it is here: {paths[0]}", stacklevel=3)
        if not paths:
            raise DataError(
                f"CIFAR10 is not found: {', '.join(self._names)} in {self._binary_folder()} or "
                f"{self.root / 'cifar-10-batches-py'}. "
                + (
                    f"It cannot be fetched: {failure}"
                    if failure
                    else "Use download=True to fetch it."
                )
            )
        parts = [_read_binary(p) if ".bin" in p.name else _read_python(p) for p in paths]
        return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])

    def _download(self) -> str:
        """Fetch the binary version; gives the reason where that fails."""
        try:
            archive = verified(fetch(self.url), self.md5, self.url.rsplit("/", 1)[-1])
        except DataError as error:
            return f"{self.url}: {error}"
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
            for member in tar:
                name = Path(member.name).name
                file = tar.extractfile(member)
                if file is not None and name.endswith((".bin", ".txt")):
                    write_atomically(self._binary_folder() / name, file.read())
        return ""

    def extra_repr(self) -> str:
        return f"Split: {'Train' if self.train else 'Test'}"


def _read_binary(path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = unpacked(path.read_bytes(), str(path))
    if not content or len(content) % _RECORD:
        raise DataError(
            f"{path} is truncated or no CIFAR-10 file: {len(content):,} bytes are not a whole "
            f"number of records of {_RECORD:,}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    return _checked(records[:, 1:], records[:, 0], path)


def _read_python(path: Path) -> tuple[np.ndarray, np.ndarray]:
    with open(path, "rb") as file:
        entry = load_arrays(file, str(path))
    try:
        planes, labels = np.asarray(entry["data"]), np.asarray(entry["labels"])
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} does not hold 'data' and 'labels'") from error
    if planes.dtype != np.uint8 or planes.ndim != 2 or planes.shape != (len(labels), _RECORD - 1):
        raise DataError(f"{path} holds {planes.dtype} {planes.shape}, not uint8 (n, 3072)")
    return _checked(planes, labels, path)


def _checked(planes: np.ndarray, labels: np.ndarray, path: Path) -> tuple[np.ndarray, np.ndarray]:
    if len(labels) and labels.max() > 9:
        raise DataError(f"{path} is damaged: it has a label {labels.max()}, but classes are 0 … 9")
    return planes, labels
