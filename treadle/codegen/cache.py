"""The object cache: compiled code and plans on disk, shared by all processes.

An entry is a file named by the SHA-256 of what it was made from: the text of a pattern or a graph,
the target, the sources that made it and the version of llvmlite. It carries its own key, length and
checksum, and is written beside its place and moved there, so readers see all of it or nothing.
Whatever is wrong with an entry, it counts as missing and is made anew; whatever is wrong with the
folder, treadle goes on without it and says so once. What was used longest ago goes when it grows
beyond half a gigabyte (`prune.py`).
"""

from __future__ import annotations

import functools
import hashlib
import os
import struct
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from treadle.base.settings import settings
from treadle.codegen.image import Image
from treadle.codegen.prune import note_use, prune
from treadle.codegen.target import Target

_MAGIC: Final = b"TRDLOBJ1"
_HEADER: Final = struct.Struct("<8s32s32sQ")
"""Magic with the format's version, key, SHA-256 of the payload, length of the payload."""

_warned: Final[set[str]] = set()
_pruned: Final[list[int]] = []


def key_of(text: str, target: Target, rooms: tuple[str, ...] = ("codegen",)) -> bytes:
    """What identifies what these rooms of the package make from a text for a target."""
    made_by = _made_by(rooms)
    return hashlib.sha256(b"\0".join((made_by, repr(target).encode(), text.encode()))).digest()


def find(key: bytes) -> Image | None:
    """The image kept under a key, or `None` where there is no sound one."""
    payload = read(key)
    return None if payload is None else _unpack(payload)


def keep(key: bytes, image: Image) -> None:
    """Writes an image under a key; a folder that does not take it is warned about once."""
    write(key, _pack(image))


def read(key: bytes) -> bytes | None:
    """The payload of the entry with a key, or `None` where there is no sound one."""
    path = _path(key)
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _warn(f"cannot read compiled kernels in {_folder()}: {error}")
        return None
    note_use(path)
    return _checked(data, key)


def write(key: bytes, payload: bytes) -> None:
    """Writes an entry; a folder that does not take it is warned about once."""
    header = _HEADER.pack(_MAGIC, key, hashlib.sha256(payload).digest(), len(payload))
    path = _path(key)
    # Unique among processes and threads that write the same entry at the same time.
    aside = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        _folder().mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            aside.write_bytes(header + payload)
            aside.replace(path)
        finally:
            aside.unlink(missing_ok=True)
        if not _pruned:
            # Once for a process: it takes milliseconds where there are thousands of entries.
            _pruned.append(prune(_folder()))
    except OSError as error:
        _warn(f"cannot keep compiled kernels in {_folder()}: {error}")


def _folder() -> Path:
    return settings.cache / "objects"


def _path(key: bytes) -> Path:
    return _folder() / key.hex()


def _warn(message: str) -> None:
    if message.partition(":")[0] not in _warned:
        _warned.add(message.partition(":")[0])
        warnings.warn(f"treadle {message}", RuntimeWarning, stacklevel=4)


def _pack(image: Image) -> bytes:
    parts = [struct.pack("<I", len(image.symbols))]
    for name, place in image.symbols.items():
        encoded = name.encode()
        parts.append(struct.pack("<HQ", len(encoded), place) + encoded)
    return b"".join((*parts, image.code))


def _checked(data: bytes, key: bytes) -> bytes | None:
    """The payload of an entry that is whole and the one that was asked for."""
    if len(data) < _HEADER.size:
        return None
    magic, own_key, checksum, length = _HEADER.unpack_from(data)
    payload = data[_HEADER.size :]
    if magic != _MAGIC or own_key != key or length != len(payload):
        return None
    return payload if hashlib.sha256(payload).digest() == checksum else None


def _unpack(payload: bytes) -> Image:
    (count,) = struct.unpack_from("<I", payload)
    at, symbols = 4, {}
    for _ in range(count):
        size, place = struct.unpack_from("<HQ", payload, at)
        at += 10
        symbols[payload[at : at + size].decode()] = place
        at += size
    return Image(payload[at:], symbols)


@functools.cache
def _made_by(rooms: tuple[str, ...]) -> bytes:
    """What else decides an entry: the sources of these rooms, and the compiler's version.

    Both are read as files: importing llvmlite would cost more than everything else here.
    """
    digest = hashlib.sha256()
    for room in rooms:
        for source in sorted((Path(__file__).parents[1] / room).rglob("*.py")):
            digest.update(source.read_bytes())
    spec = find_spec("llvmlite")
    if spec is not None and spec.origin is not None:
        digest.update((Path(spec.origin).parent / "_version.py").read_bytes())
    return digest.digest()
