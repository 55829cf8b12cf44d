"""Contractions alone, without recording or planning: GFLOP/s of the kernels, and of PyTorch.

    python bench/contract_peaks.py [threads ...]

The shapes are those of a small classifier's layers, square products, and the two convolutions of
a small network with their gradients.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from harness import alone, compare, torch_or_none

from treadle.base import dtype as dt
from treadle.codegen.compile import bind
from treadle.codegen.contract import schedule
from treadle.codegen.target import host
from treadle.ir.contraction import Contraction, Operand
from treadle.ir.loop import Var
from treadle.runtime.pool import pool
from treadle.runtime.program import Launch, Program

_PRODUCTS = (
    # m, n, k, and the classes along which A and B have unit stride
    (64, 128, 784, "kk"),
    (784, 128, 64, "mn"),
    (64, 10, 128, "kk"),
    (256, 256, 256, "kn"),
    (1024, 1024, 1024, "kn"),
    (1024, 1024, 1024, "mk"),
    (2048, 2048, 2048, "kn"),
)
_CONVOLUTIONS = ((64, 26, 26, 32, 64), (64, 28, 28, 1, 32))


@dataclass
class Work:
    """One contraction over arrays, and PyTorch's way to the same result."""

    name: str
    contraction: Contraction
    sizes: tuple[int, ...]
    arrays: list[np.ndarray]
    peer: Callable[[Any], Callable[[], Any]]

    @property
    def flop(self) -> int:
        """Additions and multiplications."""
        return 2 * int(np.prod(self.sizes[: sum(self.contraction.dims)]))

    def ours(self) -> Callable[[], Any]:
        """The contraction as one native call."""
        cut = schedule(self.contraction, self.sizes, host())
        workspace = _array(cut.workspace // 4 + 1)
        buffers = [*self.arrays, workspace]
        places = [number for i in range(len(buffers)) for number in (i, 0)]
        (address,) = bind([self.contraction])
        program = Program(
            [Launch(address, (*places, *s.sizes), s.tasks, s.grain) for s in cut.steps],
            len(buffers),
            cut.scratch,
        )
        addresses = [b.ctypes.data for b in buffers]
        # The default argument keeps the arrays alive.
        return lambda buffers=buffers: program.run(addresses)


def _array(*shape: int) -> np.ndarray:
    """Random numbers that begin at a multiple of 64 bytes."""
    count = int(np.prod(shape))
    raw = np.empty(count + 16, np.float32)
    start = -raw.ctypes.data % 64 // 4
    found = raw[start : start + count].reshape(shape)
    found[...] = np.random.default_rng(0).standard_normal(shape)
    return found


def _contraction(dims: tuple[int, int, int, int], a: str, b: str) -> Contraction:
    f = dt.float32
    return Contraction(
        "peak", dims, Operand(f, a), Operand(f, b), (), (Operand(f, "n"),), f, (Var("acc", f),)
    )


def product(m: int, n: int, k: int, units: str) -> Work:
    """A matrix product; transposed operands are views."""
    a = _array(m, k) if units[0] == "k" else _array(k, m)
    b = _array(k, n) if units[1] == "n" else _array(n, k)
    a_strides = (k, 0, 1) if units[0] == "k" else (1, 0, m)
    b_strides = (0, 1, n) if units[1] == "n" else (0, k, 1)

    def peer(torch: Any) -> Callable[[], Any]:
        x = torch.from_numpy(a if units[0] == "k" else a.T)
        y = torch.from_numpy(b if units[1] == "n" else b.T)
        out = torch.empty(m, n)
        return lambda: torch.mm(x, y, out=out)

    name = f"{m} x {k} @ {k} x {n}{' (A transposed)' * (units[0] == 'm')}"
    return Work(
        f"{name}{' (B transposed)' * (units[1] == 'k')}",
        _contraction((0, 1, 1, 1), *units),
        (m, n, k, *a_strides, *b_strides, n, 1, 0),
        [a, b, _array(m, n)],
        peer,
    )


def convolution(images: int, height: int, width: int, channels: int, filters: int) -> list[Work]:
    """A 3 x 3 convolution, channels last: forward and by weight. By data is like forward."""
    oh, ow = height - 2, width - 2
    x, w = _array(images, height, width, channels), _array(3, 3, channels, filters)
    y = _array(images, oh, ow, filters)
    shape = f"3 x 3 convolution, {images} x {height} x {width} x {channels} -> {filters}"
    windows = (height * width * channels, width * channels, channels)
    weights = (3 * channels * filters, channels * filters, filters)
    pixels = (oh * ow * filters, ow * filters, filters)

    def forward(torch: Any) -> Callable[[], Any]:
        image = torch.from_numpy(x).permute(0, 3, 1, 2)
        weight = torch.from_numpy(w).permute(3, 2, 0, 1).contiguous()
        return lambda: torch.nn.functional.conv2d(image, weight)

    def by_weight(torch: Any) -> Callable[[], Any]:
        image = torch.from_numpy(x).permute(0, 3, 1, 2)
        weight = torch.from_numpy(w).permute(3, 2, 0, 1).contiguous().requires_grad_()
        result = torch.nn.functional.conv2d(image, weight)
        grad = torch.from_numpy(y).permute(0, 3, 1, 2)
        return lambda: torch.autograd.grad(result, weight, grad, retain_graph=True)

    return [
        Work(
            shape,
            _contraction((0, 3, 1, 3), "k", "n"),
            (images, oh, ow, filters, 3, 3, channels, *windows, 0, windows[1], channels, 1)
            + (0, 0, 0, 1, *weights, *pixels, 1, 0, 0, 0),
            [x, w, y],
            forward,
        ),
        Work(
            f"{shape}, by weight",
            _contraction((0, 3, 1, 3), "m", "n"),
            (3, 3, channels, filters, images, oh, ow, windows[1], channels, 1, 0, *windows)
            + (0, 0, 0, 1, *pixels, *weights, 1, 0, 0, 0),
            [x, y, np.empty_like(w)],
            by_weight,
        ),
    ]


def main() -> None:
    """Prints GFLOP/s for the numbers of threads asked for: one and two unless said."""
    works = [product(*p) for p in _PRODUCTS]
    works += [work for c in _CONVOLUTIONS for work in convolution(*c)]
    for threads in [int(a) for a in sys.argv[1:]] or [1, 2]:
        torch = torch_or_none(threads)
        pool.resize(threads)
        print(f"{threads} thread{'s' * (threads > 1)}, GFLOP/s: treadle, PyTorch")
        for work in works:
            contenders = {"treadle": work.ours()}
            if torch is not None:
                contenders["PyTorch"] = work.peer(torch)
            inner = max(1, int(1e8 / work.flop))
            with alone():
                seconds = compare(contenders, rounds=15, inner=inner, settle=0.01)
            rates = "".join(f"{work.flop / s * 1e-9:9.1f}" for s in seconds.values())
            print(f"  {work.name:62s}{rates}", flush=True)


if __name__ == "__main__":
    main()
