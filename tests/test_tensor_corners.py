"""Small floats, empty tensors and scalars, against PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from against_torch import agree, listed

import treadle

torch = pytest.importorskip("torch")

EMPTY = listed("""
    a + 1  a.exp()  a.sum()  a.sum(0)  a.sum(1)  a.prod(1)  a.mean(1)  a.any()  a.all()
    a.reshape(-1)  a.T  a.cumsum(1)  a.sort(1)[0]  a.argsort(0)  a.flip(0)  t.cat([a, a])
    t.stack([a, a])  a[:0]  a.unique()  a.nonzero()  a[a > 0]  a.masked_select(a > 0)  a.norm()
    a @ a.T  a.T @ a  a.repeat(2, 1)  a.split(2, 1)  a.roll(1)  a.tril()
    a.gather(1, a.long())  a.topk(0)[0]  a.max(1)[0]  a.index_select(1, t.tensor([0]))
    t.einsum('ij,ij->', a, a)  a.logsumexp(1)  a.amax(1)  a.clone()  a.unfold(1, 2, 1)
    a.diagonal()  a.expand(2, 0, 4)  a.softmax(1)  a.chunk(2, 1)  a.median(1)[0]
    a[t.tensor([], dtype=t.int64)]  a.scatter_add(1, a.long(), a)  a.unsqueeze(0)  a.flatten()
""")


@pytest.mark.parametrize("expression", EMPTY)
def test_empty_tensors(expression: str) -> None:
    agree(torch, expression, [np.zeros((0, 4))], gradients=False)


SCALAR = listed("""
    a + 1  a.sum()  a.sum(0)  a.mean(-1)  a.max()  a.max(0)[1]  a.argmax()  a.reshape(1)
    a.view(1, 1)  a.unsqueeze(0)  a.flatten()  a[None]  a[...]  a.expand(2, 3)  a.cumsum(0)
    a.sort()[0]  a.topk(1)[0]  a.norm()  a.var(unbiased=False)  a.softmax(0)  a.clamp(0, 1)
    a * t.ones(2)  a.item()  t.stack([a, a])  a.repeat(3)  a.squeeze()  a.squeeze(0)
    a.logsumexp(0)  a.median()  a.all()  a.gather(0, t.tensor(0))  t.where(a > 0, a, 2)
    a.nonzero()  a.prod(0)  a.amin(0)  a.roll(1)  a.flip(0)  t.atleast_2d(a)
    t.broadcast_to(a, (2,))  a.tolist()  a.index_select(0, t.tensor([0]))  a.cummax(0)[0]
""")


@pytest.mark.parametrize("expression", SCALAR)
def test_scalars(expression: str) -> None:
    agree(torch, expression, [np.array(1.5)])


HALF = listed("""
    a + b  a * b  a / b  a.exp()  b.log()  a.tanh()  a.sigmoid()  a.sum(1)  a.mean()  a.max(1)
    a @ b.T  a.cumsum(1)  a.sort(1)  a.topk(2)  a.softmax(1)  a.var(1)  a.norm()  a.T  a[1:]
    a[[0, 1]]  a > b  t.where(a > 0, a, b)  t.cat([a, b])  a.float()  a.int()  a.bool()  a * 2
    a + 1.5  a.clamp(-1, 1)  a.argmax(1)  a.floor()  a.round()  b.sqrt()  b.pow(2)  b ** 0.5
    a.abs()  t.maximum(a, b)  a.unique()  a.sinh()  a.asinh()  a.atan()  a.erfc()  t.hypot(a, b)
    a.median(1)  a.quantile(0.5) if 0 else a.neg()  t.einsum('ij,kj->ik', a, b)  a.logsumexp(1)
    a.std()  a.prod(1)  a.gather(1, a.argsort(1))  a.nansum()
""")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("expression", HALF)
def test_small_floats(expression: str, dtype: str) -> None:
    rng = np.random.default_rng(1)
    values = [rng.uniform(-2, 2, (3, 4)), rng.uniform(0.5, 2, (3, 4))]
    found: list[Any] = []
    for module in (treadle, torch):
        inputs = [module.tensor(v.tolist()).to(getattr(module, dtype)) for v in values]
        out = eval(expression, {"t": module, "a": inputs[0], "b": inputs[1]})
        out = out[0] if isinstance(out, tuple) else out
        found.append((str(out.dtype).split(".")[-1], out.double().numpy()))
    (mine, x), (theirs, y) = found
    assert mine == theirs
    eps = treadle.finfo(getattr(treadle, dtype)).eps
    np.testing.assert_allclose(x, y, rtol=3 * eps, atol=2 * eps)
