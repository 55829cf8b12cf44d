"""Parts put in the place of others, against NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle as t
from treadle.autograd import gradcheck

A = np.arange(12.0).reshape(3, 4)


def test_scatters_of_parts() -> None:
    a = t.tensor(A)
    wish = A.copy()
    wish[:, 2] = -1
    assert t.select_scatter(a, -t.ones(3, dtype=t.float64), 1, 2).tolist() == wish.tolist()
    wish = A.copy()
    wish[:, 1:4:2] = -1
    assert a.slice_scatter(-t.ones(3, 2, dtype=t.float64), 1, 1, 4, 2).tolist() == wish.tolist()
    wish = A.copy()
    wish[[0, 1, 2], [1, 2, 3]] = -1
    assert a.diagonal_scatter(-t.ones(3, dtype=t.float64), 1).tolist() == wish.tolist()
    assert a.tolist() == A.tolist()
    with pytest.raises(RuntimeError, match="diagonal_scatter"):
        t.diagonal_scatter(a, t.ones(2, dtype=t.float64))


def test_scatters_of_parts_have_gradients() -> None:
    a = t.tensor(A, requires_grad=True)
    b = t.tensor(A[:, :2], requires_grad=True)
    assert gradcheck(lambda a, b: t.slice_scatter(a, b, 1, 1, 3), [a, b])
    assert gradcheck(lambda a, b: t.select_scatter(a, b[:, 0], 1, 3), [a, b])


@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("reduce", ["prod", "mean", "amax", "amin"])
def test_index_reduce(reduce: str, own: bool) -> None:
    rng = np.random.default_rng(0)
    x, source, index = rng.normal(size=(4, 3)), rng.normal(size=(5, 3)), np.array([0, 2, 2, 0, 2])
    wish = x.copy()
    for i in (0, 2):
        rows = source[index == i]
        parts = np.concatenate([x[i : i + 1], rows]) if own else rows
        way: Any = {"prod": np.prod, "mean": np.mean, "amax": np.max, "amin": np.min}[reduce]
        wish[i] = way(parts, 0)
    out = t.index_reduce(t.tensor(x), 0, t.tensor(index), t.tensor(source), reduce,
                         include_self=own)  # fmt: skip
    np.testing.assert_allclose(out.numpy(), wish, rtol=1e-12)


def test_put_and_positions() -> None:
    out = t.put(t.tensor(A), t.tensor([1, 11, 1]), t.tensor([5.0, 6.0, 7.0], dtype=t.float64), True)
    wish = A.copy().reshape(-1)
    np.add.at(wish, [1, 11, 1], [5.0, 6.0, 7.0])
    assert out.reshape(-1).tolist() == wish.tolist()
    where = t.unravel_index(t.tensor([0, 7, 11]), (3, 4))
    assert [w.tolist() for w in where] == [w.tolist() for w in np.unravel_index([0, 7, 11], (3, 4))]


def test_renorm() -> None:
    out = t.renorm(t.tensor(A), 2, 0, 5.0).numpy()
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), [np.sqrt(14), 5, 5], rtol=1e-6)


def test_sum_to_size() -> None:
    assert t.tensor(A).sum_to_size(1, 4).tolist() == A.sum(0, keepdims=True).tolist()
    assert t.tensor(A).sum_to_size(4).tolist() == A.sum(0).tolist()
    with pytest.raises(RuntimeError, match="not expandable"):
        t.tensor(A).sum_to_size(2)


@pytest.mark.parametrize("edge", [1, 2])
def test_gradient(edge: int) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 5))
    along = np.array([0.0, 0.5, 2.0, 2.25, 4.0])
    for ours, theirs in ((1, 1), (0.5, 0.5), ((2.0, 0.25), (2.0, 0.25))):
        gaps = theirs if isinstance(theirs, tuple) else (theirs,)
        out = t.gradient(t.tensor(x), spacing=ours, edge_order=edge)
        for a, b in zip(out, np.gradient(x, *gaps, edge_order=edge), strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=1e-10, atol=1e-12)
    (out,) = t.gradient(t.tensor(x), spacing=[t.tensor(along)], dim=1, edge_order=edge)
    np.testing.assert_allclose(
        out.numpy(), np.gradient(x, along, axis=1, edge_order=edge), rtol=1e-10, atol=1e-12
    )


def test_small_ones() -> None:
    assert t.scalar_tensor(2).dtype is t.float32
    assert t.frombuffer(bytearray(b"\x01\x02\x03"), dtype=t.uint8, offset=1).tolist() == [2, 3]
    assert t.is_nonzero(t.tensor([3])) and not t.is_nonzero(t.tensor(0.0))
    assert [x.tolist() for x in t.split_with_sizes(t.arange(4), [1, 3])] == [[0], [1, 2, 3]]
    low = np.linalg.cholesky(A @ A.T + np.eye(3))
    np.testing.assert_allclose(
        t.cholesky_inverse(t.tensor(low)).numpy(), np.linalg.inv(low @ low.T), rtol=1e-8, atol=1e-10
    )
    assert t.conv1d(t.ones(1, 1, 3), t.ones(1, 1, 2)).tolist() == [[[2.0, 2.0]]]


def test_svd_gives_columns() -> None:
    """`treadle.svd` and the method give V, `linalg.svd` its transpose."""
    for u, s, v in (t.svd(t.tensor(A)), t.tensor(A).svd()):
        np.testing.assert_allclose((u @ t.diag(s) @ v.mT).numpy(), A, rtol=1e-9, atol=1e-9)


def test_switches_that_stand_in_one_position() -> None:
    t.set_float32_matmul_precision("high")
    t.use_deterministic_algorithms(True)
    t.set_default_device("cpu")
    assert t.get_float32_matmul_precision() == "highest"
    assert t.are_deterministic_algorithms_enabled()
    assert t.get_default_device() == t.device("cpu")
    assert t.typename(3) == "int"
    with pytest.raises(ValueError, match="precision"):
        t.set_float32_matmul_precision("low")
