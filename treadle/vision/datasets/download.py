"""Getting files from elsewhere: with a progress bar, checked, and never half written."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Final

from treadle.base.errors import DataError
from treadle.base.lazy import LazyModule

_request = LazyModule("urllib.request")
_error = LazyModule("urllib.error")
_http = LazyModule("http.client")
_tqdm = LazyModule("tqdm")

TIMEOUT: Final = 4.0
"""Seconds until a server counts as out of reach: many machines reach only a package index."""


def fetch(url: str, at_most: int = 1 << 28) -> bytes:
    """The content of `url`; raises `DataError` with the reason where it cannot be had."""
    try:
        with _request.urlopen(url, timeout=TIMEOUT) as answer:
            length = int(answer.headers.get("Content-Length") or 0)
            content = bytearray()
            with progress(url.rsplit("/", 1)[-1], length) as bar:
                while part := answer.read(1 << 16):
                    content += part
                    bar.update(len(part))
                    if len(content) > at_most:
                        raise DataError(f"longer than {at_most:,} bytes")
    except _error.HTTPError as error:
        raise DataError(f"HTTP {error.code} {error.reason}") from error
    except _error.URLError as error:
        raise DataError(str(error.reason)) from error
    except (OSError, _http.HTTPException, ValueError) as error:
        raise DataError(str(error) or type(error).__name__) from error
    if length and len(content) != length:
        raise DataError(f"broke off after {len(content):,} of {length:,} bytes")
    return bytes(content)


def progress(name: str, total: int) -> _tqdm.tqdm:  # type: ignore[name-defined]
    """A progress bar in bytes."""
    return _tqdm.tqdm(
        desc=name, total=total or None, unit="B", unit_scale=True, unit_divisor=1024, leave=False
    )


def verified(content: bytes, md5: str, name: str) -> bytes:
    """`content`, whose MD5 must be `md5`; raises `DataError` otherwise."""
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(f"{name} is not the original file: its MD5 is {found}, not {md5}")
    return content


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that others see all of it or nothing, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
