"""Plans as machine code, on shapes that need several tasks, blocks and passes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from graph_models import batch_norm, conv2d, layer_norm, max_pool, softmax
from native_plan import run_natively

from treadle.base import dtype as dt
from treadle.ir.node import Node
from treadle.ops.contract import contract
from treadle.ops.pointwise import add, cast, gt, mul
from treadle.ops.reduce import AMAX, MAX_REDUCE, total
from treadle.ops.reference import evaluate
from treadle.ops.source import constant
from treadle.ops.table import TABLE, input_node, make
from treadle.ops.view import permute, reshape, windows

F32 = dt.float32


def compare(outputs: list[Node], inputs: list[Node], seed: int = 0) -> None:
    rng = np.random.default_rng(seed)
    arrays = [
        rng.integers(0, 7, i.shape)
        if i.dtype is dt.int64
        else rng.normal(size=i.shape).astype(i.dtype.numpy)
        for i in inputs
    ]
    want = evaluate(outputs, dict(zip(inputs, arrays, strict=True)))
    for g, w in zip(run_natively(outputs, inputs, arrays), want, strict=True):
        scale = float(np.abs(w.astype(float)).max()) if w.size else 1.0
        np.testing.assert_allclose(g, w, rtol=2e-5, atol=2e-5 * max(scale, 1e-3))


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((300_001,), (0,)),
        ((70_000, 3), (0,)),
        ((70_000, 3), (1,)),
        ((500, 700), (0,)),
        ((500, 700), (1,)),
        ((500, 700), (0, 1)),
        ((9, 40, 500), (0, 2)),
        ((9, 40, 500), (1,)),
        ((50_000, 33), (0,)),
        ((517, 3001), (0,)),
        ((17, 8191), (0,)),
        ((40, 17_000), (0,)),
        ((3, 50, 2500), (1,)),
        ((64, 16, 13, 13), (0, 2, 3)),
    ],
)
def test_reductions_of_every_layout(shape: tuple[int, ...], axes: tuple[int, ...]) -> None:
    x = input_node(shape, F32)
    compare([mul(total(x, axes), constant(0.25, F32)), make(AMAX, (x,), (axes,))], [x])


def test_a_split_sum_is_the_same_for_any_cut_of_its_tasks() -> None:
    x = input_node((400_000,), F32)
    array = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    (first,) = run_natively([total(x, (0,))], [x], [array])
    (again,) = run_natively([total(x, (0,))], [x], [array])
    assert first.tobytes() == again.tobytes()


def _models() -> dict[str, Callable[[], tuple[list[Node], list[Node]]]]:
    def image(*shape: int) -> Node:
        return input_node(shape, F32)

    def pool3(x: Node) -> Node:
        wide = windows(x, (2, 3), (3, 3), (2, 2), (1, 1))
        return make(MAX_REDUCE, (wide,), ((4, 5),))

    def case(f: Callable[..., list[Node]], *inputs: Node) -> tuple[list[Node], list[Node]]:
        return f(*inputs), list(inputs)

    return {
        "softmax": lambda: case(lambda x: [softmax(x)], image(37, 1000)),
        "layer norm": lambda: case(lambda x: [layer_norm(x)], image(130, 300)),
        "batch norm": lambda: case(lambda x: [batch_norm(x)], image(32, 6, 20, 20)),
        "batch norm of conv": lambda: case(
            lambda x, w, b: [batch_norm(conv2d(x, w, b, 1))],
            image(8, 3, 20, 20), image(16, 3, 3, 3), image(16),
        ),
        "transpose": lambda: case(lambda x: [permute(x, (1, 2, 0))], image(33, 65, 40)),
        "pool of odd size": lambda: case(lambda x: [max_pool(x)], image(4, 8, 15, 13)),
        "overlapping pool": lambda: case(lambda x: [pool3(x)], image(4, 8, 15, 13)),
        "conv": lambda: case(
            lambda x, w, b: [conv2d(x, w, b, 1, 2)],
            image(3, 8, 17, 15), image(12, 8, 3, 3), image(12),
        ),
        "conv into pool": lambda: case(
            lambda x, w, b: [reshape(max_pool(conv2d(x, w, b)), (5, 8 * 7 * 7))],
            image(5, 3, 16, 16), image(8, 3, 3, 3), image(8),
        ),
        "double contraction": lambda: case(
            lambda x, w: [contract(contract(x, w, (0, 2), (1, 2), (0, 1)), w, (0, 1), (1, 2),
                                   (0, 2))],
            image(50, 40), image(70, 40),
        ),
        "where": lambda: case(
            lambda x: [cast(gt(x, constant(0.0, F32)), dt.int64), add(x, x)], image(1000, 30)
        ),
        "embedding": lambda: case(
            lambda x, i, g: [make(TABLE["take"], (x, i), (0,)),
                             make(TABLE["scatter_add"], (g, i), (0, 7))],
            image(7, 300), input_node((12, 5), dt.int64), image(12, 5, 300),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", _models())
def test_models(name: str) -> None:
    outputs, inputs = _models()[name]()
    compare(outputs, inputs)
