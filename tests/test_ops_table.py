"""Every record of the op table: shapes, dtypes and gradients against its NumPy reference.

A new op is tested by existing: the cases come from its own samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from treadle.base import dtype as dt
from treadle.base.errors import GradientError
from treadle.ir.node import Node
from treadle.ops import TABLE, Op, input_node, make
from treadle.ops.pointwise import mul
from treadle.ops.reduce import total
from treadle.ops.reference import evaluate
from treadle.ops.table import Arg, Sample

CASES = [(op, s) for op in TABLE.values() for s in op.samples]
IDS = [f"{op.name}-{i}" for op in TABLE.values() for i, _ in enumerate(op.samples)]


def draw(arg: Arg, rng: np.random.Generator) -> Any:
    """Values of an argument: distinct, so that extrema have no ties."""
    n = int(np.prod(arg.shape, dtype=int))
    if arg.dtype is dt.bool_:
        low = arg.low if arg.low == arg.high else 0
        return (rng.random(n) < 0.5 if low == 0 else np.ones(n, bool)).reshape(arg.shape)
    if arg.dtype.is_floating_point:
        return rng.uniform(arg.low, arg.high, n).astype(arg.dtype.numpy).reshape(arg.shape)
    return (
        rng.integers(int(max(arg.low, -3)), int(arg.high) + (arg.low < 0), n)
        .astype(arg.dtype.numpy)
        .reshape(arg.shape)
    )


def build(op: Op, sample: Sample, dtype: Any = None) -> tuple[Node, list[Node]]:
    """A node of the op on fresh inputs."""
    inputs = [
        input_node(a.shape, dtype if dtype and a.dtype.is_floating_point else a.dtype)
        for a in sample.args
    ]
    return make(op, tuple(inputs), sample.attrs), inputs


@pytest.mark.parametrize(("op", "sample"), CASES, ids=IDS)
def test_inference_agrees_with_the_reference(op: Op, sample: Sample) -> None:
    node, inputs = build(op, sample)
    rng = np.random.default_rng(0)
    (value,) = evaluate([node], {i: draw(a, rng) for i, a in zip(inputs, sample.args, strict=True)})
    assert value.shape == node.shape
    assert value.dtype == node.dtype.numpy


FLOATING = [
    (op, s, i)
    for op, s in CASES
    for i, a in enumerate(s.args)
    if a.dtype is dt.float64 or (a.dtype is dt.float32 and op.kind in ("view", "gather", "scatter"))
    if op.name != "cast" or s.attrs[0] is dt.float64
]


@pytest.mark.parametrize(("op", "sample", "i"), FLOATING, ids=lambda v: getattr(v, "name", ""))
def test_gradient_agrees_with_finite_differences(op: Op, sample: Sample, i: int) -> None:
    node, inputs = build(op, sample, dt.float64)
    if not node.dtype.is_floating_point:
        assert op.vjp(node, node, i) is None
        return
    rng = np.random.default_rng(1)
    feeds = {n: draw(a, rng) for n, a in zip(inputs, sample.args, strict=True)}
    feeds = {n: v.astype(np.float64) if v.dtype.kind == "f" else v for n, v in feeds.items()}
    g = input_node(node.shape, node.dtype)
    weight = rng.uniform(-1, 1, node.shape)
    try:
        gradient = op.vjp(node, g, i)
    except GradientError:
        return
    axes = tuple(range(len(node.shape)))
    value = total(mul(node, g), axes)
    x = inputs[i]
    got = np.zeros(x.shape) if gradient is None else evaluate([gradient], {**feeds, g: weight})[0]
    assert got.shape == x.shape
    want = np.zeros(x.shape)
    step = 1e-6
    for at in np.ndindex(x.shape):
        ends = []
        for sign in (step, -step):
            moved = feeds[x].copy()
            moved[at] += sign
            ends.append(float(evaluate([value], {**feeds, x: moved, g: weight})[0].sum()))
        want[at] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7)
