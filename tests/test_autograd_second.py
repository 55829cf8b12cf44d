"""First and second derivatives of the functions of tensors, against finite differences."""

from __future__ import annotations

import pytest
from against_torch import listed

import treadle as t
from treadle.autograd import gradcheck, gradgradcheck

SMOOTH = listed("""
    a * b  a / b  b ** a  b ** 3  b ** 0.5  a.exp()  b.log()  b.sqrt()  b.rsqrt()  a.sin()
    a.tan()  a.tanh()  a.sigmoid()  t.erf(a)  b.reciprocal()  t.log1p(b)  t.expm1(a)  t.exp2(a)
    t.log2(b)  t.atan2(a, b)  a.abs()  t.maximum(a, b)  a.clamp(-1, 1)  t.relu(a)
    t.where(a > 0, a * a, b)  a.sinh()  a.cosh()  a.asinh()  a.atan()  (a / 3).asin()
    (a / 3).atanh()  t.hypot(a, b)  a.erfc()  (a / 3).erfinv()  b.lgamma()  t.logaddexp(a, b)
    t.xlogy(a, b)  t.sinc(a)  a.square()  a.sum(0)  a.mean()  a.var(1)  a.std(1)  b.prod(1)
    a.amax(1)  a.max(1)[0]  a.logsumexp(1)  a.norm()  a.norm(3, dim=1)  a.cumsum(1)  b.cumprod(1)
    a.logcumsumexp(1)  a.cummax(1)[0]  a.softmax(1)  a.median(1)[0]  a.quantile(0.3, 1)
    a.sort(1)[0]  a.topk(2)[0]  a @ b.t()  t.einsum('ij,ik', a, b)
    t.einsum('ij,ij,ij->i', a, b, a)  t.kron(a, b[:1])  t.cdist(a, b)  a.roll(1)
    a.unfold(1, 2, 1)  t.pad(a, (2, 1), 'reflect')  t.pad(a, (2, -1))  a.diagonal()
    t.diag_embed(a)  a.tril()  a[1:, ::2]  a[[0, 1, 0]]  a.gather(1, a.argsort(1))
    a.scatter(1, a.argsort(1), b)  a.flip(0)  t.cat([a, b])  a.index_add(0, t.tensor([0, 0]), b)
    a.scatter_reduce(1, a.argsort(1), b, 'prod')  a.repeat(2, 1)
    a.index_put((t.tensor([0, 1]), t.tensor([1, 1])), b[0, :2])  a.masked_fill(a > 0, 0)
    a.T * b.T  t.linalg.inv(s)  t.linalg.det(s)  t.linalg.slogdet(s)[1]  t.linalg.solve(s, b.t())
    t.linalg.cholesky(s @ s.t())  t.linalg.qr(s)[0]  t.linalg.qr(b)[1]  t.linalg.svdvals(b)
    t.linalg.svd(b, full_matrices=False)[2].abs()  t.linalg.eigh(s + s.t())[0]
    t.linalg.eigh(s + s.t())[1].abs()  t.linalg.pinv(b)
""")


@pytest.mark.parametrize("expression", SMOOTH)
def test_derivatives(expression: str) -> None:
    t.manual_seed(8)
    a = (t.rand(2, 3, dtype=t.float64) * 3 - 1.5).requires_grad_()
    b = (t.rand(2, 3, dtype=t.float64) + 0.6).requires_grad_()
    s = (t.rand(3, 3, dtype=t.float64) + 2 * t.eye(3, dtype=t.float64)).requires_grad_()
    names = [n for n in "abs" if f"{n}" in _variables(expression)]
    values = [{"a": a, "b": b, "s": s}[n] for n in names]

    def function(*args: object) -> object:
        return eval(expression, {"t": t, **dict(zip(names, args, strict=True))})

    assert gradcheck(function, values, atol=1e-6)
    assert gradgradcheck(function, values, atol=1e-4)


def _variables(expression: str) -> set[str]:
    return set(compile(expression, "", "eval").co_names)
