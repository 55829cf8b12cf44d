"""Kernels bound by memory and by rows, each against PyTorch, JAX where it has the same function,
and the machine's streams.

    python bench/kernels.py [part of a name]

Every case computes from fresh outputs, as a program would. The share of the stream is the bytes
that the function must read and write at least, over the time, over what the best stream moves that
`limits.py` finds (reading, copying or adding arrays that exist, on all processors), which takes its
turns with the contenders. Arrays
of up to some 32 MB may stay in a processor's cache, so that a share can be above 1.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import alone, compare, jax_or_none, report, torch_or_none
from limits import measure

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


def running_maximum(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """Running maxima along the rows of 4096 by 1024, and their positions."""
    return run(torch, lambda: x["rows"].cummax(1))


def transposed(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """4096 by 4096, one operand read across."""
    return run(torch, lambda: x["square"].t() + x["square"])


def joined(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """16 pieces of 256 rows of 1024."""
    pieces = x["rows"].split(256)
    return run(torch, lambda: torch.cat(pieces, 0))


def scattered(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """The gradient of 4096 rows of 1024 looked up among 10000."""
    table = torch.zeros(10_000, 1024)
    return run(torch, lambda: table.index_add(0, x["places"], x["rows"]))


def adamw(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """One step on 10^7 parameters: reads four arrays, writes three."""
    parameter = torch.nn.Parameter(x["line"].clone())
    parameter.grad = x["other"]
    optimizer = torch.optim.AdamW([parameter], lr=1e-3)
    return run(torch, optimizer.step)


def order(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """10^6 elements and their positions in order."""
    return run(torch, lambda: torch.sort(x["line"][:1_000_000]))


def best(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """The ten largest of each of 4096 rows of 1024."""
    return run(torch, lambda: torch.topk(x["rows"], 10))


def gamma(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
    """The logarithm of the gamma function of 10^6 elements."""
    return run(torch, lambda: torch.lgamma(x["line"][:1_000_000]))


def attention(causal: bool) -> Case:
    """8 heads of 1024 tokens and 64 features, forward and backward."""

    def case(torch: Any, x: dict[str, Any]) -> Callable[[], Any]:
        q, k, v = (x[name].clone().requires_grad_() for name in ("queries", "keys", "values"))
        attend = torch.nn.functional.scaled_dot_product_attention

        def both() -> Any:
            return torch.autograd.grad(attend(q, k, v, is_causal=causal), (q, k, v), x["values"])

        return run(torch, both)

    return case


LINE, ROWS, SQUARE = 4e7, 4.0 * 4096 * 1024, 4.0 * 4096**2
CASES: dict[str, tuple[Case, float]] = {
    "copy 10^7": (copy, 2 * LINE),
    "add 10^7": (add, 3 * LINE), "gelu(x*a+b) 10^7": (gelu, 2 * LINE),
    "softmax 4096x1024": (softmax, 2 * ROWS),
    "layer_norm forward+backward 4096x1024": (layer_norm, 3 * ROWS),
    "sum over axis 0 of 4096x4096": (sum_down, SQUARE),
    "sum over axis 1 of 4096x4096": (sum_along, SQUARE),
    "cumsum along rows 4096x1024": (cumsum_along, 2 * ROWS),
    "cumsum down columns 4096x1024": (cumsum_down, 2 * ROWS),
    "cummax along rows 4096x1024": (running_maximum, 4 * ROWS),
    "x.t() + x 4096x4096": (transposed, 3 * SQUARE),
    "cat of 16, 4096x1024": (joined, 2 * ROWS),
    "index_add of 4096x1024 into 10000x1024": (scattered, 4 * ROWS + 8.0 * 10_000 * 1024),
    "AdamW step 10^7": (adamw, 7 * LINE),
    "conv2d forward (32,64,56,56) by 3x3": (convolution, 0),
    "conv2d backward (32,64,56,56) by 3x3": (convolution_backward, 0),
    "attention forward+backward 8x1024x64": (attention(False), 0),
    "causal attention forward+backward 8x1024x64": (attention(True), 0),
    "sort 10^6": (order, 0), "topk 10 of 4096x1024": (best, 0), "lgamma 10^6": (gamma, 0),
}  # fmt: skip
"""By name: how it is made, and the bytes that it must move, or 0 where memory is not its limit."""


def peers(jax: Any) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """The same functions in JAX, of a dictionary of its arrays."""
    n = jax.numpy
    return {
        "copy 10^7": lambda x: -x["line"],
        "add 10^7": lambda x: x["line"] + x["other"],
        "gelu(x*a+b) 10^7": lambda x: jax.nn.gelu(x["line"] * 1.5 + 0.25, approximate=False),
        "softmax 4096x1024": lambda x: jax.nn.softmax(x["rows"], -1),
        "sum over axis 0 of 4096x4096": lambda x: n.sum(x["square"], 0),
        "sum over axis 1 of 4096x4096": lambda x: n.sum(x["square"], 1),
        "cumsum along rows 4096x1024": lambda x: n.cumsum(x["rows"], 1),
        "cumsum down columns 4096x1024": lambda x: n.cumsum(x["rows"], 0),
        "x.t() + x 4096x4096": lambda x: x["square"].T + x["square"],
    }


def in_jax(jax: Any, function: Callable[[dict[str, Any]], Any], x: dict[str, Any]) -> Any:
    """A call that computes for certain."""
    compiled = jax.jit(function)
    return lambda: compiled(x).block_until_ready()


def arrays() -> dict[str, Any]:
    """The operands."""
    random = np.random.default_rng(0)
    shapes = {
        "line": (10_000_000,), "other": (10_000_000,), "rows": (4096, 1024), "grad": (4096, 1024),
        "weight": (1024,), "bias": (1024,), "square": (4096, 4096),
        "queries": (1, 8, 1024, 64), "keys": (1, 8, 1024, 64), "values": (1, 8, 1024, 64),
        "images": (32, 64, 56, 56), "filters": (64, 64, 3, 3),
    }  # fmt: skip
    made = {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}
    return made | {"places": random.integers(0, 10_000, 4096)}


def main() -> None:
    """Prints the medians of the cases whose names hold the first argument."""
    import treadle
    import treadle.nn
    import treadle.nn.functional
    import treadle.optim

    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    data = arrays()
    with alone():
        limits = measure()
    print(
        f"streams: read {limits.read / 1e9:.1f}, copy {limits.copy / 1e9:.1f}, "
        f"add {limits.triad / 1e9:.1f} GB/s"
    )
    torch, jax = torch_or_none(), jax_or_none()
    others = peers(jax) if jax else {}
    for name, (case, nbytes) in CASES.items():
        if wanted not in name:
            continue
        contenders = {"treadle": case(treadle, {k: treadle.from_numpy(v) for k, v in data.items()})}
        if torch is not None:
            contenders["PyTorch"] = case(torch, {k: torch.from_numpy(v) for k, v in data.items()})
        if name in others:
            moved = {k: jax.numpy.asarray(v) for k, v in data.items()}
            contenders["JAX"] = in_jax(jax, others[name], moved)
        if nbytes:
            contenders["stream"] = limits.fastest
        with alone():
            seconds = compare(contenders, rounds=15, inner=2, settle=0.02)
        if nbytes:
            stream = limits.moved / seconds.pop("stream")
        report(name, seconds)
        if nbytes:
            share = nbytes / seconds["treadle"] / stream
            print(f"  {share:.0%} of the best stream, {stream / 1e9:.1f} GB/s")


if __name__ == "__main__":
    main()
