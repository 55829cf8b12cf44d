"""Compiles a pattern with a schedule and runs it on NumPy arrays, as the runtime would."""

from __future__ import annotations

import ctypes
import itertools
import mmap
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from treadle.codegen.attention import render_attention
from treadle.codegen.contract import Schedule, render_contraction
from treadle.codegen.contract.shared import linked
from treadle.codegen.executable import place
from treadle.codegen.jit import compile_module, new_module
from treadle.codegen.schedules import schedule_of
from treadle.codegen.target import Target, host
from treadle.ir.attention import Attention
from treadle.ir.contraction import Contraction

_KERNEL = ctypes.CFUNCTYPE(
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
)


def aligned(size: int) -> np.ndarray:
    """Bytes at a multiple of 64, filled with what no result should be."""
    raw = np.full(size + 64, 0xA5, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


def guarded(values: np.ndarray) -> np.ndarray:
    """A copy that ends where the readable memory ends: reading behind it crashes."""
    page = mmap.PAGESIZE
    size = values.nbytes
    room = size + -size % page + page
    memory = mmap.mmap(-1, room, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert protect(start + room - page, page, 0) == 0
    copy = np.frombuffer(memory, np.uint8, size, room - page - size).view(values.dtype)
    copy[...] = values.ravel()
    return copy


class Compiled:
    """The code of a contraction or of attention, and how long it took to make."""

    def __init__(self, pattern: Contraction | Attention, target: Target | None = None) -> None:
        self.pattern = pattern
        self.target = target or host()
        start = time.perf_counter()
        module = new_module(self.target)
        if isinstance(pattern, Attention):
            render_attention(module, pattern, self.target, "kernel")
        else:
            render_contraction(module, pattern, self.target, "kernel")
        self.stages = compile_module(str(module), self.target)
        image = linked(self.stages.object, self.target)
        self.seconds = time.perf_counter() - start
        self.code_bytes = len(image.code)
        self.function: Any = _KERNEL(place([image])[0] + image.symbols["kernel"])

    def bind(self, sizes: Sequence[int], buffers: Sequence[np.ndarray]) -> Bound:
        """The launches for these sizes and arrays (operands, then outputs)."""
        return Bound(self, schedule_of(self.pattern, sizes, self.target), buffers)


class Bound:
    """A pattern with its arrays."""

    def __init__(self, code: Compiled, plan: Schedule, buffers: Sequence[np.ndarray]) -> None:
        self.code = code
        self.plan = plan
        self.buffers = [*buffers, aligned(plan.workspace)]
        self.scratch = [aligned(plan.scratch) for _ in range(2)]
        self.slots = np.array([b.ctypes.data for b in self.buffers], np.int64)
        pairs = [number for i in range(len(self.buffers)) for number in (i, 0)]
        self.params = [np.array([*pairs, *step.sizes], np.int64) for step in plan.steps]

    def run(self, cut: Callable[[int], Sequence[int]] = lambda tasks: (0, tasks)) -> None:
        """Runs all steps on this thread; `cut` gives the bounds of the calls for some tasks."""
        for step, params in zip(self.plan.steps, self.params, strict=True):
            for number, (begin, end) in enumerate(itertools.pairwise(cut(step.tasks))):
                self._call(params, self.scratch[number % 2], begin, end)

    def run_threads(self) -> None:
        """Runs all steps on two threads, each taking the next `grain` tasks."""
        gate = threading.Barrier(2)
        counters = [iter(range(0, step.tasks, step.grain)) for step in self.plan.steps]

        def work(thread: int) -> None:
            for step, params, counter in zip(self.plan.steps, self.params, counters, strict=True):
                for begin in counter:
                    end = min(step.tasks, begin + step.grain)
                    self._call(params, self.scratch[thread], begin, end)
                gate.wait()

        other = threading.Thread(target=work, args=(1,))
        other.start()
        work(0)
        other.join()

    def _call(self, params: np.ndarray, scratch: np.ndarray, begin: int, end: int) -> None:
        code = self.code.function(
            self.slots.ctypes.data, params.ctypes.data, scratch.ctypes.data, begin, end
        )
        assert code == 0
