"""Reads the format that PyTorch wrote before 1.6: pickles in a row, then the raw storages."""

from __future__ import annotations

import struct
import sys
from typing import IO, Any, Final

from treadle.base.device import Device
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.io.rebuild import Builder, Storage
from treadle.io.unpickler import Malformed, Unpickler

_numpy = LazyModule("numpy")

MAGIC: Final = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_PROTOCOL: Final = 1001
_COUNT: Final = struct.Struct("<q")


def load_legacy(handle: IO[bytes], label: str, device: Device | None) -> Any:
    """The value in a file that begins with `MAGIC`; raises `CheckpointError` or `Malformed`.

    The storages come after the pickle that refers to them, so it is read twice: for their sizes,
    and again when they are there. There are no checksums in this format.
    """
    data = handle.read()
    arrays: dict[str, Any] = {}
    claimed = 0

    def storage(key: str, dtype: DType, total: int) -> Storage:
        nonlocal claimed
        claimed += total * dtype.itemsize
        if claimed > len(data):
            raise Malformed(f"its storages claim more than the {len(data):,} bytes that it has")
        arrays[key] = _numpy.zeros(total, dtype.numpy)
        return Storage(key, dtype, arrays[key])

    def filled(key: str, dtype: DType, total: int) -> Storage:
        return Storage(key, dtype, arrays[key])

    values, position = _pickles(data, label, Builder(storage, len(data), device))
    _, protocol, system, _, keys = values
    if protocol != _PROTOCOL:
        raise Malformed(f"it has the unknown protocol {protocol!r}")
    little = not isinstance(system, dict) or system.get("little_endian", True) is True
    if not isinstance(keys, list) or sorted(map(repr, keys)) != sorted(map(repr, arrays)):
        raise Malformed("its list of storages does not agree with its tensors")
    for key in keys:
        position = _fill(arrays[key], data, position, little)
    builder = Builder(filled, len(data), device)
    return builder.finished(_pickles(data, label, builder)[0][3])


def _pickles(data: bytes, label: str, builder: Builder) -> tuple[list[Any], int]:
    """The five values at the head of the file, and the position after them."""
    values, position = [], 0
    for _ in range(5):
        reader = Unpickler(data, label, builder.construct, builder.persistent, position)
        values.append(reader.load())
        position = reader.position
    return values, position


def _fill(array: Any, data: bytes, position: int, little: bool) -> int:
    """Copies one storage from `position`; returns the position after it."""
    start = position + _COUNT.size
    end = start + array.nbytes
    if end > len(data):
        raise Malformed(f"it ends at byte {len(data):,}, within its storages")
    (count,) = _COUNT.unpack_from(data, position)
    if count != array.size:
        raise Malformed(f"a storage of it has {count:,} elements instead of {array.size:,}")
    raw = array.view(_numpy.uint8)
    raw[:] = _numpy.frombuffer(data, _numpy.uint8, array.nbytes, start)
    if little != (sys.byteorder == "little") and array.itemsize > 1:
        raw.view(f"u{array.itemsize}").byteswap(inplace=True)
    return end
