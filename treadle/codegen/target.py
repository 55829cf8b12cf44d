"""What code is made for: the instruction set, the width of its vectors, how many there are."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from typing import Final

from treadle.base.errors import CompileError
from treadle.base.lazy import LazyModule
from treadle.base.settings import settings


@dataclass(frozen=True)
class Target:
    """A processor family.

    Its identity is part of every cached object's key, so it names a family (`x86-64-v3`), never
    one model: an object made on one machine is valid on every machine of the family.
    Objects are always ELF with the System V calling convention, whatever the system is: treadle
    places them in memory itself (`codegen/image.py`).
    """

    name: str
    triple: str
    cpu: str
    features: str
    vector_bits: int
    registers: int

    @property
    def fma(self) -> bool:
        """Whether a fused multiply-add is one instruction."""
        return self.name != "portable"

    @property
    def rounding(self) -> bool:
        """Whether floor, ceil, trunc and round to even are instructions."""
        return self.name != "portable"

    @property
    def half(self) -> bool:
        """Whether float16 converts to and from float32 in hardware."""
        return self.name != "portable"

    def masked(self, itemsize: int) -> bool:
        """Whether lanes of this size load and store under a mask in one instruction."""
        return self.name == "avx512" or (self.name == "avx2" and itemsize >= 4)

    def lanes(self, itemsize: int) -> int:
        """How many elements of this size one vector register holds."""
        return self.vector_bits // (8 * itemsize)


_llvm = LazyModule("llvmlite.binding")

_LINUX: Final = "x86_64-unknown-linux-gnu"
AVX512: Final = Target("avx512", _LINUX, "x86-64-v4", "-prefer-256-bit", 512, 32)
AVX2: Final = Target("avx2", _LINUX, "x86-64-v3", "", 256, 16)
PORTABLE: Final = Target("portable", _LINUX, "x86-64", "", 128, 16)
AARCH64: Final = Target("aarch64", "aarch64-unknown-linux-gnu", "generic", "+neon", 128, 32)

BY_NAME: Final = {t.name: t for t in (AVX512, AVX2, PORTABLE, AARCH64)}

_AVX2_FLAGS: Final = frozenset({"avx2", "fma", "bmi1", "bmi2", "f16c", "movbe"})
_AVX512_FLAGS: Final = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})


@functools.cache
def host() -> Target:
    """The best target of this machine, or the one that `TREADLE_TARGET` names.

    Raises `CompileError` for a name that does not exist or that this machine cannot run.
    """
    offered = _offered()
    wanted = settings.target
    if wanted is None:
        return offered[0]
    for target in offered:
        if target.name == wanted:
            return target
    names = ", ".join(t.name for t in offered)
    raise CompileError(f"TREADLE_TARGET={wanted!r} is not a target of this machine: {names}")


def _offered() -> tuple[Target, ...]:
    machine = os.uname().machine.lower()
    if machine in ("aarch64", "arm64"):
        return (AARCH64,)
    if machine not in ("x86_64", "amd64"):
        raise CompileError(f"treadle has no target for a {machine} processor")
    flags = _flags()
    if not flags >= _AVX2_FLAGS:
        return (PORTABLE,)
    return (AVX512, AVX2, PORTABLE) if flags >= _AVX512_FLAGS else (AVX2, PORTABLE)


def _flags() -> frozenset[str]:
    """What the processor offers, as Linux tells it; elsewhere what LLVM detects."""
    try:
        with open("/proc/cpuinfo") as file:
            for line in file:
                if line.startswith("flags"):
                    return frozenset(line.partition(":")[2].split())
    except OSError:
        pass
    # Only where /proc is missing: importing LLVM costs more than all of treadle.
    found = {name for name, on in _llvm.get_host_cpu_features().items() if on}
    return frozenset(found | ({"bmi1"} if "bmi" in found else set()))
