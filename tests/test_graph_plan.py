"""Plans against the reference: every op of the table, alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plan_interpreter import run_plan
from test_ops_table import CASES, IDS, draw
from test_ops_table import build as make_sample

from treadle.base import dtype as dt
from treadle.graph.build import build
from treadle.ops import Op
from treadle.ops.reference import evaluate
from treadle.ops.table import Sample

pytestmark = pytest.mark.usefixtures("checked")


def assert_same(got: Any, want: Any) -> None:
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    if want.dtype.kind == "f":
        limit = {2: 4e-3, 4: 2e-5, 8: 1e-9}[want.dtype.itemsize]
        np.testing.assert_allclose(got, want, rtol=limit, atol=limit)
    elif want.dtype == dt.bfloat16.numpy:
        np.testing.assert_allclose(got.astype(float), want.astype(float), rtol=2e-2)
    else:
        np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(("op", "sample"), CASES, ids=IDS)
def test_a_plan_of_one_op_agrees_with_its_reference(op: Op, sample: Sample) -> None:
    node, inputs = make_sample(op, sample)
    rng = np.random.default_rng(3)
    arrays = [draw(a, rng) for a in sample.args]
    (want,) = evaluate([node], dict(zip(inputs, arrays, strict=True)))
    (got,) = run_plan(build([node], inputs), arrays)
    if node.dtype.name == "uint32":
        np.testing.assert_array_equal(got, want)
    else:
        assert_same(got, want)
