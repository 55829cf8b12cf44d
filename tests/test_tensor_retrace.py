"""Composites and backward passes on other sizes: what is taken over is what recording gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import treadle
import treadle.nn.functional as f
from treadle.graph.capture import TRIE, Trace
from treadle.graph.structure import structure
from treadle.ops.table import INPUT
from treadle.tensor.record import block, recorder

Call = Callable[[Any], Any]
Shape = tuple[int, ...]


@pytest.fixture(autouse=True)
def fresh() -> None:
    """Nothing is known beforehand."""
    TRIE.forget()


def _recorded(call: Call, shape: Shape, double: bool = True) -> Any:
    """The graph of a call and of its gradient, and the numbers that are its inputs."""
    recorder().trace = Trace()
    treadle.manual_seed(1)
    dtype = np.float64 if double else np.float32
    x = treadle.from_numpy(np.ones(shape, dtype)).requires_grad_()
    out = call(x)
    if out.dtype.is_floating_point and out.requires_grad:
        out.sum().backward()
    trace = recorder().trace
    states = trace.state.path()
    held = [t for t in (out, x.grad) if t is not None]
    inputs = [s.node for s in states if s.node is not None and s.node.op is INPUT]
    found = structure([states[t._pos].node for t in held], inputs)
    numbers = [v for v in trace.leaves if not hasattr(v, "address")]
    types = [(s.node.shape, s.node.dtype, s.inputs, s.needs) for s in states if s.node is not None]
    # Nothing of it is run.
    recorder().trace = Trace()
    return found, numbers, types


def _refused() -> list[str]:
    return [family.refused for family in TRIE.segments.values() if family.refused]


def _taken_over() -> int:
    return sum(len(family._templates) for family in TRIE.segments.values())


def agree(call: Call, shapes: Sequence[Shape], double: bool = True) -> None:
    """Each shape after all those before gives what it gives by itself."""
    anew = []
    for shape in shapes:
        TRIE.forget()
        anew.append(_recorded(call, shape, double))
    TRIE.forget()
    for shape, want in zip(shapes, anew, strict=True):
        assert _recorded(call, shape, double) == want, shape


def _weights(*shape: int) -> Any:
    return treadle.ones(*shape, dtype=treadle.float64)


ROWS = [(8, 6), (5, 6), (9, 6), (6, 6), (2, 6), (1, 6), (30, 6), (7, 6)]
TABLES = [(8, 6), (5, 7), (9, 12), (6, 6), (2, 30), (7, 2), (12, 9), (3, 3)]
TEXTS = [(4, 5, 8), (3, 7, 8), (6, 2, 8), (2, 9, 8), (5, 5, 8), (8, 3, 8), (1, 4, 8)]
PICTURES = [(2, 4, 9, 8), (3, 4, 7, 12), (5, 4, 16, 6), (1, 4, 8, 8), (4, 4, 5, 5), (6, 4, 11, 9)]

CALLS: dict[str, tuple[Call, list[Shape]]] = {
    "linear": (lambda x: f.linear(x, _weights(4, 6), _weights(4)), ROWS),
    "linear of texts": (lambda x: f.linear(x, _weights(4, 8)), TEXTS),
    "mean": (lambda x: x.mean(0), TABLES),
    "variance": (lambda x: x.var(1), TABLES),
    "deviation of all": (lambda x: x.std(), TABLES),
    "log sum": (lambda x: treadle.logsumexp(x, 1), TABLES),
    "softmax": (lambda x: f.softmax(x, -1), TABLES),
    "normalize": (lambda x: f.normalize(x, dim=1), TABLES),
    "largest": (lambda x: x.max(1).values, TABLES),
    "join": (lambda x: treadle.cat([x, x * 2, x[:1]], 0), TABLES),
    "stack": (lambda x: treadle.stack([x, x + 1], 1), TABLES),
    "slices": (lambda x: x[1:, :-1] * x[:-1, 1:], TABLES),
    "gelu": (lambda x: f.gelu(x), TABLES),
    "glu": (lambda x: f.glu(x, 1), [(3, 4), (5, 6), (2, 10), (4, 8), (7, 2)]),
    "product": (lambda x: x @ x.t(), TABLES),
    "fraction": (lambda x: x * (x.shape[0] / 3), TABLES),
    "layer norm": (lambda x: f.layer_norm(x, (8,), _weights(8), _weights(8)), TEXTS),
    "group norm": (lambda x: f.group_norm(x, 2), PICTURES),
    "batch norm": (
        lambda x: f.batch_norm(x, _weights(4), _weights(4), training=True), PICTURES,
    ),
    "convolution": (lambda x: f.conv2d(x, _weights(3, 4, 3, 3), padding=1), PICTURES),
    "stride": (lambda x: f.conv2d(x, _weights(3, 4, 3, 3), stride=2), PICTURES),
    "pool": (lambda x: f.max_pool2d(x, 2), PICTURES),
    "average pool": (lambda x: f.avg_pool2d(x, 3, 2, 1), PICTURES),
    "adaptive pool": (lambda x: f.adaptive_avg_pool2d(x, 3), PICTURES),
    "resize": (lambda x: f.interpolate(x, scale_factor=2, mode="bilinear"), PICTURES),
    "reflection": (lambda x: f.pad(x, (1, 2, 2, 1), "reflect"), PICTURES),
    "windows": (lambda x: f.unfold(x, 3), PICTURES),
    "dropout": (lambda x: f.dropout(x, 0.3), TABLES),
    "attention": (
        lambda x: f.scaled_dot_product_attention(*[x[:, None]] * 3, is_causal=True), TEXTS,
    ),
    "cross entropy": (lambda x: f.cross_entropy(x, treadle.zeros(len(x), dtype=treadle.int64)),
                      ROWS),
    "smooth": (
        lambda x: f.cross_entropy(
            x, treadle.zeros(len(x), dtype=treadle.int64), label_smoothing=0.1, reduction="sum"
        ), ROWS,
    ),
    "squares": (lambda x: f.mse_loss(x, x * 2), TABLES),
    "divergence": (lambda x: f.kl_div(x, x, reduction="batchmean"), TABLES),
    "embedding": (
        lambda x: x[0, 0] * f.embedding(
            treadle.zeros(x.shape, dtype=treadle.int64), _weights(5, 3)
        ), TABLES,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_what_is_taken_over_is_what_recording_gives(name: str) -> None:
    call, shapes = CALLS[name]
    agree(call, shapes)
    assert not _refused()


def test_composites_are_taken_over() -> None:
    agree(*CALLS["layer norm"])
    assert _taken_over()


def test_half_the_elements_are_the_same_to_another_type() -> None:
    for double in (True, False, True):
        agree(lambda x: f.gelu(x), TABLES[:4], double)


# --- composites that decide by sizes ---------------------------------------------------------

KINDS = ("<", "==", "%", "//", "range", "index", "min", "shape", "in", "half", "many")


def _deciding(x: Any, rules: tuple[tuple[str, int, int], ...]) -> Any:
    """A composite whose operations depend on the extents of its input in many ways."""
    out = x
    for kind, d, n in rules:
        size = x.shape[d % 2]
        other = x.shape[(d + 1) % 2]
        if kind == "<":
            out = out + 1 if size < n else out * 2
        elif kind == "==":
            out = out.exp() if size == other else -out
        elif kind == "%":
            out = out * 2 if size % (n % 4 + 1) == 0 else out + (size % (n % 4 + 1))
        elif kind == "//":
            out = out * (size // (n % 5 + 1) + 1)
        elif kind == "range":
            for _ in range(min(size, 3)):
                out = -out
        elif kind == "index":
            out = out + (1.0, 2.0, 3.0)[size % 3]
        elif kind == "min":
            out = out[: min(size, other, n + 1)]
            out = treadle.cat([out, x])
        elif kind == "shape":
            out = out.reshape(-1).sum() + x if x.shape == (n, other) else out
        elif kind == "in":
            out = out.abs() if size in (2, 3, n) else out.tanh()
        elif kind == "half":
            out = out / (size / 2 + n)
        elif kind == "many":
            out = out * len([0] * size)
    return out * 1


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.sampled_from(KINDS), st.integers(0, 1), st.integers(0, 9)),
        min_size=1, max_size=4,
    ),
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=3, max_size=8),
)  # fmt: skip
def test_what_is_decided_by_sizes_is_decided_anew(
    rules: list[tuple[str, int, int]], shapes: list[Shape]
) -> None:
    attrs = (tuple(rules),)
    agree(lambda x: block(_deciding, (x,), attrs), shapes)


# --- what is made later ------------------------------------------------------------------------


def _known() -> None:
    for n in (4, 5, 6):
        x = treadle.ones(n, 6, requires_grad=True)
        f.linear(x, treadle.ones(3, 6)).sum().backward()
        treadle.flush()


def test_values_between_are_made_when_they_are_asked_for() -> None:
    _known()
    x = treadle.ones(9, 6, requires_grad=True)
    y = f.linear(x, treadle.ones(3, 6))
    assert y.shape == (9, 3)
    assert "Mm" in repr(y.grad_fn)
    node = y._node
    assert node.inputs and all(i.shape for i in node.inputs)
    path = y._trace.state.path()
    assert path[y._pos].node is node
    assert [s.pos for s in path] == list(range(len(path)))
    np.testing.assert_array_equal(y.detach().numpy(), np.full((9, 3), 6.0, np.float32))


def test_gradients_of_gradients_go_through_what_was_taken_over() -> None:
    for n in (4, 5, 6, 7):
        x = treadle.from_numpy(np.linspace(-1, 1, n * 3).reshape(n, 3)).requires_grad_()
        y = f.softplus(x).mean()
        (g,) = treadle.autograd.grad(y, x, create_graph=True)
        (h,) = treadle.autograd.grad(g.sum(), x)
        s = 1 / (1 + np.exp(-x.detach().numpy()))
        np.testing.assert_allclose(g.detach().numpy(), s / (3 * n), rtol=1e-9)
        np.testing.assert_allclose(h.numpy(), s * (1 - s) / (3 * n), rtol=1e-9)


def test_a_wrong_shape_is_an_error_on_the_line_of_the_user() -> None:
    _known()
    with pytest.raises(ValueError) as caught:
        f.linear(treadle.ones(9, 5), treadle.ones(3, 6))
    assert any("f.linear(treadle.ones(9, 5)" in note for note in caught.value.__notes__)


def test_compiled_functions_take_over_what_others_recorded() -> None:
    def loss(x: Any) -> Any:
        return f.layer_norm(x, (6,)).exp().mean()

    compiled = treadle.compile(loss)
    for n in (3, 4, 5, 6, 7, 4, 6):
        x = np.linspace(-1, 1, n * 6).reshape(n, 6)
        want = loss(treadle.from_numpy(x)).item()
        assert compiled(treadle.from_numpy(x)).item() == pytest.approx(want, rel=1e-12)
