"""Whole training steps: plan against reference, in place updates, few launches, one pattern."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from graph_models import (
    F32,
    Step,
    arrays_for,
    attention_step,
    conv_step,
    mlp_step,
    relu,
    softmax,
)
from plan_interpreter import run_plan

from treadle.base import dtype as dt
from treadle.base.site import describe
from treadle.graph.build import build
from treadle.graph.structure import structure
from treadle.ir.key import pattern_key
from treadle.ops.contract import contract
from treadle.ops.pointwise import add, mul, neg
from treadle.ops.reduce import total
from treadle.ops.reference import evaluate
from treadle.ops.source import constant, full
from treadle.ops.table import TABLE, input_node, make
from treadle.ops.view import permute, reshape, slice_, unslice

pytestmark = pytest.mark.usefixtures("checked")


SMALL = {
    "mlp": lambda: mlp_step(6, 8, 5, 7),
    "conv": lambda: conv_step(3, 10, (4, 8), 6, 5),
    "padded conv": lambda: conv_step(2, 7, (4, 3), 6, 5, 1),
    "attention": lambda: attention_step(2, 2, 5, 8),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_training_step_agrees_with_the_reference(name: str) -> None:
    step: Step = SMALL[name]()
    arrays = arrays_for(step, classes=5)
    want = evaluate(step.outputs, dict(zip(step.inputs, arrays, strict=True)))
    plan = build(step.outputs, step.inputs, step.donated)
    for g, w in zip(run_plan(plan, [np.array(a) for a in arrays]), want, strict=True):
        np.testing.assert_allclose(g, w, rtol=3e-4, atol=3e-5)


def texts(step: Step) -> list[str]:
    plan = build(step.outputs, step.inputs, step.donated)
    return [pattern_key(launch.kernel) for launch in plan.launches]


@pytest.mark.parametrize("step", [mlp_step, conv_step])
def test_machine_code_does_not_depend_on_the_batch(step: Any) -> None:
    text = texts(step(64))
    assert texts(step(32)) == text
    assert texts(step(7)) == text


def test_parameters_are_updated_in_place() -> None:
    step = mlp_step(64)
    plan = build(step.outputs, step.inputs, step.donated)
    assert len(plan.steps) <= 12
    # The inputs are x, y, four parameters, four momenta; the outputs the loss, then pairs of them.
    assert [o.donated for o in plan.outputs] == [None, 2, 6, 3, 7, 4, 8, 5, 9]


def test_equal_graphs_have_equal_keys() -> None:
    a, b, c = mlp_step(8), mlp_step(8), mlp_step(7)
    assert structure(a.outputs, a.inputs, a.donated) == structure(b.outputs, b.inputs, b.donated)
    assert structure(a.outputs, a.inputs) != structure(c.outputs, c.inputs)
    assert structure(a.outputs, a.inputs) != structure(a.outputs[:-1], a.inputs)


def test_outputs_that_are_inputs_or_other_outputs_share_their_memory() -> None:
    x = input_node((2, 6), F32)
    y = relu(x)
    plan = build([x, y, reshape(y, (3, 4)), reshape(x, (12,)), y], [x])
    assert [o.source for o in plan.outputs] == [
        ("input", 0), None, ("output", 1), ("input", 0), ("output", 1)
    ]  # fmt: skip
    assert len(plan.steps) == 1


def test_a_donated_input_is_not_overwritten_before_its_last_reader() -> None:
    x = input_node((4, 4), F32)
    outputs = [add(x, x), permute(x, (1, 0))]
    array = np.arange(16, dtype=np.float32).reshape(4, 4)
    plan = build(outputs, [x], frozenset({0}))
    got = run_plan(plan, [array.copy()])
    np.testing.assert_array_equal(got[0], 2 * array)
    np.testing.assert_array_equal(got[1], array.T)


def test_a_long_chain_neither_recurses_nor_nests() -> None:
    x = y = input_node((3,), F32)
    for _ in range(3000):
        y = add(y, x)
    plan = build([y], [x])
    assert len(plan.steps) <= 4
    assert "vector" in pattern_key(plan.launches[0].kernel)


def test_results_of_empty_inputs() -> None:
    x, w = input_node((0, 4), F32), input_node((3, 4), F32)
    outputs = [
        total(x, (0,)),
        total(x, (1,)),
        contract(x, w, (0, 2), (1, 2), (0, 1)),
        contract(x, x, (2, 0), (2, 1), (0, 1)),
        unslice(x, (2, 4), (1, 0), (1, 1)),
        add(x, x),
    ]
    arrays = [np.zeros((0, 4), np.float32), np.ones((3, 4), np.float32)]
    want = evaluate(outputs, dict(zip([x, w], arrays, strict=True)))
    for g, v in zip(run_plan(build(outputs, [x, w]), arrays), want, strict=True):
        np.testing.assert_array_equal(g, v)


def test_overlapping_stencils_are_not_recomputed_over_and_over() -> None:
    x = y = input_node((64,), F32)
    for _ in range(30):
        n = y.shape[0]
        y = add(slice_(y, (1,), (n,), (1,)), slice_(y, (0,), (n - 1,), (1,)))
    array = np.random.default_rng(0).normal(size=64).astype(np.float32)
    (want,) = evaluate([y], {x: array})
    (got,) = run_plan(build([y], [x]), [array])
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_a_softmax_of_a_constant() -> None:
    (got,) = run_plan(build([softmax(full((3, 4), 2.5, F32))], []), [])
    np.testing.assert_allclose(got, np.full((3, 4), 0.25, np.float32))


def test_a_value_named_in_one_pass_is_named_anew_in_the_next() -> None:
    x = input_node((4,), F32)
    half = mul(x, constant(0.5, F32))
    outputs = [softmax(neg(half)), half, neg(x)]
    array = np.random.default_rng(0).normal(size=4).astype(np.float32)
    for g, w in zip(run_plan(build(outputs, [x]), [array]), evaluate(outputs, {x: array}),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(g, w, rtol=1e-6)


def test_faults_name_the_message_and_the_line() -> None:
    x, at, ok = input_node((5, 3), F32), input_node((4,), dt.int64), input_node((4, 3), dt.bool_)
    taken = make(TABLE["take"], (x, at), (0,))
    checked = make(TABLE["check"], (taken, ok), ("label out of range",))
    (launch,) = build([checked], [x, at, ok]).launches
    messages = sorted(message for message, _ in launch.faults)
    assert messages == ["index out of range for a dimension of size 5", "label out of range"]
    assert all("test_graph_models.py" in describe(site) for _, site in launch.faults)


def test_rows_of_a_table_are_looked_up_once_for_a_residual_stream() -> None:
    table, index = input_node((5, 8), dt.float32), input_node((6,), dt.int64)
    weights = [input_node((8, 8), dt.float32) for _ in range(2)]
    x = make(TABLE["take"], (table, index), (0,))
    x = mul(x, constant(3.0, dt.float32))
    for w in weights:
        scaled = mul(x, total(mul(x, x), (1,)))
        x = add(x, contract(scaled, w, (0, 2), (2, 1), (0, 1)))
    inputs = [table, index, *weights]
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(n.shape).astype(np.float32) for n in inputs]
    arrays[1] = np.array([4, 0, 3, 3, 1, 2])
    plan = build([x], inputs)
    assert sum("take" in launch.label for launch in plan.launches) == 1
    (want,) = evaluate([x], dict(zip(inputs, arrays, strict=True)))
    np.testing.assert_allclose(run_plan(plan, arrays)[0], want, rtol=1e-5, atol=1e-5)
