"""Kernels bound by memory and by rows, each against PyTorch and against the machine's streams.

Every case computes from fresh outputs, as a program would; the streams are one copy and one sum of
two arrays by NumPy into memory that exists, on one thread.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import alone, compare, report, torch_or_none

Case = Callable[[Any, dict[str, Any]], Callable[[], Any]]


def run(torch: Any, make: Callable[[], Any]) -> Callable[[], Any]:
    """A call that computes for certain: treadle is told to, PyTorch does by itself."""
    if torch.__name__ != "treadle":
        return make

    def realised() -> Any:
        out = make()
        torch.flush()
        return out

    return realised


def copy(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """One read and one write of 40 MB."""
    return run(torch, lambda: -x["line"])


def add(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """Two reads and one write of 40 MB."""
    return run(torch, lambda: x["line"] + x["other"])


def gelu(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """A chain of three on 10^7 elements."""
    gelu = torch.nn.functional.gelu
    return run(torch, lambda: gelu(x["line"] * 1.5 + 0.25))


def softmax(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """4096 rows of 1024."""
    return run(torch, lambda: torch.softmax(x["rows"], -1))


def layer_norm(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """4096 rows of 1024, forward and backward."""
    data = x["rows"].clone().requires_grad_()
    weight, bias = (x[name].clone().requires_grad_() for name in ("weight", "bias"))

    def both() -> Any:
        out = torch.nn.functional.layer_norm(data, (1024,), weight, bias)
        return torch.autograd.grad(out, (data, weight, bias), x["grad"])

    return run(torch, both)


def sum_down(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """The columns of 4096 by 4096."""
    return run(torch, lambda: x["square"].sum(0))


def sum_along(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """The rows of 4096 by 4096."""
    return run(torch, lambda: x["square"].sum(1))


def cumsum_along(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """Running sums along the rows of 4096 by 1024."""
    return run(torch, lambda: x["rows"].cumsum(1))


def cumsum_down(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """Running sums down the columns of 4096 by 1024."""
    return run(torch, lambda: x["rows"].cumsum(0))


def convolution(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """3 by 3 over 32 images of 64 channels of 56 by 56."""
    conv2d = torch.nn.functional.conv2d
    return run(torch, lambda: conv2d(x["images"], x["filters"], padding=1))


def convolution_backward(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """The gradients by the image and by the filters, the result of the convolution ready."""
    images, filters = (x[name].clone().requires_grad_() for name in ("images", "filters"))
    out = torch.nn.functional.conv2d(images, filters, padding=1)
    return run(
        torch, lambda: torch.autograd.grad(out, (images, filters), x["images"], retain_graph=True)
    )


def attention(causal: bool) -> Case:
    """8 heads of 1024 tokens and 64 features, forward and backward."""

    def case(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
        q, k, v = (x[name].clone().requires_grad_() for name in ("queries", "keys", "values"))
        attend = torch.nn.functional.scaled_dot_product_attention

        def both() -> Any:
            return torch.autograd.grad(attend(q, k, v, is_causal=causal), (q, k, v), x["values"])

        return run(torch, both)

    return case


CASES: dict[str, Case] = {
    "copy 10^7": copy, "add 10^7": add, "gelu(x*a+b) 10^7": gelu,
    "softmax 4096x1024": softmax, "layer_norm forward+backward 4096x1024": layer_norm,
    "sum over axis 0 of 4096x4096": sum_down, "sum over axis 1 of 4096x4096": sum_along,
    "conv2d forward (32,64,56,56) by 3x3": convolution,
    "conv2d backward (32,64,56,56) by 3x3": convolution_backward,
    "cumsum along rows 4096x1024": cumsum_along, "cumsum down columns 4096x1024": cumsum_down,
    "attention forward+backward 8x1024x64": attention(False),
    "causal attention forward+backward 8x1024x64": attention(True),
}  # fmt: skip


def arrays() -> dict[str, Any]:
    """The operands."""
    random = np.random.default_rng(0)
    shapes = {
        "line": (10_000_000,), "other": (10_000_000,), "rows": (4096, 1024), "grad": (4096, 1024),
        "weight": (1024,), "bias": (1024,), "square": (4096, 4096),
        "queries": (1, 8, 1024, 64), "keys": (1, 8, 1024, 64), "values": (1, 8, 1024, 64),
        "images": (32, 64, 56, 56), "filters": (64, 64, 3, 3),
    }  # fmt: skip
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def streams(x: dict[str, Any]) -> dict[str, Callable[[], Any]]:
    """NumPy into memory that exists already."""
    out = np.empty_like(x["line"])
    return {
        "NumPy copy 10^7": lambda: np.copyto(out, x["line"]),
        "NumPy add 10^7": lambda: np.add(x["line"], x["other"], out=out),
    }


def main() -> None:
    """Prints the medians of the cases whose names hold the first argument."""
    import treadle
    import treadle.nn
    import treadle.nn.functional

    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    data = arrays()
    if not wanted:
        with alone():
            seconds = compare(streams(data), rounds=10)
        report("streams, one thread", seconds, ours="NumPy copy 10^7")
    torch = torch_or_none()
    for name, case in CASES.items():
        if wanted not in name:
            continue
        contenders = {"treadle": case(treadle, {k: treadle.from_numpy(v) for k, v in data.items()})}
        if torch is not None:
            contenders["PyTorch"] = case(torch, {k: torch.from_numpy(v) for k, v in data.items()})
        with alone():
            seconds = compare(contenders, rounds=15, inner=2, settle=0.02)
        report(name, seconds)


if __name__ == "__main__":
    main()
