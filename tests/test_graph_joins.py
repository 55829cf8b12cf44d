"""Sums of slices become joins, and the parts of a join are written straight into it."""

from __future__ import annotations

import numpy as np
import pytest
from test_graph_recurrence import check

import treadle
from treadle.base import dtype as dt
from treadle.graph.build import build, run_passes
from treadle.ir.node import Node, topological
from treadle.ops.contract import contract
from treadle.ops.gather import JOIN
from treadle.ops.pointwise import add, mul
from treadle.ops.table import TABLE, input_node, make
from treadle.ops.view import ALIAS, permute, reshape, unslice

F64 = dt.float64


def node(*shape: int) -> Node:
    return input_node(shape, F64)


def placed(x: Node, extent: int, start: int, axis: int = 1) -> Node:
    shape = tuple(extent if d == axis else n for d, n in enumerate(x.shape))
    starts = tuple(start if d == axis else 0 for d in range(len(shape)))
    return unslice(x, shape, starts, (1,) * len(shape))


def joins(root: Node) -> list[Node]:
    return [n for n in topological(run_passes([root])) if n.op is JOIN]


def test_a_sum_of_slices_is_one_join() -> None:
    a, b, c = node(3, 2), node(3, 4), node(3, 1)
    total = add(add(placed(b, 7, 2), placed(a, 7, 0)), placed(c, 7, 6))
    (join,) = joins(total)
    assert join.inputs == (a, b, c)
    check([total], [a, b, c])


def test_halves_of_halves_are_one_join() -> None:
    parts = [node(2, 1) for _ in range(4)]
    halves = [add(placed(parts[i], 2, 0), placed(parts[i + 1], 2, 1)) for i in (0, 2)]
    total = add(placed(halves[0], 4, 0), placed(halves[1], 4, 2))
    (join,) = joins(total)
    assert list(join.inputs) == parts
    check([total], parts)


def test_one_other_term_is_added_to_the_join() -> None:
    a, b, x = node(3, 2), node(3, 2), node(3, 4)
    total = add(add(placed(a, 4, 0), x), placed(b, 4, 2))
    assert len(joins(total)) == 1
    check([total], [a, b, x])


@pytest.mark.parametrize("kind", ["gap", "overlap", "two axes", "used elsewhere"])
def test_other_sums_stay(kind: str) -> None:
    a, b = node(3, 2), node(3, 2)
    if kind == "gap":
        total = add(placed(a, 5, 0), placed(b, 5, 2))
    elif kind == "overlap":
        total = add(placed(a, 3, 0), placed(b, 3, 1))
    elif kind == "two axes":
        total = add(placed(a, 4, 0), placed(placed(b, 4, 2), 3, 0, 0))
        a2 = placed(placed(a, 4, 0), 4, 0, 0)
        total = add(a2, placed(placed(b, 4, 2), 4, 1, 0))
    else:
        part = add(placed(a, 6, 0), placed(b, 6, 2))
        total = mul(add(part, placed(a, 6, 4)), part)
    assert not joins(total)
    check([total], [a, b])


def test_a_stored_join_has_no_kernel_of_its_own() -> None:
    a, b, w = node(6, 8), node(6, 8), node(16, 5)
    wide = make(JOIN, (make(TABLE["tanh"], (a,)), mul(a, b)), (1,))
    out = contract(wide, w, (0, 1), (1, 2), (0, 2))
    assert len(build([out], [a, b, w]).steps) == 2
    check([out, wide], [a, b, w])


def test_views_of_parts_and_contractions_are_written_in_place() -> None:
    a, b, w = node(4, 6), node(6, 4), node(10, 3)
    left = reshape(permute(mul(a, a), (1, 0)), (6, 4))
    right = contract(b, a, (0, 1), (1, 2), (0, 2))
    wide = make(JOIN, (left, right), (1,))
    out = contract(wide, w, (0, 1), (1, 2), (0, 2))
    check([out], [a, b, w])


def test_parts_that_are_inputs_or_equal_or_results() -> None:
    a, b, w = node(4, 3), node(4, 3), node(6, 2)
    double = add(a, a)
    for parts in ((a, b), (double, double), (double, b), (double, mul(a, b))):
        wide = make(JOIN, parts, (1,))
        out = contract(wide, w, (0, 1), (1, 2), (0, 2))
        check([out, wide, double], [a, b, w])


def test_gradients_of_loops_that_users_write() -> None:
    x = treadle.from_numpy(np.random.default_rng(0).normal(size=(6, 4))).requires_grad_()
    rows = [x[t] * (t + 1) for t in range(6)]
    h = rows[0]
    for row in rows[1:]:
        h = (h * row).tanh()
    h.sum().backward()
    plan = treadle.show(x.grad, "graph")
    assert plan.count("join") <= 1
    values = x.detach().numpy() * np.arange(1, 7)[:, None]
    states = [values[0]]
    for row in values[1:]:
        states.append(np.tanh(states[-1] * row))
    grad, g = np.zeros((6, 4)), np.ones(4)
    for t in range(5, 0, -1):
        g = g * (1 - states[t] ** 2)
        grad[t] = g * states[t - 1] * (t + 1)
        g = g * values[t]
    grad[0] = g
    np.testing.assert_allclose(x.grad.numpy(), grad, 1e-10)


def test_a_reader_of_a_join_waits_for_all_of_its_parts() -> None:
    """A copy of a join that is stored as well is not made by the kernel that writes its parts."""
    a, b, w = node(1), node(1), node(2)
    total = make(TABLE["sum"], (mul(w, w),), ((0,),))
    whole = add(placed(mul(a, total), 2, 1, 0), placed(mul(a, b), 2, 0, 0))
    check([whole, make(ALIAS, (whole,)), total], [a, b, w])
