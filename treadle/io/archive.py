"""The container of a PyTorch checkpoint: a zip file of plain, 64-byte aligned records."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from typing import IO, Any, Final, NamedTuple

from treadle.base.errors import CheckpointError
from treadle.base.lazy import LazyModule

_numpy = LazyModule("numpy")
_zipfile = LazyModule("zipfile")

ALIGNMENT: Final = 64
ROOT: Final = "archive/"
_LOCAL: Final = struct.Struct("<4s5H3I2H")
_CENTRAL: Final = struct.Struct("<4s6H3I5H2I")
_END: Final = struct.Struct("<4s4H2IH")
_END64: Final = struct.Struct("<4sQ2H2I4Q")
_LOCATOR: Final = struct.Struct("<4sIQI")
_DATE: Final = 33  # 1980-01-01: the same data gives the same bytes
_UTF8: Final = 1 << 11
_ENCRYPTED: Final = 1
_FULL16: Final = 0xFFFF
_FULL32: Final = 0xFFFFFFFF


class _Entry(NamedTuple):
    name: bytes
    crc: int
    size: int
    offset: int


class ArchiveWriter:
    """Writes records one after the other: sizes and checksums are known, so nothing is patched.

    `limit` is the size from which the 64-bit fields are used.
    """

    def __init__(self, write: Callable[[Any], Any], limit: int = _FULL32) -> None:
        self._raw = write
        self._limit = limit
        self._position = 0
        self._entries: list[_Entry] = []

    def add(self, name: str, data: bytes | memoryview) -> None:
        """Appends a record, its first byte at a multiple of 64."""
        view = memoryview(data).cast("B")
        encoded = (ROOT + name).encode()
        entry = _Entry(encoded, zlib.crc32(view), len(view), self._position)
        wide = entry.size >= self._limit
        extra = struct.pack("<2H2Q", 1, 16, entry.size, entry.size) if wide else b""
        start = self._position + _LOCAL.size + len(encoded) + len(extra)
        padding = -(start + 4) % ALIGNMENT
        extra += struct.pack("<2s H", b"FB", padding) + b"Z" * padding
        size = _FULL32 if wide else entry.size
        self._write(
            _LOCAL.pack(
                b"PK\3\4", 45 if wide else 20, _UTF8, 0, 0, _DATE, entry.crc, size, size,
                len(encoded), len(extra),
            )
        )  # fmt: skip
        self._write(encoded + extra)
        self._write(view)
        self._entries.append(entry)

    def finish(self) -> None:
        """Writes the directory; the archive is complete."""
        start = self._position
        for entry in self._entries:
            self._write(self._central(entry))
        size = self._position - start
        count = len(self._entries)
        if max(size, start) >= self._limit or count >= _FULL16:
            end = self._position
            self._write(
                _END64.pack(
                    b"PK\6\6", _END64.size - 12, 45, 45, 0, 0, count, count, size, start
                )
            )  # fmt: skip
            self._write(_LOCATOR.pack(b"PK\6\7", 0, end, 1))
            count, size, start = _FULL16, _FULL32, _FULL32
        self._write(_END.pack(b"PK\5\6", 0, 0, count, count, size, start, 0))

    def _central(self, entry: _Entry) -> bytes:
        wide = [v for v in (entry.size, entry.size, entry.offset) if v >= self._limit]
        extra = struct.pack(f"<2H{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
        size = _FULL32 if entry.size >= self._limit else entry.size
        offset = _FULL32 if entry.offset >= self._limit else entry.offset
        version = 45 if wide else 20
        return (
            _CENTRAL.pack(
                b"PK\1\2", version, version, _UTF8, 0, 0, _DATE, entry.crc, size, size,
                len(entry.name), len(extra), 0, 0, 0, 0, offset,
            )
            + entry.name + extra
        )  # fmt: skip

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        self._position += len(view)
        while view:
            written = self._raw(view)
            if written is None:
                return
            view = view[written:]


class ArchiveReader:
    """Reads records of a zip file that may be damaged or hostile: every size is checked first.

    Records are stored plain and lie within the file, so nothing can claim more memory than the
    file has bytes; each is compared with its checksum.
    """

    def __init__(self, handle: IO[bytes], label: str) -> None:
        self._handle = handle
        self._label = label
        self._length = handle.seek(0, 2)
        try:
            infos = _zipfile.ZipFile(handle).infolist()
        except (
            _zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OSError,
            struct.error, OverflowError, IndexError,
        ) as error:  # fmt: skip
            raise self.damaged(f"the zip directory cannot be read ({error})") from error
        self._infos = {info.filename: info for info in infos}
        if len(self._infos) != len(infos):
            raise self.damaged("two records have the same name")
        if sum(info.file_size for info in infos) > self._length:
            raise self.damaged(
                f"its records claim more than the {self._length:,} bytes that the file has"
            )
        self._root = self._find_root()

    def _find_root(self) -> str:
        found = [
            name.removesuffix("data.pkl")
            for name in self._infos
            if name.endswith("/data.pkl") and name.count("/") == 1
        ]
        if len(found) != 1:
            raise self.damaged("it is a zip file, but not one that PyTorch or treadle saved")
        if found[0] + "constants.pkl" in self._infos:
            raise CheckpointError(
                f"cannot read {self._label}: it is a TorchScript program, not a checkpoint; "
                "save the state_dict of the model instead"
            )
        return found[0]

    def damaged(self, reason: str) -> CheckpointError:
        """The error for this file."""
        return CheckpointError(f"cannot read {self._label}: {reason}")

    def __contains__(self, name: str) -> bool:
        return self._root + name in self._infos

    def locate(self, name: str) -> tuple[int, int, int]:
        """Where a record lies: its offset in the file, its size in bytes and its CRC-32."""
        info = self._infos.get(self._root + name)
        if info is None:
            raise self.damaged(f"the record {name!r} is missing")
        if info.compress_type != 0 or info.compress_size != info.file_size:
            raise self.damaged(f"the record {name!r} is compressed; a checkpoint stores it plain")
        if not 0 <= info.header_offset <= self._length - _LOCAL.size:
            raise self.damaged(f"the record {name!r} begins outside of the file")
        self._handle.seek(info.header_offset)
        header = self._handle.read(_LOCAL.size)
        fields = _LOCAL.unpack(header)
        named, extra = fields[-2:]
        stored = self._handle.read(named)
        if fields[0] != b"PK\3\4" or stored != info.orig_filename.encode():
            raise self.damaged(f"the record {name!r} is not where the zip directory says")
        if (fields[2] | info.flag_bits) & _ENCRYPTED:
            raise self.damaged(f"the record {name!r} is encrypted")
        offset = info.header_offset + _LOCAL.size + named + extra
        if offset + info.file_size > self._length:
            raise self.damaged(
                f"it ends at byte {self._length:,}, within the record {name!r} "
                f"of {info.file_size:,} bytes"
            )
        return offset, info.file_size, info.CRC

    def array(self, name: str) -> Any:
        """The bytes of a record as a fresh one-dimensional uint8 array."""
        offset, size, crc = self.locate(name)
        block = _numpy.empty(size + ALIGNMENT, _numpy.uint8)
        shift = -block.ctypes.data % ALIGNMENT
        data = block[shift : shift + size]
        self._handle.seek(offset)
        view = memoryview(data)
        while view:
            count = self._handle.readinto(view)  # type: ignore[attr-defined]
            if not count:
                raise self.damaged(f"it ends within the record {name!r}")
            view = view[count:]
        if zlib.crc32(data) != crc:
            raise self.damaged(f"the checksum of the record {name!r} is wrong: it is damaged")
        return data

    def read(self, name: str) -> bytes:
        """The bytes of a record."""
        return self.array(name).tobytes()
