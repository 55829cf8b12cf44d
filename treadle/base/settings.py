"""Settings read once from the environment. There are few, and each is documented here."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def _cache_folder() -> Path:
    named = os.environ.get("TREADLE_CACHE")
    if named:
        return Path(named)
    root = os.environ.get("XDG_CACHE_HOME")
    return (Path(root) if root else Path.home() / ".cache") / "treadle"


@dataclass(slots=True)
class Settings:
    """What the environment decides.

    `TREADLE_CACHE`: folder of compiled kernels and data sets (default `~/.cache/treadle`).
    `TREADLE_DATA`: folder searched for data sets before anything is downloaded.
    `TREADLE_THREADS`: threads that run kernels (default: the processors this process may use).
    `TREADLE_TARGET`: `avx512`, `avx2` or `portable` instead of what the processor offers.
    `TREADLE_DUMP`: folder that receives every stage of each kernel as text.
    `TREADLE_CHECK`: `1` verifies the graph after every pass and each loop nest before rendering.
    """

    cache: Path = field(default_factory=_cache_folder)
    data: str | None = field(default_factory=lambda: os.environ.get("TREADLE_DATA"))
    threads: int = field(default_factory=lambda: int(os.environ.get("TREADLE_THREADS", "0")))
    target: str | None = field(default_factory=lambda: os.environ.get("TREADLE_TARGET"))
    dump: str | None = field(default_factory=lambda: os.environ.get("TREADLE_DUMP"))
    check: bool = field(default_factory=lambda: os.environ.get("TREADLE_CHECK", "") == "1")


settings = Settings()
