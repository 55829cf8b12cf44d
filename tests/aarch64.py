"""Runs kernels made for AArch64 on any machine, under Debian's `qemu-user`.

There is no cross compiler or C library in this: the image of the kernel, a start routine that
calls it and hands back the memory by two system calls, and two segments in a hand-made executable.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from treadle.codegen.compile import Pattern, image_of
from treadle.codegen.target import AARCH64

QEMU = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="qemu-aarch64 (qemu-user) is not installed")

_CODE, _DATA, _SCRATCH = 0x400000, 0x10000000, 1 << 20
_WRITE, _EXIT, _SYSTEM_CALL = 64, 93, 0xD4000001


def run(
    pattern: Pattern,
    arrays: Sequence[np.ndarray],
    sizes: Sequence[int],
    folder: Path,
    tasks: int = 1,
) -> int:
    """Runs a pattern on arrays, which it changes, and returns its fault code."""
    data, places = _data(arrays, sizes)
    code, entry = _code(pattern, data, len(arrays), tasks)
    program = folder / "program"
    program.write_bytes(_executable(code, entry, data))
    program.chmod(0o755)
    done = subprocess.run(
        [str(QEMU), str(program)], stdout=subprocess.PIPE, timeout=120, check=False
    )
    assert len(done.stdout) == len(data), f"the program died with code {done.returncode}"
    for array, place in zip(arrays, places, strict=True):
        flat = np.frombuffer(done.stdout, dtype=array.dtype, count=array.size, offset=place)
        array[...] = flat.reshape(array.shape)
    return done.returncode


def _data(arrays: Sequence[np.ndarray], sizes: Sequence[int]) -> tuple[bytes, list[int]]:
    """Slots, params, then the arrays, each on a cache line of its own."""
    count = len(arrays)
    head = 8 * (count + 2 * count + len(sizes))
    places, at = [], head
    for array in arrays:
        at += -at % 64
        places.append(at)
        at += array.nbytes
    params = [n for i in range(count) for n in (i, 0)]
    data = bytearray(at)
    struct.pack_into(f"<{count}Q", data, 0, *(_DATA + p for p in places))
    struct.pack_into(f"<{2 * count + len(sizes)}q", data, 8 * count, *params, *sizes)
    for array, place in zip(arrays, places, strict=True):
        data[place : place + array.nbytes] = array.tobytes()
    return bytes(data), places


def _code(pattern: Pattern, data: bytes, slots: int, tasks: int) -> tuple[bytes, int]:
    """The kernel's image with a start routine behind it, and where that begins."""
    image = image_of(pattern, AARCH64)
    code = image.code + bytes(-len(image.code) % 4)
    words = [
        *_load(0, _DATA),
        *_load(1, _DATA + 8 * slots),
        *_load(2, _DATA + len(data) + -len(data) % 64),
        *_load(3, 0),
        *_load(4, tasks),
    ]
    distance = image.symbols["kernel"] - (len(code) + 4 * len(words))
    words += [
        0x94000000 | (distance >> 2 & 0x3FFFFFF),  # bl kernel
        0xAA0003F3,  # mov x19, x0
        *_load(0, 1),
        *_load(1, _DATA),
        *_load(2, len(data)),
        *_load(8, _WRITE),
        _SYSTEM_CALL,
        0xAA1303E0,  # mov x0, x19
        *_load(8, _EXIT),
        _SYSTEM_CALL,
    ]
    return code + struct.pack(f"<{len(words)}I", *words), len(code)


def _load(register: int, number: int) -> list[int]:
    """Puts a number below 2^32 into a register: movz, movk."""
    low, high = number & 0xFFFF, number >> 16
    return [0xD2800000 | low << 5 | register, 0xF2A00000 | high << 5 | register]


def _executable(code: bytes, entry: int, data: bytes) -> bytes:
    """An ELF executable of two segments: the code, and the data with scratch memory behind it."""
    page = 4096
    code_at = page
    data_at = code_at + len(code) + -len(code) % page
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 183, 1, _CODE + entry, 64, 0, 0, 64, 56, 2,
        64, 0, 0,
    )  # fmt: skip
    memory = len(data) + _SCRATCH
    segments = (
        struct.pack("<IIQQQQQQ", 1, 5, code_at, _CODE, _CODE, len(code), len(code), page),
        struct.pack("<IIQQQQQQ", 1, 6, data_at, _DATA, _DATA, len(data), memory, page),
    )
    out = bytearray(data_at + len(data))
    out[: len(header)] = header
    out[64 : 64 + 112] = b"".join(segments)
    out[code_at : code_at + len(code)] = code
    out[data_at:] = data
    return bytes(out)
