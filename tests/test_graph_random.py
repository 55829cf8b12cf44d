"""Random graphs over the op table: the plan gives what the reference gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_models import softmax
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from plan_interpreter import run_plan

from treadle.base import dtype as dt
from treadle.graph.build import build
from treadle.graph.text import write
from treadle.ir.node import Node
from treadle.ops.contract import contract, conv
from treadle.ops.pointwise import add, cast, gt, maximum, mul, neg, sub, where
from treadle.ops.reduce import AMAX, MAX_REDUCE, total
from treadle.ops.reference import evaluate
from treadle.ops.source import RANDOM_BITS, constant, iota
from treadle.ops.table import TABLE, input_node, make
from treadle.ops.view import expand, permute, reshape, slice_, unslice, windows

F32 = dt.float32


pytestmark = pytest.mark.usefixtures("checked")


def _half(x: Node) -> Node:
    """Keeps values from growing."""
    return mul(x, constant(0.5, F32))


def _unary(draw: Any, x: Node, nodes: list[Node]) -> Node:
    return make(TABLE[draw(st.sampled_from(["neg", "abs", "tanh", "relu", "sigmoid"]))], (x,))


def _binary(draw: Any, x: Node, nodes: list[Node]) -> Node:
    y = draw(st.sampled_from(nodes))
    try:
        return _half(draw(st.sampled_from([add, sub, maximum]))(x, y))
    except ValueError:
        return add(x, total(y, tuple(range(len(y.shape)))))


def _where(draw: Any, x: Node, nodes: list[Node]) -> Node:
    return where(gt(x, constant(0.1, F32)), x, neg(x))


def _cast(draw: Any, x: Node, nodes: list[Node]) -> Node:
    middle = draw(st.sampled_from([dt.float64, dt.int32, dt.bool_, dt.float16, dt.int64]))
    return cast(cast(x, middle), F32)


def _bits(draw: Any, x: Node, nodes: list[Node]) -> Node:
    key = constant(draw(st.integers(0, 2**40)), dt.int64)
    bits = make(RANDOM_BITS, (key,), (x.shape,))
    return add(x, mul(cast(bits, F32), constant(2.0**-33, F32)))


def _iota(draw: Any, x: Node, nodes: list[Node]) -> Node:
    axis = draw(st.integers(0, len(x.shape) - 1))
    return add(x, mul(iota(x.shape, axis, F32), constant(0.1, F32)))


def _permute(draw: Any, x: Node, nodes: list[Node]) -> Node:
    return permute(x, tuple(draw(st.permutations(range(len(x.shape))))))


def _reshape(draw: Any, x: Node, nodes: list[Node]) -> Node:
    n = int(np.prod(x.shape))
    split = [m for m in (2, 3) if n % m == 0]
    if split and draw(st.booleans()):
        m = draw(st.sampled_from(split))
        return reshape(x, (m, n // m))
    return reshape(x, (n,))


def _expand(draw: Any, x: Node, nodes: list[Node]) -> Node:
    return expand(x, (draw(st.integers(1, 3)), *x.shape))


def _slice(draw: Any, x: Node, nodes: list[Node]) -> Node:
    starts = tuple(draw(st.integers(0, n - 1)) for n in x.shape)
    return slice_(x, starts, x.shape, tuple(draw(st.integers(1, 2)) for _ in x.shape))


def _pad(draw: Any, x: Node, nodes: list[Node]) -> Node:
    starts = tuple(draw(st.integers(0, 2)) for _ in x.shape)
    steps = tuple(draw(st.integers(1, 2)) for _ in x.shape)
    shape = tuple(
        a + (n - 1) * s + 1 + draw(st.integers(0, 1))
        for a, n, s in zip(starts, x.shape, steps, strict=True)
    )
    return unslice(x, shape, starts, steps)


def _flip(draw: Any, x: Node, nodes: list[Node]) -> Node:
    return make(TABLE["flip"], (x,), ((draw(st.integers(0, len(x.shape) - 1)),),))


def _reduce(draw: Any, x: Node, nodes: list[Node]) -> Node:
    axes = tuple(d for d in range(len(x.shape)) if draw(st.booleans()))
    if draw(st.booleans()):
        return make(AMAX, (x,), (axes,))
    return mul(total(x, axes), constant(0.3, F32))


def _softmax(draw: Any, x: Node, nodes: list[Node]) -> Node:
    return softmax(x)


def _contract(draw: Any, x: Node, nodes: list[Node]) -> Node | None:
    if len(x.shape) == 3:
        return mul(contract(x, x, (0, 1, 3), (0, 2, 3), (0, 1, 2)), constant(0.2, F32))
    if len(x.shape) != 2:
        return None
    y = draw(st.sampled_from([n for n in nodes if len(n.shape) == 2]))
    i, j = draw(st.integers(0, 1)), draw(st.integers(0, 1))
    if x.shape[i] != y.shape[j]:
        return None
    left, right = ((0, 2), (2, 0))[1 - i], ((1, 2), (2, 1))[1 - j]
    out = draw(st.sampled_from([(0, 1), (1, 0)]))
    return mul(contract(x, y, left, right, out), constant(0.2, F32))


def _window(draw: Any, x: Node, nodes: list[Node]) -> Node | None:
    last = len(x.shape) - 1
    if x.shape[last] < 2:
        return None
    wide = windows(x, (last,), (2,), (draw(st.integers(1, 2)),), (1,))
    top = make(MAX_REDUCE, (wide,), ((last + 1,),))
    return reshape(top, top.shape[:-1])


def _conv(draw: Any, x: Node, nodes: list[Node]) -> Node | None:
    if len(x.shape) != 3 or x.shape[2] < 2:
        return None
    n, c, _ = x.shape
    w = reshape(slice_(x, (0, 0, 0), (1, c, 2), (1, 1, 1)), (1, 1, c, 2))
    pads = ((draw(st.integers(-1, 1)), draw(st.integers(0, 1))),)
    steps, dilations = (draw(st.integers(1, 2)),), (draw(st.integers(1, 2)),)
    try:
        y = conv(reshape(x, (n, 1, *x.shape[1:])), w, steps, pads, (1,), dilations)
    except ValueError:  # the window is longer than what the crop has left
        return None
    return _half(reshape(y, (n, 1, y.shape[3])))


def _take(draw: Any, x: Node, nodes: list[Node]) -> Node:
    axis = draw(st.integers(0, len(x.shape) - 1))
    n = constant(x.shape[axis], dt.int64)
    at = make(TABLE["mod"], (mul(iota((3,), 0), constant(5, dt.int64)), n))
    return make(TABLE["take"], (x, at), (axis,))


def _scatter(draw: Any, x: Node, nodes: list[Node]) -> Node:
    at = make(TABLE["mod"], (iota((x.shape[0],), 0), constant(2, dt.int64)))
    return make(TABLE["scatter_add"], (x, at), (0, 3))


ANY_RANK = [_unary, _binary, _binary, _where, _cast, _bits, _expand, _reshape]
WITH_DIMENSIONS = [
    _iota, _permute, _slice, _pad, _flip, _reduce, _reduce, _softmax, _contract, _contract,
    _window, _conv, _take, _scatter,
]  # fmt: skip


def _grow(draw: Any, nodes: list[Node]) -> Node | None:
    """A node on some of the nodes there are."""
    x = draw(st.sampled_from(nodes))
    kinds = ANY_RANK + WITH_DIMENSIONS if x.shape else ANY_RANK
    return draw(st.sampled_from(kinds))(draw, x, nodes)


@st.composite
def graphs(draw: Any) -> tuple[list[Node], list[Node], frozenset[int]]:
    """Inputs, outputs and donated inputs of a random graph."""
    shapes = draw(st.lists(st.sampled_from([(3, 4), (4, 4), (4,), (2, 3, 4), (3, 1), ()]),
                           min_size=1, max_size=3))  # fmt: skip
    inputs = [input_node(s, F32) for s in shapes]
    nodes = list(inputs)
    for _ in range(draw(st.integers(1, 14))):
        new = _grow(draw, nodes)
        if new is not None and np.prod(new.shape) <= 400 and len(new.shape) <= 4:
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
