"""Graphs print as Python and are read back equal."""

from __future__ import annotations

import pytest
from test_ops_table import CASES, IDS, build

from treadle.base.errors import VerifyError
from treadle.graph.text import read, write
from treadle.ops import Op
from treadle.ops.table import Sample


@pytest.mark.parametrize(("op", "sample"), CASES, ids=IDS)
def test_what_is_written_is_read_back(op: Op, sample: Sample) -> None:
    node, inputs = build(op, sample)
    text = write([node], inputs)
    outputs, arguments = read(text)
    assert [(a.shape, a.dtype) for a in arguments] == [(i.shape, i.dtype) for i in inputs]
    assert write(outputs, arguments) == text


def test_a_wrong_type_is_refused() -> None:
    text = "def graph(\n    a0,  # float32[3]\n):\n    v0 = neg(a0)  # float32[4]\n    return v0"
    with pytest.raises(VerifyError, match=r"line 4 .* float32\[4\], but neg gives float32\[3\]"):
        read(text)
