"""Random graphs over the op table: the plan gives what the reference gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from plan_interpreter import run_plan

from treadle.base import dtype as dt
from treadle.base.settings import settings as treadle_settings
from treadle.graph.build import build
from treadle.graph.text import write
from treadle.ir.node import Node
from treadle.ops.contract import contract, conv
from treadle.ops.pointwise import add, cast, exp, gt, maximum, mul, neg, sub, where
from treadle.ops.reduce import AMAX, MAX_REDUCE, total
from treadle.ops.reference import evaluate
from treadle.ops.source import RANDOM_BITS, constant, iota
from treadle.ops.table import TABLE, input_node, make
from treadle.ops.view import expand, permute, reshape, slice_, unslice, windows

F32 = dt.float32


@pytest.fixture(autouse=True)
def checked() -> Iterator[None]:
    """Every pass is verified."""
    before, treadle_settings.check = treadle_settings.check, True
    yield
    treadle_settings.check = before


def _half(x: Node) -> Node:
    """Keeps values from growing."""
    return mul(x, constant(0.5, F32))


def _grow(draw: Any, nodes: list[Node]) -> Node:
    """A node on some of the nodes there are."""
    x = draw(st.sampled_from(nodes))
    kind = draw(
        st.sampled_from(
            ["unary", "binary", "binary", "permute", "reshape", "expand", "slice", "pad", "flip",
             "sum", "max", "contract", "window", "where", "softmax",
             "mean", "bits", "iota", "cast", "take", "scatter", "conv",
             "batched"]
        )
    )  # fmt: skip
    rank = len(x.shape)
    if kind == "unary":
        op = draw(st.sampled_from(["neg", "abs", "tanh", "relu", "sigmoid"]))
        return make(TABLE[op], (x,))
    if kind == "binary":
        y = draw(st.sampled_from(nodes))
        try:
            return _half(draw(st.sampled_from([add, sub, maximum]))(x, y))
        except ValueError:
            return add(x, total(y, tuple(range(len(y.shape))))) if y.shape else add(x, y)
    if kind == "permute" and rank > 1:
        return permute(x, tuple(draw(st.permutations(range(rank)))))
    if kind == "reshape" and rank:
        flat = reshape(x, (int(np.prod(x.shape)),))
        for n in (2, 3):
            if flat.shape[0] % n == 0 and draw(st.booleans()):
                return reshape(flat, (n, flat.shape[0] // n))
        return flat
    if kind == "expand" and rank < 4:
        return expand(x, (draw(st.integers(1, 3)), *x.shape))
    if kind == "slice" and rank:
        starts = tuple(draw(st.integers(0, n - 1)) for n in x.shape)
        return slice_(x, starts, x.shape, tuple(draw(st.integers(1, 2)) for _ in x.shape))
    if kind == "pad" and rank:
        starts = tuple(draw(st.integers(0, 2)) for _ in x.shape)
        steps = tuple(draw(st.integers(1, 2)) for _ in x.shape)
        shape = tuple(
            a + (n - 1) * s + 1 + draw(st.integers(0, 1))
            for a, n, s in zip(starts, x.shape, steps, strict=True)
        )
        return unslice(x, shape, starts, steps)
    if kind == "flip" and rank:
        return make(TABLE["flip"], (x,), ((draw(st.integers(0, rank - 1)),),))
    axes = tuple(d for d in range(rank) if draw(st.booleans()))
    if kind in ("sum", "mean") and axes:
        return mul(total(x, axes), constant(0.3, F32))
    if kind == "max" and axes:
        return make(AMAX, (x,), (axes,))
    if kind == "softmax" and rank:
        e = exp(sub(x, make(AMAX, (x,), ((rank - 1,),))))
        return make(TABLE["div"], (e, total(e, (rank - 1,))))
    if kind == "contract" and rank == 2:
        y = draw(st.sampled_from([n for n in nodes if len(n.shape) == 2]))
        i, j = draw(st.integers(0, 1)), draw(st.integers(0, 1))
        if x.shape[i] == y.shape[j]:
            left = (2, 0) if i == 0 else (0, 2)
            right = (2, 1) if j == 0 else (1, 2)
            out = draw(st.sampled_from([(0, 1), (1, 0)]))
            return mul(contract(x, y, left, right, out), constant(0.2, F32))
    if kind == "window" and rank and x.shape[-1] >= 2:
        step = draw(st.integers(1, 2))
        wide = windows(x, (rank - 1,), (2,), (step,), (1,))
        top = make(MAX_REDUCE, (wide,), ((rank,),))
        return reshape(top, top.shape[:-1])
    if kind == "where" and rank:
        hit = gt(x, constant(0.1, F32))
        return where(hit, x, neg(x))
    if kind == "bits":
        key = constant(draw(st.integers(0, 2**40)), dt.int64)
        bits = make(RANDOM_BITS, (key,), (x.shape,))
        return add(x, mul(cast(bits, F32), constant(2.0**-33, F32)))
    if kind == "cast":
        middle = draw(st.sampled_from([dt.float64, dt.int32, dt.bool_, dt.float16, dt.int64]))
        return cast(cast(x, middle), F32)
    if kind == "take" and rank:
        axis = draw(st.integers(0, rank - 1))
        n = x.shape[axis]
        at = make(TABLE["mod"], (mul(iota((3,), 0), constant(5, dt.int64)), constant(n, dt.int64)))
        return make(TABLE["take"], (x, at), (axis,))
    if kind == "scatter" and rank:
        at = make(TABLE["mod"], (iota((x.shape[0],), 0), constant(2, dt.int64)))
        return make(TABLE["scatter_add"], (x, at), (0, 3))
    if kind == "conv" and rank == 3 and x.shape[2] >= 2:
        grouped = reshape(x, (x.shape[0], 1, *x.shape[1:]))
        w = reshape(slice_(x, (0, 0, 0), (1, x.shape[1], 2), (1, 1, 1)), (1, 1, x.shape[1], 2))
        pads = ((draw(st.integers(-1, 1)), draw(st.integers(0, 1))),)
        y = conv(grouped, w, (draw(st.integers(1, 2)),), pads, (1,), (draw(st.integers(1, 2)),))
        return _half(reshape(y, (y.shape[0], 1, y.shape[3])))
    if kind == "batched" and rank == 3:
        return mul(contract(x, x, (0, 1, 3), (0, 2, 3), (0, 1, 2)), constant(0.2, F32))
    if kind == "iota" and rank:
        return add(x, mul(iota(x.shape, draw(st.integers(0, rank - 1)), F32), constant(0.1, F32)))
    return _half(x)


@st.composite
def graphs(draw: Any) -> tuple[list[Node], list[Node], frozenset[int]]:
    """Inputs, outputs and donated inputs of a random graph."""
    shapes = draw(st.lists(st.sampled_from([(3, 4), (4, 4), (4,), (2, 3, 4), (3, 1), ()]),
                           min_size=1, max_size=3))  # fmt: skip
    inputs = [input_node(s, F32) for s in shapes]
    nodes = list(inputs)
    for _ in range(draw(st.integers(1, 14))):
        new = _grow(draw, nodes)
        if np.prod(new.shape) <= 400 and len(new.shape) <= 4:
            nodes.append(new)
    outputs = [nodes[-1], *draw(st.lists(st.sampled_from(nodes), max_size=3))]
    donated = frozenset(draw(st.sets(st.integers(0, len(inputs) - 1))))
    return outputs, inputs, donated


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(graphs(), st.integers(0, 100))
def test_random_graphs_agree_with_the_reference(
    graph: tuple[list[Node], list[Node], frozenset[int]], seed: int
) -> None:
    outputs, inputs, donated = graph
    note(write(outputs, inputs))
    rng = np.random.default_rng(seed)
    arrays = [rng.uniform(-1, 1, i.shape).astype(np.float32) for i in inputs]
    want = evaluate(outputs, dict(zip(inputs, arrays, strict=True)))
    got = run_plan(build(outputs, inputs, donated), [a.copy() for a in arrays])
    for g, w in zip(got, want, strict=True):
        np.testing.assert_allclose(g, w, rtol=1e-4, atol=1e-5)
