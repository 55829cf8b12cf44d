"""Compiles a contraction and runs its schedule on NumPy arrays, as the runtime would."""

from __future__ import annotations

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treadle.codegen.contract import Schedule, Step, render_contraction, schedule
from treadle.codegen.image import Memory, link
from treadle.codegen.jit import compile_module, new_module
from treadle.codegen.target import Target, host
from treadle.ir.contraction import Contraction

KERNEL = ctypes.CFUNCTYPE(
    ctypes.c_int64,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_void_p,
    ctypes.c_int64,
    ctypes.c_int64,
)
_memory = Memory()


def aligned(size: int) -> np.ndarray:
    """Bytes at a multiple of 64."""
    raw = np.full(size + 64, 0xAB, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size]


@dataclass
class Compiled:
    """A contraction's code, and how long it took to make."""

    contraction: Contraction
    target: Target
    function: Any
    seconds: float
    code_bytes: int
    assembly: Callable[[], str]

    def bind(self, sizes: Sequence[int], buffers: Sequence[np.ndarray]) -> Bound:
        """The launches for these sizes and arrays (A, B, extras, outputs)."""
        return Bound(self, schedule(self.contraction, sizes, self.target), buffers)


def compiled(contraction: Contraction, target: Target | None = None) -> Compiled:
    """Renders and compiles a contraction."""
    target = target or host()
    start = time.perf_counter()
    module = new_module(target)
    render_contraction(module, contraction, target, "kernel")
    stages = compile_module(module, target)
    image = link(stages.object)
    base = _memory.place([image])[0]
    function = KERNEL(base + image.symbols["kernel"])
    seconds = time.perf_counter() - start
    return Compiled(
        contraction, target, function, seconds, len(image.code), lambda: stages.assembly
    )


class Bound:
    """A contraction with its arrays."""

    def __init__(self, code: Compiled, plan: Schedule, buffers: Sequence[np.ndarray]) -> None:
        self.code = code
        self.plan = plan
        self.workspace = aligned(plan.workspace)
        self.buffers = [*buffers, self.workspace]
        self.scratch = [aligned(plan.scratch) for _ in range(2)]
        self.slots = np.array([b.ctypes.data for b in self.buffers], np.int64)
        pairs = [number for i in range(len(self.buffers)) for number in (i, 0)]
        self.params = [np.array([*pairs, *step.sizes], np.int64) for step in plan.steps]

    def run(self, cut: Callable[[int], Sequence[int]] = lambda tasks: (0, tasks)) -> None:
        """Runs all steps on this thread; `cut` gives the bounds of the calls for some tasks."""
        for step, params in zip(self.plan.steps, self.params, strict=True):
            bounds = list(cut(step.tasks))
            for number, (begin, end) in enumerate(zip(bounds, bounds[1:], strict=False)):
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


_ = Step
