"""Executable memory: where images are put to be run."""

from __future__ import annotations

import mmap
from typing import Any, Final

from treadle.base.errors import CompileError
from treadle.base.lazy import LazyModule
from treadle.codegen.image import Image

_ctypes: Any = LazyModule("ctypes")

ALIGNMENT: Final = 4096
"""Images are placed at multiples of this: AArch64 addresses its constants by page."""

_held: Final[list[mmap.mmap]] = []


def place(images: list[Image]) -> list[int]:
    """Copies images to executable memory, where they stay, and returns the address of each.

    The memory is writable while it is filled and never afterwards.
    Raises `CompileError` where the system refuses memory that can be executed.
    """
    starts, total = [], 0
    for image in images:
        starts.append(total)
        total += len(image.code) + -len(image.code) % ALIGNMENT
    if total == 0:
        return []
    memory = mmap.mmap(-1, total, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    for start, image in zip(starts, images, strict=True):
        memory[start : start + len(image.code)] = image.code
    base = _ctypes.addressof(_ctypes.c_char.from_buffer(memory))
    protect = _ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (_ctypes.c_void_p, _ctypes.c_size_t, _ctypes.c_int)
    if protect(base, total, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
        raise CompileError(f"the system grants no executable memory (error {_ctypes.get_errno()})")
    _held.append(memory)
    return [base + start for start in starts]
