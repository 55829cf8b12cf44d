"""Recurrences: plan, machine code and reference agree; one turn is planned for all lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_plan import run_natively
from plan_interpreter import run_plan

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.codegen.compile import counts
from treadle.graph.build import build
from treadle.graph.plan import Repeat, show
from treadle.ir.node import Node
from treadle.ops.body import Loop, body_of
from treadle.ops.contract import contract
from treadle.ops.order import ARGSORT
from treadle.ops.pointwise import add, cast, mul
from treadle.ops.recurrence import RECURRENCE
from treadle.ops.recurrence_gradient import gradients
from treadle.ops.reduce import total
from treadle.ops.reference import evaluate
from treadle.ops.source import constant
from treadle.ops.table import TABLE, input_node, make
from treadle.ops.view import expand, reshape, slice_


def unary(name: str, x: Node) -> Node:
    return make(TABLE[name], (x,))


def part(x: Node, i: int, n: int) -> Node:
    rows = x.shape[0]
    return slice_(x, (0, i * n), (rows, (i + 1) * n), (1, 1))


def lstm(
    length: int, n: int, hidden: int, dtype: DType = dt.float64, reverse: bool = False
) -> tuple[Loop, list[Node]]:
    """Long short-term memory over mapped inputs `(length, n, 4 hidden)`."""
    h, c = (input_node((n, hidden), dtype) for _ in range(2))
    x = input_node((n, 4 * hidden), dtype)
    w, b = input_node((4 * hidden, hidden), dtype), input_node((4 * hidden,), dtype)
    mapped = add(add(x, contract(h, w, (0, 2), (1, 2), (0, 1))), b)
    i, f, o = (unary("sigmoid", part(mapped, k, hidden)) for k in (0, 1, 3))
    g = unary("tanh", part(mapped, 2, hidden))
    new = add(mul(f, c), mul(i, g))
    body, _ = body_of((h, c), (x,), (w, b), (mul(o, unary("tanh", new)), new))
    inputs = [
        input_node((n, hidden), dtype), input_node((n, hidden), dtype),
        input_node((length, n, 4 * hidden), dtype), input_node((4 * hidden, hidden), dtype),
        input_node((4 * hidden,), dtype),
    ]  # fmt: skip
    return Loop(RECURRENCE, body, tuple(inputs), length, reverse), inputs


def trained(loop: Loop, inputs: list[Node]) -> list[Node]:
    """The outputs, the last state, and the gradients of their sums of squares."""
    h, c = loop.carry(0), loop.carry(1)
    two = constant(2.0, h.dtype)
    grads = gradients((h, c), (mul(h, two), mul(c, two)), set(range(len(inputs))))
    return [loop.after(0), loop.last(0), loop.last(1), *[grads[i] for i in range(len(inputs))]]


def draw(inputs: list[Node], seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 5, i.shape)
        if i.dtype is dt.int64
        else rng.normal(size=i.shape, scale=0.5).astype(i.dtype.numpy)
        for i in inputs
    ]


def check(outputs: list[Node], inputs: list[Node], interpreted: bool = True) -> None:
    arrays = draw(inputs)
    want = evaluate(outputs, dict(zip(inputs, arrays, strict=True)))
    ways = [run_natively(outputs, inputs, arrays)]
    if interpreted:
        ways.append(run_plan(build(outputs, inputs), arrays))
    for got in ways:
        for g, w in zip(got, want, strict=True):
            tight = w.dtype != np.float32
            np.testing.assert_allclose(g, w, 1e-9 if tight else 2e-4, 1e-9 if tight else 2e-4)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("length", "n", "hidden"), [(1, 2, 3), (5, 2, 3), (4, 3, 8)])
def test_plan_and_machine_code_agree_with_the_reference(
    length: int, n: int, hidden: int, reverse: bool
) -> None:
    loop, inputs = lstm(length, n, hidden, reverse=reverse)
    check(trained(loop, inputs), inputs)


def test_panels_of_weights_serve_both_directions() -> None:
    loop, inputs = lstm(7, 33, 64, dt.float32)
    outputs = trained(loop, inputs)
    check(outputs, inputs, interpreted=False)
    plan = build(outputs, inputs)
    assert sum(isinstance(step, Repeat) for step in plan.steps) == 2
    assert "7 times:" in show(plan, sites=True)


def test_other_lengths_compile_nothing() -> None:
    for length in (3, 4):
        loop, inputs = lstm(length, 2, 5)
        run_natively(trained(loop, inputs), inputs, draw(inputs))
        if length == 3:
            before = counts.compiled + counts.loaded
    assert counts.compiled + counts.loaded == before


def test_what_nobody_asks_for_is_not_computed() -> None:
    h, c, x = (input_node((4,), dt.float64) for _ in range(3))
    body, _ = body_of((h, c), (x,), (), (add(h, x), mul(c, x)))
    inputs = [input_node((4,), dt.float64), input_node((4,), dt.float64),
              input_node((6, 4), dt.float64)]  # fmt: skip
    loop = Loop(RECURRENCE, body, tuple(inputs), 6, False)
    plan = build([loop.last(0)], inputs)
    (turns,) = [step for step in plan.steps if isinstance(step, Repeat)]
    assert {step.label for step in turns.steps} == {"add"}
    check([loop.last(0)], inputs)


@pytest.mark.parametrize("length", [1, 2, 5, 6])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_carry_without_history_takes_two_buffers(length: int, reverse: bool) -> None:
    loop, inputs = lstm(length, 2, 32, reverse=reverse)
    long = Loop(RECURRENCE, loop.body, (*inputs[:2], input_node((1000, 2, 128), dt.float64),
                                        *inputs[3:]), 1000, reverse)  # fmt: skip
    assert build([long.last(1)], list(long.inputs)).arena_bytes < 100_000
    h = loop.after(0)
    grads = gradients((loop.last(1),), (loop.last(1),), set(range(5)))
    check([loop.last(1)], inputs)
    check([h, loop.last(1)], inputs)
    check([loop.last(0), loop.last(1), *[grads[i] for i in range(5)]], inputs)


def test_results_that_are_what_a_step_is_given() -> None:
    """Carries that stay, change places, or become a constant or a slice; equal ones."""
    a, b, c, d = (input_node((3,), dt.float64) for _ in range(4))
    x, w = input_node((3,), dt.float64), input_node((3,), dt.float64)
    body, place = body_of((a, b, c, d), (x,), (w,), (b, a, x, w))
    inputs = [*(input_node((3,), dt.float64) for _ in range(4)), input_node((5, 3), dt.float64),
              input_node((3,), dt.float64)]  # fmt: skip
    loop = Loop(RECURRENCE, body, tuple(inputs), 5, False)
    outputs = [loop.last(k) for k in range(4)]
    outputs += [loop.history(place[n]) for n in (a, x, w)] + [loop.carry(0)]
    check(outputs, inputs)
    same, _ = body_of((a, b), (x,), (), (x, x))
    loop = Loop(RECURRENCE, same, (inputs[0], inputs[1], inputs[4]), 5, True)
    check([loop.carry(0), loop.carry(1)], [inputs[0], inputs[1], inputs[4]])


def test_views_along_the_turns_are_read_in_place() -> None:
    h, x = input_node((3,), dt.float64), input_node((3,), dt.float64)
    body, _ = body_of((h,), (x,), (), (add(mul(h, x), x),))
    whole = input_node((9, 2, 3), dt.float64)
    start = input_node((2, 3), dt.float64)
    xs = reshape(slice_(whole, (1, 1, 0), (8, 2, 3), (2, 1, 1)), (4, 3))
    first = reshape(slice_(start, (1, 0), (2, 3), (1, 1)), (3,))
    loop = Loop(RECURRENCE, body, (first, xs), 4, True)
    assert len(build([loop.carry(0)], [start, whole]).steps) == 2
    check([loop.carry(0), loop.after(0)], [start, whole])
    transposed = make(TABLE["permute"], (input_node((3, 4), dt.float64),), ((1, 0),))
    loop = Loop(RECURRENCE, body, (first, transposed), 4, False)
    check([loop.last(0)], [start, transposed.inputs[0]])


def test_computed_inputs_and_results_that_are_used_further() -> None:
    loop, inputs = lstm(5, 2, 3)
    doubled = tuple(add(i, i) for i in inputs)
    again = Loop(RECURRENCE, loop.body, doubled, 5, False)
    summed = total(mul(again.after(0), again.after(1)), (0, 2))
    check([summed, again.last(1)], inputs)


def test_integers_and_casts() -> None:
    n, x = input_node((), dt.int64), input_node((2,), dt.int64)
    sums = add(n, reshape(total(x, (0,)), ()))
    halves = mul(cast(sums, dt.float64), constant(0.5, dt.float64))
    body, place = body_of((n,), (x,), (), (sums,), (halves,))
    inputs = [input_node((), dt.int64), input_node((6, 2), dt.int64)]
    loop = Loop(RECURRENCE, body, tuple(inputs), 6, False)
    check([loop.last(0), loop.history(place[halves])], inputs)


def test_a_host_call_in_a_step() -> None:
    h, x = input_node((4,), dt.float64), input_node((4,), dt.float64)
    ordered = cast(make(ARGSORT, (add(h, x),), (0, False)), dt.float64)
    body, _ = body_of((h,), (x,), (), (ordered,))
    inputs = [input_node((4,), dt.float64), input_node((3, 4), dt.float64)]
    loop = Loop(RECURRENCE, body, tuple(inputs), 3, False)
    check([loop.carry(0)], inputs)


def test_a_recurrence_in_a_step() -> None:
    h, x = input_node((2,), dt.float64), input_node((2,), dt.float64)
    w = input_node((2,), dt.float64)
    inner, _ = body_of((h,), (x,), (w,), (unary("tanh", add(mul(h, w), x)),))
    outer_h, row = input_node((2,), dt.float64), input_node((3, 2), dt.float64)
    turn = Loop(RECURRENCE, inner, (outer_h, row, w), 3, False)
    body, _ = body_of((outer_h,), (row,), (w,), (turn.last(0),))
    inputs = [input_node((2,), dt.float64), input_node((4, 3, 2), dt.float64),
              input_node((2,), dt.float64)]  # fmt: skip
    loop = Loop(RECURRENCE, body, tuple(inputs), 4, True)
    h = loop.carry(0)
    grads = gradients((h,), (h,), {0, 1, 2})
    check([h, *[grads[i] for i in range(3)]], inputs)


def test_gradients_of_constants_are_one_contraction() -> None:
    loop, inputs = lstm(6, 2, 3)
    plan = build([gradients((loop.carry(0),), (loop.carry(0),), {3})[3]], inputs)
    outside = [s.label for s in plan.steps if not isinstance(s, Repeat)]
    assert sum(label.startswith("contract") for label in outside) == 1


def test_a_constant_that_every_turn_scales() -> None:
    """Broadcasts, products without a contraction, and a carry that is only multiplied."""
    h, x, w = (input_node((3,), dt.float64) for _ in range(3))
    wide = reshape(total(mul(expand(reshape(h, (1, 3)), (2, 3)), w), (0,)), (3,))
    body, _ = body_of((h,), (x,), (w,), (add(wide, mul(w, x)),))
    inputs = [input_node((3,), dt.float64), input_node((4, 3), dt.float64),
              input_node((3,), dt.float64)]  # fmt: skip
    loop = Loop(RECURRENCE, body, tuple(inputs), 4, False)
    h = loop.carry(0)
    grads = gradients((h,), (h,), {0, 1, 2})
    check([grads[i] for i in range(3)], inputs)
