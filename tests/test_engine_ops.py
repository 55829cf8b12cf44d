"""Every op of the table, compiled, against its NumPy reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_ops_table import CASES, IDS, build, draw

from treadle.ops import Op
from treadle.ops.reference import evaluate
from treadle.ops.table import Sample
from treadle.runtime.buffer import Buffer
from treadle.runtime.engine import prepare

_TOLERANCE = {"float32": 2e-6, "float64": 1e-13, "float16": 1e-3, "bfloat16": 8e-3}


@pytest.mark.parametrize(("op", "sample"), CASES, ids=IDS)
def test_compiled_equals_reference(op: Op, sample: Sample) -> None:
    node, inputs = build(op, sample)
    rng = np.random.default_rng(7)
    arrays = [np.ascontiguousarray(draw(a, rng)) for a in sample.args]
    (want,) = evaluate([node], dict(zip(inputs, arrays, strict=True)))
    buffers = [Buffer.adopt(a, a.ctypes.data, a.nbytes) for a in arrays]
    (out,) = prepare([node], inputs, frozenset(), []).run(buffers)
    got: Any = out.view(node.dtype, node.shape)
    if node.dtype.is_floating_point:
        tolerance = _TOLERANCE[node.dtype.name]
        wide = [np.asarray(v, np.float64) for v in (got, want)]
        np.testing.assert_allclose(wide[0], wide[1], rtol=tolerance, atol=tolerance)
    else:
        np.testing.assert_array_equal(got, want)
