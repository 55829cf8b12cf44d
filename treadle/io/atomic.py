"""Replaces a file whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from treadle.base.errors import CheckpointError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[str]:
    """The path of a fresh file in the same folder, which takes the place of `path` at the end.

    The data is on the disk before the name changes hands, so a full disk, an error, Ctrl-C or a
    power cut leaves either the old file or the new one, and never a part. Links are followed and
    the permissions of the old file are kept. What is no regular file (`/dev/null`, a pipe) is
    written in place.

    Raises `CheckpointError` where the system refuses, with its reason.
    """
    target = os.path.realpath(os.fsdecode(path))
    try:
        old = _mode(target)
        if old is not None and not stat.S_ISREG(old):
            yield target
            return
        folder, name = os.path.split(target)
        temporary = os.path.join(folder, f".{name[:40]}.{secrets.token_hex(8)}.tmp")
        try:
            mode = _create(temporary, old)
            yield temporary
            os.chmod(temporary, mode)  # a library may have replaced it by a file of its own
            _flush(temporary, os.O_RDWR)
            os.replace(temporary, target)
        except BaseException:
            _remove(temporary)
            raise
    except OSError as error:
        kept = "; the file that was there is untouched" if os.path.isfile(target) else ""
        raise CheckpointError(f"cannot save {target}: {_reason(error, target)}{kept}") from error
    # The new file is in place and whole. Where a system cannot flush a folder, the worst that a
    # power cut can still do is to bring the old file back.
    with suppress(OSError):
        _flush(folder, os.O_RDONLY)


def _reason(error: OSError, target: str) -> str:
    folder = os.path.dirname(target)
    if isinstance(error, FileNotFoundError) and not os.path.isdir(folder):
        return f"the folder {folder} does not exist"
    return error.strerror or str(error)


def _mode(path: str) -> int | None:
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _create(path: str, old: int | None) -> int:
    """Makes an empty file; returns the permissions it shall have: the old file's or the usual."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode if old is None else old)
    finally:
        os.close(descriptor)


def _flush(path: str, flags: int) -> None:
    """Waits until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(path: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
