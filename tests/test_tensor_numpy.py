"""Properties of tensors against NumPy, on drawn shapes and values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import treadle

SMALL = st.floats(-4, 4, width=32).map(lambda v: round(v, 3))
SHAPES = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)
ARRAYS = SHAPES.flatmap(lambda s: hnp.arrays(np.float64, s, elements=SMALL))


def same(t: Any, array: Any) -> None:
    got = t.detach().numpy()
    assert got.shape == np.shape(array)
    np.testing.assert_allclose(got, array, rtol=1e-10, atol=1e-12)


@settings(max_examples=60, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=4), st.data())
def test_broadcasting_and_its_gradients(shapes: Any, data: Any) -> None:
    x, y = (data.draw(hnp.arrays(np.float64, s, elements=SMALL)) for s in shapes.input_shapes)
    a, b = (treadle.from_numpy(v.copy()).requires_grad_() for v in (x, y))
    out = a * b + a - 2 * b
    same(out, x * y + x - 2 * y)
    weight = np.cos(np.arange(out.numel())).reshape(out.shape)
    (out * treadle.from_numpy(weight)).sum().backward()
    for leaf, grown in ((a, weight * (y + 1)), (b, weight * (x - 2))):
        grown = np.broadcast_to(grown, out.shape)
        extra = grown.ndim - leaf.ndim
        axes = tuple(range(extra)) + tuple(
            i + extra for i, n in enumerate(leaf.shape) if n == 1 and grown.shape[i + extra] != 1
        )
        same(leaf.grad, grown.sum(axes, keepdims=True).reshape(leaf.shape))


@settings(max_examples=60, deadline=None)
@given(ARRAYS, st.data())
def test_reductions(x: Any, data: Any) -> None:
    axes = data.draw(st.sets(st.integers(-x.ndim, x.ndim - 1), min_size=1).map(tuple))
    axes = tuple({a % x.ndim: a for a in axes}.values())
    keep = data.draw(st.booleans())
    t = treadle.from_numpy(x.copy())
    same(t.sum(axes, keep), x.sum(axes, keepdims=keep))
    same(t.mean(axes, keep), x.mean(axes, keepdims=keep))
    same(t.amax(axes, keep), x.max(axes, keepdims=keep))
    same(t.var(axes, correction=0, keepdim=keep), x.var(axes, keepdims=keep))
    same((t > 0).any(axes[0], keep), (x > 0).any(axes[0], keepdims=keep))
    same(t.argmax(axes[0]), x.argmax(axes[0]))
    same(t.cumsum(axes[0]), x.cumsum(axes[0]))
    values, order = t.sort(axes[0])
    same(values, np.sort(x, axes[0]))
    same(order, np.argsort(x, axes[0], kind="stable"))


@settings(max_examples=60, deadline=None)
@given(ARRAYS, st.data())
def test_movements(x: Any, data: Any) -> None:
    order = data.draw(st.permutations(range(x.ndim)))
    axis = data.draw(st.integers(-x.ndim, x.ndim - 1))
    shift = data.draw(st.integers(-5, 5))
    t = treadle.from_numpy(x.copy())
    same(t.permute(*order), x.transpose(order))
    same(t.permute(*order).reshape(-1).flip(0), x.transpose(order).reshape(-1)[::-1])
    same(treadle.cat([t, t * 2], axis), np.concatenate([x, x * 2], axis))
    same(treadle.stack([t, t], axis), np.stack([x, x], axis))
    same(t.roll(shift, axis), np.roll(x, shift, axis))
    same(t.unsqueeze(axis), np.expand_dims(x, axis))
    same(treadle.cat(t.split(2, axis), axis), x)
    same(treadle.stack(t.unbind(axis), axis), x)
    same(t.repeat((2,) * x.ndim), np.tile(x, (2,) * x.ndim))
    same(t.movedim(axis, 0), np.moveaxis(x, axis, 0))


SLICES = st.slices(4).filter(lambda s: s.step is None or s.step != 0)
ITEMS = st.one_of(SLICES, st.just(None), st.just(Ellipsis), st.integers(-1, 0))


@settings(max_examples=100, deadline=None)
@given(ARRAYS, st.lists(ITEMS, max_size=4).map(tuple))
def test_basic_indices_and_their_gradients(x: Any, index: tuple[Any, ...]) -> None:
    try:
        want = x[index]
    except IndexError:
        with pytest.raises(IndexError):
            treadle.from_numpy(x)[index]
        return
    t = treadle.from_numpy(x.copy()).requires_grad_()
    part = t[index]
    same(part, want)
    if want.size:
        weight = np.arange(1.0, want.size + 1).reshape(want.shape)
        (part * treadle.from_numpy(weight)).sum().backward()
        gradient = np.zeros(x.shape)
        gradient[index] = weight
        same(t.grad, gradient)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_index_tensors(data: Any) -> None:
    x = np.arange(24.0).reshape(2, 3, 4)
    shape = data.draw(hnp.array_shapes(max_dims=2, max_side=3))
    index: list[Any] = []
    for n in x.shape:
        kind = data.draw(st.sampled_from(["all", "array", "number", "part"]))
        if kind == "array":
            index.append(data.draw(hnp.arrays(np.int64, shape, elements=st.integers(-n, n - 1))))
        elif kind == "number":
            index.append(data.draw(st.integers(-n, n - 1)))
        else:
            index.append(slice(None) if kind == "all" else slice(0, 2))
    want = x[tuple(index)]
    arrays = [isinstance(i, np.ndarray) for i in index]
    if any(arrays) and any(isinstance(i, int) for i in index):
        # NumPy counts a number as an index array where there is one; PyTorch takes it as a slice.
        return
    t = treadle.from_numpy(x.copy())
    key = tuple(treadle.from_numpy(i) if isinstance(i, np.ndarray) else i for i in index)
    same(t[key], want)
    y = x.copy()
    y[tuple(index)] = -1
    t[key] = -1
    same(t, y)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_einsum(data: Any) -> None:
    letters = "abcd"
    sizes = {c: data.draw(st.integers(1, 3)) for c in letters}
    terms = data.draw(st.lists(st.text(letters, min_size=1, max_size=3), min_size=1, max_size=3))
    used = sorted(set("".join(terms)))
    out = "".join(data.draw(st.lists(st.sampled_from(used), unique=True, max_size=3)))
    rng = np.random.default_rng(0)
    arrays = [rng.uniform(-1, 1, [sizes[c] for c in term]) for term in terms]
    equation = f"{','.join(terms)}->{out}"
    same(treadle.einsum(equation, *map(treadle.from_numpy, arrays)), np.einsum(equation, *arrays))


@pytest.mark.parametrize("equation", ["ij->k", "ij,jk", "i1->i", "ij,j->ii", "ijk->i"])
def test_einsum_refuses_what_makes_no_sense(equation: str) -> None:
    with pytest.raises((ValueError, RuntimeError), match="einsum"):
        treadle.einsum(equation, treadle.ones(2, 3))


# --- special functions, without PyTorch --------------------------------------------------------


def test_special_functions_against_scipy() -> None:
    special = pytest.importorskip("scipy.special")
    x = np.concatenate([np.linspace(-4.7, 6, 50), [20.5, 80.0, 0.5, 1.0, 2.0]])
    t = treadle.from_numpy(x)
    for name in ("erfc", "digamma"):
        np.testing.assert_allclose(
            getattr(treadle, name)(t).numpy(), getattr(special, name)(x), rtol=1e-11, atol=1e-13
        )
    np.testing.assert_allclose(t.lgamma().numpy(), special.gammaln(x), rtol=1e-11, atol=1e-12)
    for n in (1, 2, 3):
        positive = x[x > 0]
        np.testing.assert_allclose(
            treadle.polygamma(n, treadle.from_numpy(positive)).numpy(),
            special.polygamma(n, positive), rtol=1e-10,
        )  # fmt: skip
    y = np.concatenate([np.linspace(-0.999, 0.999, 41), [1 - 1e-12, -1 + 1e-12, 1e-12]])
    np.testing.assert_allclose(
        treadle.from_numpy(y).erfinv().numpy(), special.erfinv(y), rtol=1e-10
    )


def test_hyperbolic_functions_are_accurate_from_tiny_to_huge() -> None:
    x = np.concatenate([-np.logspace(-300, 2.85, 40), np.logspace(-300, 2.85, 40)])
    t = treadle.from_numpy(x)
    for name in ("sinh", "cosh", "arcsinh", "arctan"):
        np.testing.assert_allclose(getattr(t, name)().numpy(), getattr(np, name)(x), rtol=4e-14)
    big = treadle.from_numpy(np.logspace(-2, 300, 40) + 1)
    np.testing.assert_allclose(big.acosh().numpy(), np.arccosh(big.numpy()), rtol=1e-12)
    inside = np.concatenate([np.logspace(-300, -0.01, 40), [-0.999999, 0.0]])
    s = treadle.from_numpy(inside)
    for name in ("arctanh", "arcsin", "arccos"):
        np.testing.assert_allclose(
            getattr(s, name)().numpy(), getattr(np, name)(inside), rtol=1e-13
        )
    huge = np.array([1e200, -3e200, 0.0, 1e-200])
    other = np.array([1e200, 4e200, 0.0, 1e-200])
    np.testing.assert_allclose(
        treadle.hypot(*map(treadle.from_numpy, (huge, other))).numpy(), np.hypot(huge, other)
    )


# --- linear algebra ----------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (2, 4), (2, 3, 3), (0, 3, 3)])
def test_decompositions_put_together_again(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(3).uniform(-1, 1, shape)
    t = treadle.from_numpy(x)
    q, r = treadle.linalg.qr(t)
    u, s, vh = treadle.linalg.svd(t, full_matrices=False)
    same(q @ r, x)
    same(r.tril(-1), np.zeros(r.shape))
    same((u * s.unsqueeze(-2)) @ vh, x)
    if shape[-1] == shape[-2]:
        w, v = treadle.linalg.eigh(t + t.mT)
        same((v * w.unsqueeze(-2)) @ v.mT, x + x.swapaxes(-1, -2))
        a = t @ t.mT + treadle.eye(shape[-1], dtype=treadle.float64)
        low = treadle.linalg.cholesky(a)
        same(low @ low.mT, a.numpy())
        same(treadle.linalg.inv(a) @ a, np.broadcast_to(np.eye(shape[-1]), shape))


def test_faults_of_linear_algebra_are_told() -> None:
    with pytest.raises(RuntimeError, match="square"):
        treadle.linalg.inv(treadle.ones(2, 3))
    with pytest.raises(RuntimeError, match="singular"):
        treadle.linalg.inv(treadle.zeros(2, 2)).tolist()
    with pytest.raises(RuntimeError, match="positive definite"):
        treadle.linalg.cholesky(-treadle.eye(2)).tolist()
    with pytest.raises(RuntimeError, match="do not fit"):
        treadle.linalg.solve(treadle.eye(2), treadle.ones(3, 1))
