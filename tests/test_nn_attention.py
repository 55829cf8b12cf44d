"""Attention as users call it: against NumPy, finite differences and PyTorch, and what it costs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle
import treadle.nn.functional as F
from treadle.base.errors import ShapeError
from treadle.codegen import compile as codegen
from treadle.runtime.buffer import memory_stats, reset_peak
from treadle.runtime.pool import pool


def arrays(*shapes: tuple[int, ...], seed: int = 0, dtype: Any = np.float64) -> list[Any]:
    """Normal numbers."""
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def reference(q: Any, k: Any, v: Any, mask: Any = None, causal: bool = False) -> Any:
    """Attention as its definition says; a query that sees nothing gives zeros."""
    scores = q @ np.swapaxes(k, -2, -1) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=bool), scores, -np.inf)
    peak = scores.max(-1, keepdims=True)
    weights = np.exp(scores - np.where(peak == -np.inf, 0, peak))
    total = weights.sum(-1, keepdims=True)
    return weights / np.where(total == 0, 1, total) @ v


MASKS = {
    "none": lambda rng: None,
    "queries and keys": lambda rng: rng.random((7, 9)) < 0.6,
    "padding": lambda rng: rng.random((2, 1, 1, 9)) < 0.6,
    "one for all keys": lambda rng: rng.random((1, 3, 7, 1)) < 0.6,
    "floats": lambda rng: rng.standard_normal((3, 7, 9)),
    "laid out along queries": lambda rng: rng.standard_normal((2, 3, 9, 7)).swapaxes(2, 3),
    "nothing seen": lambda rng: np.arange(7)[:, None] != np.zeros(9) + 3,
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_masks(name: str, dtype: Any) -> None:
    q, k, v = arrays((2, 3, 7, 4), (2, 3, 9, 4), (2, 3, 9, 5), dtype=dtype)
    mask = MASKS[name](np.random.default_rng(1))
    want = reference(*(x.astype(np.float64) for x in (q, k, v)), mask)
    given_mask = None
    if mask is not None:
        mask = mask if mask.dtype == bool else mask.astype(dtype)
        # A view, so that the kernel meets the layout that it is given.
        given_mask = treadle.from_numpy(np.ascontiguousarray(mask.swapaxes(-1, -2))).mT
        if name != "laid out along queries":
            given_mask = treadle.from_numpy(np.ascontiguousarray(mask))
    got = F.scaled_dot_product_attention(
        *(treadle.from_numpy(x) for x in (q, k, v)), attn_mask=given_mask
    )
    bound = {np.float16: 1e-2, np.float32: 2e-6, np.float64: 1e-14}[dtype]
    np.testing.assert_allclose(got.numpy(), want, atol=bound)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 2, 3)], ids=str)
def test_leading_dimensions(shape: tuple[int, ...]) -> None:
    q, k, v = arrays((*shape, 5, 4), (*shape, 6, 4), (*shape[1:], 6, 3))
    mask = np.random.default_rng(0).random((*shape[:1], *(1 for _ in shape[1:]), 5, 6)) < 0.7
    got = F.scaled_dot_product_attention(*(treadle.from_numpy(x) for x in (q, k, v, mask)))
    np.testing.assert_allclose(got.numpy(), reference(q, k, v, mask), atol=1e-14)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", ["none", "queries and keys", "floats"])
def test_first_and_second_derivatives(mask: str, causal: bool) -> None:
    if causal and mask != "none":
        return
    inputs = [
        treadle.from_numpy(x).requires_grad_()
        for x in arrays((1, 1, 7, 2), (1, 1, 9, 2), (1, 1, 9, 3))
    ]
    limit = MASKS[mask](np.random.default_rng(1))
    if limit is not None:
        limit = limit[:1] if limit.ndim == 3 else limit
        given_mask = treadle.from_numpy(limit)
        inputs.append(given_mask.requires_grad_() if limit.dtype != bool else given_mask)

    def f(*x: Any) -> Any:
        return F.scaled_dot_product_attention(*x, is_causal=causal)

    assert treadle.autograd.gradcheck(f, inputs)
    assert treadle.autograd.gradgradcheck(f, inputs)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 90), st.integers(1, 3), st.integers(1, 20), st.booleans(),
    st.booleans(), st.integers(0, 9),
)  # fmt: skip
def test_against_pytorch(
    queries: int, keys: int, heads: int, size: int, causal: bool, masked: bool, seed: int
) -> None:
    torch = pytest.importorskip("torch")
    data = arrays((2, heads, queries, size), (2, heads, keys, size), (2, heads, keys, size + 1),
                  (2, heads, queries, size + 1), seed=seed, dtype=np.float32)  # fmt: skip
    mask = None
    if masked and not causal:
        mask = np.random.default_rng(seed).random((queries, keys)) < 0.5
    results = []
    for library in (treadle, torch):
        functional = library.nn.functional
        q, k, v, g = (library.from_numpy(x) for x in data)
        given_mask = None if mask is None else library.from_numpy(mask)
        for x in (q, k, v):
            x.requires_grad_()
        out = functional.scaled_dot_product_attention(q, k, v, given_mask, is_causal=causal)
        gradients = library.autograd.grad(out, (q, k, v), g)
        results.append([out.detach().numpy(), *(x.numpy() for x in gradients)])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("read", [False, True])
def test_reading_the_result_before_the_backward_pass(read: bool) -> None:
    q, k, v = (
        treadle.from_numpy(x).requires_grad_() for x in arrays((2, 4, 6), (2, 5, 6), (2, 5, 6))
    )
    loss = (F.scaled_dot_product_attention(q, k, v, is_causal=True) ** 2).sum()
    if read:
        loss.item()
    loss.backward()
    weights = treadle.softmax(
        (q.detach() @ k.detach().mT / math.sqrt(6)).masked_fill(
            ~treadle.ones(4, 5, dtype=treadle.bool).tril(), -math.inf
        ), -1,
    )  # fmt: skip
    out = weights @ v.detach()
    np.testing.assert_allclose(v.grad.numpy(), (weights.mT @ (2 * out)).numpy(), atol=1e-12)


def test_memory_is_linear_in_the_length() -> None:
    peaks = []
    for length in (1024, 2048):
        q = treadle.from_numpy(arrays((1, 1, length, 8), dtype=np.float32)[0]).requires_grad_()
        treadle.flush()
        before = memory_stats()["allocated"]
        reset_peak()
        F.scaled_dot_product_attention(q, q, q).sum().backward()
        peaks.append(memory_stats()["peak"] - before)
    assert peaks[1] <= 2.2 * peaks[0]
    assert peaks[1] < 2048 * 2048


def test_a_growing_cache_compiles_nothing() -> None:
    q = treadle.from_numpy(arrays((1, 2, 1, 8), dtype=np.float32)[0])

    def step(length: int) -> None:
        k, v = (
            treadle.from_numpy(x)
            for x in arrays((1, 2, length, 8), (1, 2, length, 8), dtype=np.float32)
        )
        F.scaled_dot_product_attention(q, k, v).numpy()

    step(5)
    before = codegen.counts.compiled, codegen.counts.loaded
    for length in (6, 7, 40, 300):
        step(length)
    assert (codegen.counts.compiled, codegen.counts.loaded) == before


def test_any_number_of_threads_gives_the_same_bits() -> None:
    data = arrays((1, 2, 200, 16), (1, 2, 300, 16), (1, 2, 300, 16), dtype=np.float32)
    results = []
    before = pool.threads
    try:
        for threads in (1, 2):
            treadle.set_num_threads(threads)
            q, k, v = (treadle.from_numpy(x).requires_grad_() for x in data)
            out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            out.square().sum().backward()
            results.append([x.numpy().tobytes() for x in (out.detach(), q.grad, k.grad, v.grad)])
    finally:
        treadle.set_num_threads(before)
    assert results[0] == results[1]


def test_heads_with_and_without_weights_agree() -> None:
    x = treadle.from_numpy(arrays((6, 2, 8), dtype=np.float32)[0])
    layer = treadle.nn.MultiheadAttention(8, 2, add_bias_kv=True)
    padding = treadle.tensor([[False] * 5 + [True], [False] * 6])
    mask = treadle.ones(6, 6, dtype=treadle.bool).triu(1)
    for options in (
        {},
        {"key_padding_mask": padding},
        {"key_padding_mask": padding, "attn_mask": mask},
    ):
        with_weights, _ = layer(x, x, x, **options)
        without, nothing = layer(x, x, x, need_weights=False, **options)
        assert nothing is None
        np.testing.assert_allclose(
            without.detach().numpy(), with_weights.detach().numpy(), atol=1e-6
        )


def test_shapes_that_do_not_fit() -> None:
    q = treadle.zeros(2, 3, 4)
    with pytest.raises(ShapeError, match="attn_mask"):
        F.scaled_dot_product_attention(q, q, q, attn_mask=treadle.zeros(5, 3))
    with pytest.raises(ShapeError, match="do not fit"):
        F.scaled_dot_product_attention(q, treadle.zeros(2, 3, 5), q)
    with pytest.raises(ShapeError, match="do not broadcast"):
        F.scaled_dot_product_attention(q, treadle.zeros(5, 3, 4), q)
