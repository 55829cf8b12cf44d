"""Row kernels: two rows at once, the row behind asked for, results past the caches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from native_plan import run_natively, to_buffer

from treadle.base import dtype as dt
from treadle.graph import loops
from treadle.graph.build import build
from treadle.ir.loop import Kernel, Prefetch, Store
from treadle.ir.node import Node
from treadle.ir.walk import statements
from treadle.ops.pointwise import add, div, mul, neg
from treadle.ops.reduce import total
from treadle.ops.reference import evaluate
from treadle.ops.table import input_node
from treadle.ops.view import expand
from treadle.runtime.engine import Bound

pytestmark = pytest.mark.usefixtures("checked")


def statements_of(output: Node, inputs: list[Node], donated: frozenset[int]) -> list[Any]:
    kernels = [launch.kernel for launch in build([output], inputs, donated).launches]
    return [s for k in kernels if isinstance(k, Kernel) for s in statements(k.body)]


@pytest.mark.parametrize("rows", [1, 2, 3, 16, 33])
@pytest.mark.parametrize("length", [1, 7, 100, 1025])
def test_sums_of_any_number_of_rows(rows: int, length: int) -> None:
    x = input_node((rows, length), dt.float32)
    array = np.random.default_rng(rows).standard_normal((rows, length)).astype(np.float32)
    (got,) = run_natively([total(x, (1,))], [x], [array])
    want = array.astype(np.float64).sum(1, keepdims=True)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


def test_a_row_has_the_same_bits_wherever_it_is() -> None:
    x = input_node((37, 1000), dt.float32)
    row = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    (got,) = run_natively([total(x, (1,))], [x], [np.tile(row, (37, 1))])
    assert len(set(got.ravel().tolist())) == 1


def test_the_last_of_an_odd_number_of_rows_is_added_once_in_place() -> None:
    x, y = input_node((5, 100), dt.float32), input_node((5, 1), dt.float32)
    ones = np.ones((5, 100), np.float32)
    plan = build([add(y, total(x, (1,)))], [x, y], frozenset([1]))
    assert plan.outputs[0].donated == 1
    buffers = [to_buffer(ones), to_buffer(ones[:, 0])]
    (out,) = Bound(plan, [x, y], ()).run(buffers)
    assert out.view(dt.float32, (5,)).tolist() == [101.0] * 5


def test_what_several_passes_read_is_asked_for_once() -> None:
    x = input_node((64, 256), dt.float32)
    output = div(x, expand(total(x, (1,)), x.shape))
    found = [s for s in statements_of(output, [x], frozenset()) if isinstance(s, Prefetch)]
    assert len(found) == 1


@pytest.mark.parametrize(
    ("rows", "donated", "streams"), [(64, False, False), (65, False, True), (65, True, False)]
)
def test_large_results_go_past_the_caches(
    monkeypatch: pytest.MonkeyPatch, rows: int, donated: bool, streams: bool
) -> None:
    monkeypatch.setattr(loops, "last_level", lambda: loops.FAR * 64 * 256 * 4)
    x = input_node((rows, 256), dt.float32)
    output = neg(x)
    given = frozenset([0]) if donated else frozenset()
    found = [s for s in statements_of(output, [x], given) if isinstance(s, Store)]
    assert [s.streaming for s in found] == [streams]


def normalised(x: Node) -> Node:
    """Rows over their sums of squares."""
    return div(x, expand(total(mul(x, x), (len(x.shape) - 1,)), x.shape))


@pytest.mark.parametrize("shape", [(2049, 256), (8001, 65), (40, 60, 200)])
def test_sums_down_the_rows_share_the_kernel_of_the_rows(shape: tuple[int, ...]) -> None:
    """As gradients of a weight do that rows were multiplied by."""
    x, g = input_node(shape, dt.float32), input_node(shape, dt.float32)
    down = tuple(range(len(shape) - 1))
    y = normalised(x)
    sums = [total(mul(g, y), down), total(g, down)]
    outputs = [add(y, g), *sums, add(x, expand(sums[1], shape))]
    plan = build(outputs, [x, g])
    rng = np.random.default_rng(1)
    arrays = [rng.uniform(1, 2, shape).astype(np.float32) for _ in range(2)]
    want = evaluate(outputs, dict(zip((x, g), [a.astype(np.float64) for a in arrays], strict=True)))
    assert sum("rows" in launch.kernel.name for launch in plan.launches) == 1
    assert len(plan.launches) == 4
    for got, expected in zip(run_natively(outputs, [x, g], arrays), want, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-5)
