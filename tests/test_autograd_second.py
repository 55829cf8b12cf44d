"""First and second derivatives of the functions of tensors, against finite differences."""

from __future__ import annotations

import numpy as np
import pytest
from against_torch import listed

import treadle as t
from treadle.autograd import gradcheck, gradgradcheck
from treadle.ops.scan import LINEAR_SCAN

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


@pytest.mark.parametrize("zeros", [(), (1,), (0, 2), (0, 1, 3), (0, 1, 2, 3)])
@pytest.mark.parametrize("expression", ["a.prod(1)", "a.cumprod(1)", "a.prod()", "a.cumprod(0)"])
def test_products_with_zeros(expression: str, zeros: tuple[int, ...]) -> None:
    """Where an element is 0 its own derivative is the product of the others."""
    t.manual_seed(3)
    values = t.rand(2, 4, dtype=t.float64) + 0.5
    values[0, list(zeros)] = 0
    a = values.requires_grad_()

    def function(a: object) -> object:
        return eval(expression, {"a": a})

    assert gradcheck(function, [a], atol=1e-6)
    assert gradgradcheck(function, [a], atol=1e-4)


def test_third_derivative_of_a_product_with_zeros() -> None:
    """`d^3 (abcd) / da db dc = d` where a, b and c are 0; the running products up to c are 1."""
    for name, wish in (("prod", 5.0), ("cumprod", 6.0)):
        x = t.tensor([0.0, 0.0, 0.0, 5.0], dtype=t.float64, requires_grad=True)
        out = getattr(x, name)(0).sum()
        for i in range(3):
            (g,) = t.autograd.grad(out, x, create_graph=True)
            out = g[i]
        assert out.item() == wish


def test_long_recurrences_are_done_in_pieces() -> None:
    """The recurrence behind the second derivative of cumprod, against a plain loop."""
    rng = np.random.default_rng(0)
    for shape in ((1000, 2), (257,), (256, 3), (300, 900)):
        a, b = rng.uniform(-1.1, 1.1, (2, *shape))
        a[rng.random(shape) < 0.05] = 0
        wish = b.copy()
        for i in range(1, len(b)):
            wish[i] += a[i] * wish[i - 1]
        np.testing.assert_allclose(LINEAR_SCAN.ref(a, b, 0, False), wish, rtol=1e-9, atol=1e-11)
        turned = LINEAR_SCAN.ref(a[::-1], b[::-1], 0, True)
        np.testing.assert_allclose(turned[::-1], wish, rtol=1e-9, atol=1e-11)
