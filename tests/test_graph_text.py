"""Graphs print as Python and are read back equal."""

from __future__ import annotations

import pytest
from test_ops_table import CASES, IDS, build

from treadle.base import dtype as dt
from treadle.base.errors import VerifyError
from treadle.graph.text import read, write
from treadle.ops import Op
from treadle.ops.body import Loop, body_of
from treadle.ops.pointwise import add, mul
from treadle.ops.recurrence import RECURRENCE
from treadle.ops.table import Sample, input_node


@pytest.mark.parametrize(("op", "sample"), CASES, ids=IDS)
def test_what_is_written_is_read_back(op: Op, sample: Sample) -> None:
    node, inputs = build(op, sample)
    text = write([node], inputs)
    outputs, arguments = read(text)
    assert [(a.shape, a.dtype) for a in arguments] == [(i.shape, i.dtype) for i in inputs]
    assert write(outputs, arguments) == text


def test_steps_within_steps_are_read_back() -> None:
    h, x, w = (input_node((2,), dt.float64) for _ in range(3))
    inner, _ = body_of((h,), (x,), (), (mul(h, x),), (add(h, x),), (h,))
    turn = Loop(RECURRENCE, inner, (h, input_node((3, 2), dt.float64)), 3, True)
    body, _ = body_of((h,), (turn.inputs[1],), (w,), (add(turn.last(0), w),))
    inputs = (h, input_node((4, 3, 2), dt.float64), w)
    text = write([Loop(RECURRENCE, body, inputs, 4, False).last(0)], inputs)
    outputs, arguments = read(text)
    assert write(outputs, arguments) == text
    assert text.count("def step") == 2


def test_a_wrong_type_is_refused() -> None:
    text = "def graph(\n    a0,  # float32[3]\n):\n    v0 = neg(a0)  # float32[4]\n    return v0"
    with pytest.raises(VerifyError, match=r"line 4 .* float32\[4\], but neg gives float32\[3\]"):
        read(text)
