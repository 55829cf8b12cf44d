"""From patterns to addresses: what a plan asks of this room.

A pattern is compiled once: its machine code serves every shape, is found again in memory by its
key, and in later processes on disk. Loading from disk needs no LLVM.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from treadle.base.lazy import LazyModule
from treadle.base.settings import settings
from treadle.codegen import cache, jit
from treadle.codegen.attention import render_attention
from treadle.codegen.contract import render_contraction
from treadle.codegen.contract.shared import linked
from treadle.codegen.executable import place
from treadle.codegen.image import Image, link
from treadle.codegen.render import render
from treadle.codegen.target import Target, host
from treadle.ir.attention import Attention
from treadle.ir.contraction import Contraction
from treadle.ir.key import pattern_key
from treadle.ir.loop import Kernel
from treadle.ir.show import show
from treadle.ir.verify_loop import verify

futures: Any = LazyModule("concurrent.futures")

Pattern = Kernel | Contraction | Attention

_SYMBOL: Final = "kernel"
_NOWHERE: Final = ("", 0)
_lock: Final = threading.Lock()
_placed: Final[dict[bytes, dict[str, int]]] = {}
"""The functions of what is in memory, by its key in the cache."""
_bound: Final[WeakKeyDictionary[Pattern, tuple[str, int]]] = WeakKeyDictionary()
"""The target and address of patterns bound before: plans of one structure share the objects."""


@dataclass(slots=True)
class Counts:
    """What binding has done in this process, for tests and for those who wonder."""

    compiled: int = 0
    loaded: int = 0


counts: Final = Counts()


def bind(patterns: Sequence[Pattern], target: Target | None = None) -> list[int]:
    """The address of each pattern's code, compiled or loaded where it is new to this process.

    patterns: kernels and contractions; those with the same key share one address.
    target:   what the code is for: this machine (default), since the addresses are to be called.
    Raises `CompileError` for a pattern that has no code, `VerifyError` under `TREADLE_CHECK=1`.
    """
    target = target or host()
    name = target.name
    known = [_bound.get(p, _NOWHERE) for p in patterns]
    texts = {
        p: pattern_key(p) for p, (where, _) in zip(patterns, known, strict=True) if where != name
    }
    if texts:
        keys = {text: cache.key_of(text, target) for text in set(texts.values())}
        with _lock:
            missing = {text: p for p, text in texts.items() if keys[text] not in _placed}
            images = _images(missing, keys, target)
            for text, symbols in zip(missing, _addresses(images), strict=True):
                _placed[keys[text]] = symbols
            _bound.update((p, (name, _placed[keys[t]][_SYMBOL])) for p, t in texts.items())
        known = [_bound[p] for p in patterns]
    return [address for _, address in known]


def object_keys(patterns: Sequence[Pattern]) -> list[bytes]:
    """Under which key of the cache the code of each pattern is, for `load` in another process."""
    target = host()
    return [cache.key_of(pattern_key(p), target) for p in patterns]


def load(keys: Sequence[bytes]) -> list[int] | None:
    """The addresses of code from the cache by `object_keys`; `None` where any of it is missing."""
    with _lock:
        missing = [key for key in dict.fromkeys(keys) if key not in _placed]
        found = [image for image in map(cache.find, missing) if image is not None]
        if len(found) < len(missing):
            return None
        _placed.update(zip(missing, _addresses(found), strict=True))
        counts.loaded += len(missing)
        return [_placed[key][_SYMBOL] for key in keys]


def native(text: str, target: Target | None = None) -> dict[str, int]:
    """The addresses of the functions of a module of LLVM IR, compiled once and cached likewise.

    text: LLVM IR that calls no function from outside of the module.
    """
    target = target or host()
    key = cache.key_of(text, target)
    with _lock:
        if key not in _placed:
            image = cache.find(key)
            if image is None:
                image = link(jit.compile_module(text, target).object)
                cache.keep(key, image)
            _placed[key] = _addresses([image])[0]
        return _placed[key]


def stages(pattern: Pattern, target: Target | None = None) -> tuple[str, jit.Stages]:
    """A pattern's text and its module at every stage, compiled for the sake of looking."""
    return show(pattern), _compile(pattern, target or host())


def image_of(pattern: Pattern, target: Target) -> Image:
    """A pattern's code for any target, to be written somewhere rather than run here."""
    return linked(_compile(pattern, target).object, target)


def _images(patterns: dict[str, Pattern], keys: dict[str, bytes], target: Target) -> list[Image]:
    """The code of patterns by their texts, from disk where it is there."""
    # Whoever wants to see the stages wants them made.
    found = {t: None if settings.dump is not None else cache.find(keys[t]) for t in patterns}
    missing = [text for text, image in found.items() if image is None]
    made = _compile_all([patterns[text] for text in missing], target)
    counts.loaded += len(patterns) - len(missing)
    counts.compiled += len(missing)
    for text, stages in zip(missing, made, strict=True):
        if settings.dump is not None:
            _dump(Path(settings.dump), keys[text], patterns[text], stages)
        image = found[text] = linked(stages.object, target)
        cache.keep(keys[text], image)
    return [image for image in found.values() if image is not None]


def _compile_all(patterns: list[Pattern], target: Target) -> list[jit.Stages]:
    """Compiles patterns: while LLVM works on one, the next is rendered."""
    if len(patterns) < 2:
        return [_compile(p, target) for p in patterns]
    with futures.ThreadPoolExecutor(1) as pool:
        jobs = [
            pool.submit(jit.compile_module, _rendered(p, target), target, p.name) for p in patterns
        ]
        return [job.result() for job in jobs]


def _compile(pattern: Pattern, target: Target) -> jit.Stages:
    return jit.compile_module(_rendered(pattern, target), target, pattern.name)


def _rendered(pattern: Pattern, target: Target) -> str:
    module = jit.new_module(target, pattern.name)
    if isinstance(pattern, Contraction):
        render_contraction(module, pattern, target, _SYMBOL)
    elif isinstance(pattern, Attention):
        render_attention(module, pattern, target, _SYMBOL)
    else:
        if settings.check:
            verify(pattern)
        render(module, pattern, target, _SYMBOL)
    return str(module)


def _addresses(images: list[Image]) -> list[dict[str, int]]:
    return [
        {name: base + offset for name, offset in image.symbols.items()}
        for image, base in zip(images, place(images), strict=True)
    ]


def _dump(folder: Path, key: bytes, pattern: Pattern, made: jit.Stages) -> None:
    name = f"{_file_name(pattern.name)}-{key.hex()[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.loops").write_text(show(pattern))
    (folder / f"{name}.rendered.ll").write_text(made.rendered)
    (folder / f"{name}.optimised.ll").write_text(made.optimised)
    (folder / f"{name}.s").write_text(made.assembly)


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name)[:60] or "kernel"
