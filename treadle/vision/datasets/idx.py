"""The IDX format of the MNIST files, plain or gzip.

Two zero bytes, a byte for the element type, a byte for the number of dimensions, a big-endian
uint32 for each extent, then the elements, big-endian, row-major (LeCun's page of MNIST).
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from treadle.base.errors import DataError
from treadle.base.lazy import LazyModule

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

_TYPES: Final = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

# Arrays that are still in use somewhere, by path, time of change and size of their file.
_known: WeakValueDictionary[tuple[str, int, int], np.ndarray] = WeakValueDictionary()


def read_idx(path: Path) -> np.ndarray:
    """The array in an IDX file; read-only, and the same one as long as the file does not change.

    Raises:
        DataError: the file is missing, truncated, damaged, or no IDX file.
    """
    try:
        state = path.stat()
        key = (str(path.resolve()), state.st_mtime_ns, state.st_size)
        found = _known.get(key)
        if found is None:
            found = parse_idx(unpacked(path.read_bytes(), str(path)), str(path))
            _known[key] = found
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    return found


def unpacked(content: bytes, name: str) -> bytes:
    """`content` without its gzip wrapping, if it has one; `name` is for messages."""
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return zlib.decompress(content, wbits=31)
    except zlib.error as error:
        raise DataError(
            f"{name} is a damaged or truncated gzip file ({len(content):,} bytes: {error}): "
            "delete it and get it again"
        ) from error


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """The array in the bytes of an IDX file; `name` is for messages."""
    if len(content) < 4:
        raise DataError(f"{name} is truncated: {len(content)} bytes, not even a header of 4")
    if content[:2] != b"\0\0" or content[2] not in _TYPES:
        raise DataError(
            f"{name} is not an IDX file: it begins with 0x{content[:4].hex()}, where 0x0000, an "
            "element type (0x08 for uint8) and the number of dimensions should be"
        )
    kind, rank = np.dtype(_TYPES[content[2]]), content[3]
    start = 4 + 4 * rank
    if len(content) < start:
        raise DataError(f"{name} is truncated inside its header: {len(content)} of {start} bytes")
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", rank, 4))
    expected = start + math.prod(shape) * kind.itemsize
    if len(content) != expected:
        what = "truncated" if len(content) < expected else "too long"
        raise DataError(
            f"{name} is {what}: {len(content):,} bytes, but {expected:,} for its shape {shape}"
        )
    # Made in one step, so that every view keeps this very array alive (see `_known`).
    array: np.ndarray = np.ndarray(shape, kind, content, start)
    return array.astype(kind.newbyteorder("="), copy=False)


def idx_bytes(array: np.ndarray) -> bytes:
    """The bytes of an IDX file of a uint8 array."""
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    return header + array.tobytes()
