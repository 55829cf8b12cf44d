"""The wider functions against PyTorch: values, dtypes, shapes and gradients, by table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from against_torch import agree, listed

import treadle

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(11)
M = RNG.uniform(-2, 2, (3, 4))
N = RNG.uniform(0.5, 2, (3, 4))
S = RNG.uniform(-1, 1, (4, 4)) + 3 * np.eye(4)
C = RNG.uniform(-1, 1, (2, 3, 4))
U = RNG.uniform(-0.9, 0.9, (3, 4))
I = RNG.integers(0, 4, (3, 4))
G = np.array([[0, 2, 1, 0], [1, 1, 2, 0]])
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.5, -2.5, 0.5, 1e-8])
ZEROS = np.array([[1.0, 0.0, 2.0, 3.0], [0.0, 4.0, 0.0, 5.0], [1.5, 2.0, -1.0, 2.0]])

SCANS = listed("""
    a.cumsum(0)  t.cumsum(a, -1)  a.cumprod(1)  b.cumprod(0)  t.logcumsumexp(a, 1)
    tuple(a.cummax(1))  tuple(a.cummin(0))  t.diff(a)  t.diff(a, 2, 0)  t.trapezoid(a)
    t.trapezoid(a, b, dim=1)  t.cumsum(a > 0, 0)  a.cumsum(1, dtype=t.float32)  a.nansum()
    a.nanmean(1)  t.nan_to_num(a)  t.aminmax(a)  t.aminmax(a, dim=0, keepdim=True)  a.cov()
    t.cov(a[0])  b.corrcoef()  t.var_mean(a)  t.std_mean(a, 1)  t.var_mean(a, 0, keepdim=True)
    a.median()  tuple(a.median(1))  tuple(a.median(0, keepdim=True))  a.nanmedian()
    tuple(a.nanmedian(1))  a.quantile(0.3)  a.quantile(0.5, 1)
    t.quantile(a, t.tensor([0.1, 0.9], dtype=t.float64), dim=0)  a.quantile(0.6, 1, True)
    a.quantile(0.4, interpolation='lower')  a.nanquantile(0.5, 1)
    a.quantile(0.4, 0, interpolation='midpoint')  a.quantile(0.4, 0, interpolation='nearest')
    a.quantile(0.4, 0, interpolation='higher')  tuple(a.mode(1))
""")
ORDER = listed("""
    tuple(a.sort())  tuple(a.sort(0))  tuple(a.sort(1, descending=True))  a.argsort(0)  t.msort(a)
    tuple(a.topk(2))  tuple(a.topk(2, 0, largest=False))  tuple(a.kthvalue(2))
    tuple(a.kthvalue(3, 0, True))  t.searchsorted(b[0].sort().values.detach(), a)
    t.bucketize(a, t.tensor([-1.0, 0.0, 1.0], dtype=t.float64))  t.histc(a, 5)
    t.histc(a, 4, -1, 1)  t.searchsorted(t.tensor([0, 1, 2]), t.tensor([1, 1]), right=True)
    t.searchsorted(t.tensor([0, 1, 2]), 1)  a.argsort(1, True)
    t.isin(t.tensor([1, 2]), t.tensor([2]))
""")
GATHER = listed("""
    a.gather(1, c)  t.gather(a, 0, c % 3)  a.take(c)  t.take_along_dim(a, a.argsort(1), 1)
    a.index_select(1, c[0])  a.index_select(0, c[0] % 3)  a.scatter(1, b.argsort(1), b)
    a.scatter(1, c, 1.5)  a.scatter(0, b.argsort(0), b)  a.scatter_add(1, c, b)
    a.index_add(1, c[0], b)  a.masked_fill(a > 0, 7.0)  a.index_add(0, c[0, :3], b, alpha=2)
    a.index_copy(1, t.tensor([3, 0, 1, 2]), b)  a.index_fill(1, c[1], 2.5)  a.masked_select(a > 0)
    a.masked_scatter(a > 0, b)  t.repeat_interleave(a, 2)  a.repeat_interleave(2, 1)
    a.repeat_interleave(t.tensor([1, 0, 2]), 0)  t.nonzero(a > 0)  t.nonzero(a > 0, as_tuple=True)
    t.argwhere(a > 0)  a.masked_fill(a[0] > 0, 0)  a.index_put((c[0] % 3, c[1]), b[0])
    a.index_put((c[0] % 3, c[1]), b[0], accumulate=True)  a.clone().scatter_(1, b.argsort(1), b)
    a.clone().index_add_(1, c[0], b)  a.clone().masked_fill_(a > 0, 1)  a.gather(1, c)[:, None]
    a.diagonal()  a.diagonal(1)  a.diagonal(-1)  t.diag(a)  t.diag(a[0])  t.diag(a[0], -2)
    t.diag_embed(a)  t.diag_embed(a, 1)  a.trace()  a[:, :3].tril().diagonal(0, 1, 0)
""")
ARRANGE = listed("""
    a.roll(1)  a.roll(1, 1)  a.roll((1, -2), (0, 1))  t.roll(a, 5, 0)  a.tile(2)
    a.tile((2, 1, 2))  t.rot90(a)  t.rot90(a, 2)  t.rot90(a, -1)  t.rot90(a, 3, (1, 0))
    a.unfold(1, 2, 1)  a.unfold(1, 3, 2)  a.unfold(0, 2, 1)  t.meshgrid(a[0], b[1], indexing='ij')
    t.meshgrid(a[0], b[1], indexing='xy')
    t.nn.functional.pad(a, (1, 2)) if t.__name__ == 'torch' else t.pad(a, (1, 2))
    t.cartesian_prod(a[0], b[0])  t.block_diag(a, b[:1])  t.kron(a, b[:2, :2])
    t.tensordot(a, b, 2)  t.tensordot(a, b, ([0, 1], [0, 1]))  t.inner(a, b)
    t.linalg.multi_dot([a, b.T, a])  t.cdist(a, b)  t.cdist(a, b, p=1.0)
    t.cross(a[:, :3], b[:, :3], dim=1)  t.cdist(a, a)  t.tril_indices(3, 4)
    t.triu_indices(3, 3, 1)  t.vander(a[0].detach())  t.clone(a)  a.softmax(1)
    t.log_softmax(a, 0)  a.norm()  t.einsum('ij->ji', a)  t.einsum('ij->i', a)
    t.einsum('ij,ij', a, b)  t.einsum('ij,kj', a, b)  t.einsum('ij,kj,kl->il', a, b, a)
    t.einsum('i,j->ij', a[0], b[0])  t.einsum('...j,j->...', a, b[0])  t.einsum('ii->i', a[:, :3])
    t.einsum('ii', a[:, :3])  t.einsum('ij,ij->ij', a, b)  t.einsum('ij->', a)
    t.einsum('...ij,...kj->...ik', a[None], b)  t.einsum('ab,cd', a, b)
    t.einsum('i,i,i', a[0], b[0], a[1])  t.einsum('ij,j', a, b[0])  t.einsum('i j -> j i', a)
    t.einsum('ij,ik->jk', a[:, :1], b)
""")


@pytest.mark.parametrize("expression", SCANS + ORDER + ARRANGE)
def test_functions(expression: str) -> None:
    agree(torch, expression, [M, N])


@pytest.mark.parametrize("expression", GATHER)
def test_gathering(expression: str) -> None:
    agree(torch, expression, [M, N, np.vstack([G, G[:1]])])


@pytest.mark.parametrize(
    "expression",
    listed("""
    a.prod()  a.prod(1)  a.prod(0, keepdim=True)  a.cumprod(1)  a.cumprod(0)  a.norm(dim=1)
    a.std(1)  (a * 0).norm()  (a * 0).std()  t.logcumsumexp(a, 0)
"""),
)
def test_gradients_at_zeros(expression: str) -> None:
    agree(torch, expression, [ZEROS])


ELEMENTARY = listed("""
    a.sinh()  a.cosh()  a.asinh()  (a.abs() + 1.5).acosh()  c.atanh()  c.asin()  c.acos()
    a.atan()  t.hypot(a, b)  t.logaddexp(a, b)  t.logaddexp2(a, b)  t.xlogy(a, b)
    t.copysign(a, c.detach())  a.frac()  t.heaviside(a.detach(), b.detach())  t.float_power(b, 2)
    t.fmax(a, b)  t.fmin(a, b)  a.signbit()  t.deg2rad(a)  t.rad2deg(a)  t.sinc(a)  t.logit(b / 3)
    t.logit(b / 3, 0.3)  a.erfc()  c.erfinv()  t.lgamma(b)  t.digamma(b)  t.polygamma(1, b)
    t.polygamma(2, b)  t.ldexp(a, t.tensor([2]))  t.rsub(a, b, alpha=2)  a.absolute()  a.arctan()
    t.clip(a, -1, 1)  t.true_divide(a, b)  t.less(a, b)  a.fix()
""")


@pytest.mark.parametrize("expression", ELEMENTARY)
def test_elementary(expression: str) -> None:
    agree(torch, expression, [M, N, U], rtol=2e-6)
    small = [x.astype(np.float32) for x in (M, N, U)]
    agree(torch, expression, small, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "expression",
    listed("""
    a.sinh()  a.cosh()  a.asinh()  a.acosh()  a.atanh()  a.asin()  a.acos()  a.atan()  a.frac()
    t.hypot(a, a.flip(0))  t.logaddexp(a, a.flip(0))  t.logaddexp(a, a)  t.xlogy(a, a.flip(0))
    t.fmax(a, a.flip(0))  t.fmin(a, a.flip(0))  a.signbit()  t.sinc(a)  a.erfc()  t.lgamma(a)
    t.digamma(a)  t.erfinv(a)  t.nan_to_num(a)  t.nan_to_num(a, 1.0, 2.0, 3.0)  t.isposinf(a)
    t.isneginf(a)  a.nansum()  a.nanmean()  a.median()  a.nanmedian()  a.sort().values
    a.sort()[1]  a.cummax(0).values  a.cummin(0).indices  a.topk(3).indices  a.nanquantile(0.5)
    a.quantile(0.5)  t.copysign(t.ones(9, dtype=t.float64), a)  a.cumsum(0)
    t.sort(a, descending=True)[1]
"""),
)
def test_special_values(expression: str) -> None:
    agree(torch, expression, [SPECIAL], gradients=False)


@pytest.mark.parametrize(
    "expression",
    listed("""
    a.unique()  t.unique(a, return_inverse=True, return_counts=True)  t.unique(a, dim=0)
    t.unique_consecutive(a.sort(1)[0], return_counts=True)  t.bincount(a.reshape(-1))  a.cumsum(1)
    t.bincount(a[0], minlength=9)  t.bincount(a[0], weights=t.ones(4, dtype=t.float64))
    a.cumprod(0)  a.median()  tuple(a.mode(1))[0]  a.diff()  a.trace()  a.sort(1)[0]  a.roll(1)
    t.kron(a, a)  t.einsum('ij,kj->ik', a, a)  a.repeat_interleave(2)  a.exp()  t.lgamma(a)
    t.atan(a)  t.hypot(a * 1., a)  a.gather(1, a)  a.scatter(1, a, a)  a.bool().nonzero()
    t.histc(a.float(), 4)  a.argsort(1)
"""),
)
def test_integers(expression: str) -> None:
    agree(torch, expression, [I], gradients=False)


PADDING = [
    ((1, 2), "constant", 0.0), ((0, 0, 2, 1), "constant", 1.5), ((-1, 2), "constant", 0.0),
    ((1, -1, -1, 2), "constant", 3.0), ((2, 1), "reflect", None), ((1, 1, 2, 1), "reflect", None),
    ((3, 1), "replicate", None), ((1, 2, 3, 4), "replicate", None), ((2, 3), "circular", None),
    ((1, 1, 2, 0), "circular", None),
]  # fmt: skip


@pytest.mark.parametrize(("counts", "mode", "value"), PADDING)
def test_padding(counts: tuple[int, ...], mode: str, value: float | None) -> None:
    call = f"(a{'[None]' if len(counts) > 2 else ''}, {counts}, mode={mode!r}, value={value})"
    agree(torch, f"(t.nn.functional.pad if t.__name__ == 'torch' else t.pad){call}", [C])


LINALG = listed("""
    t.linalg.inv(a)  a.inverse()  t.linalg.det(a)  t.linalg.slogdet(a)
    t.logdet(a @ a.T) if 0 else a.det()  t.linalg.solve(a, b)  t.linalg.solve(a, b[:, 0])
    t.linalg.solve(a[None], b[None])  t.linalg.cholesky(a @ a.mT + t.eye(4, dtype=a.dtype))
    t.linalg.eigvalsh(a + a.mT)  t.linalg.svdvals(b)  t.linalg.pinv(b)  t.linalg.norm(a)
    t.linalg.norm(a, 1)  t.linalg.norm(a, 2)  t.linalg.norm(a, 'nuc')
    t.linalg.norm(a, float('inf'))  t.linalg.norm(a, 'fro')  t.linalg.norm(a, -1)
    t.linalg.vector_norm(a, 3)  t.linalg.vector_norm(a, dim=1)
    t.linalg.matrix_norm(a, keepdim=True)  t.linalg.matrix_power(a, 3)
    t.linalg.matrix_power(a, -2)  t.linalg.matrix_power(a, 0)  t.linalg.multi_dot([a, b, b.T])
    t.linalg.lstsq(a, b).solution  t.linalg.cond(a)
    t.linalg.solve_triangular(a.triu(), b, upper=True)  t.linalg.matrix_rank(a)
    t.linalg.qr(b[:, :2])[0].abs()  t.linalg.qr(a)[1].abs()  t.linalg.eigh(a + a.mT)[1].abs()
    t.linalg.svd(b, full_matrices=False)[0].abs()  t.linalg.svd(b, full_matrices=False)[2].abs()
    (t.linalg.qr(b.T)[0] @ t.linalg.qr(b.T)[1])
""")


@pytest.mark.parametrize("expression", LINALG)
def test_linear_algebra(expression: str) -> None:
    agree(torch, expression, [S, RNG.uniform(-1, 1, (4, 3))], rtol=1e-6, atol=1e-8)


MORE = listed("""
    t.addmv(c[:, 0], a, b[0])  t.addr(a, c[:, 0], b[0], beta=2)  t.dist(a, b)  t.dist(a, b, 1)
    t.baddbmm(a[None] @ b.T[None], a[None], b.T[None], beta=2, alpha=3)  a.clamp_min(0)
    t.addbmm(a @ b.T, a[None], b.T[None])  a.clamp_max(b)  t.ger(a[0], b[1])  t.vdot(a[0], b[0])
    t.diagflat(a)  t.combinations(a[0])  t.combinations(a[0], 2, True)  t.cumulative_trapezoid(a)
    tuple(t.broadcast_shapes((2, 1), (3,)))  t.promote_types(t.int8, t.float16) == t.float16
""")


@pytest.mark.parametrize("expression", MORE)
def test_more(expression: str) -> None:
    agree(torch, expression, [M, N, U])


@pytest.mark.parametrize("reduce", ["sum", "mean", "prod", "amax", "amin"])
@pytest.mark.parametrize("own", [True, False])
def test_scatter_reduce(reduce: str, own: bool) -> None:
    call = f"a.scatter_reduce(1, c, b, {reduce!r}, include_self={own})"
    agree(torch, call, [M, N, np.vstack([G, G[:1]])], rtol=1e-6)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32", "float64"])
def test_finfo(name: str) -> None:
    mine, theirs = (m.finfo(getattr(m, name)) for m in (treadle, torch))
    for field in ("bits", "eps", "max", "min", "tiny", "smallest_normal", "dtype"):
        assert getattr(mine, field) == getattr(theirs, field)


@pytest.mark.parametrize("name", ["uint8", "int8", "int16", "int32", "int64"])
def test_iinfo(name: str) -> None:
    mine, theirs = (m.iinfo(getattr(m, name)) for m in (treadle, torch))
    assert (mine.bits, mine.min, mine.max) == (theirs.bits, theirs.min, theirs.max)
    with pytest.raises(TypeError):
        treadle.iinfo(treadle.float32)
    with pytest.raises(TypeError):
        treadle.finfo(treadle.int64)


KEYWORDS = listed("""
    a.sum(axis=1)  a.mean(axis=0, keepdims=True)  t.cat([a, b], axis=1)  a.argmax(axis=1)
    t.zeros(size=(2, 3))  t.ones(size=(2,))  t.where(a > 0)  a.where(a > 0, b)
    t.round(a, decimals=1)  t.stack([a, b], axis=-1)  t.softmax(a, axis=1)  a.squeeze(axis=0)
    t.Tensor(2, 3).shape[1]  t.Tensor([1, 2])  a.max(axis=1).values
""")


@pytest.mark.parametrize("expression", KEYWORDS)
def test_other_ways_to_call(expression: str) -> None:
    agree(torch, expression, [M, N])


def test_bits_as_another_dtype() -> None:
    x = treadle.tensor([1.0, -2.0])
    bits = x.view(treadle.int32)
    assert bits.tolist() == [0x3F800000, -0x40000000]
    assert treadle.equal(bits.view(treadle.float32), x)
    bits[0] = 0x40000000
    assert x.tolist() == [2.0, -2.0]
    with pytest.raises(RuntimeError, match="differ in size"):
        x.view(treadle.float64)


@pytest.mark.parametrize("order", [lambda x, y: x + y, lambda x, y: y - x, lambda x, y: x * y])
def test_arrays_are_operands(order: Any) -> None:
    for array in (np.array([1.0, 2.0]), np.array([[1], [2]]), np.float32(3), np.int64(2)):
        t = treadle.tensor([3.0, 4.0])
        out = order(t, array)
        assert isinstance(out, treadle.Tensor)
        np.testing.assert_allclose(out.numpy(), order(t.numpy(), array))
    assert (treadle.tensor([1, 2]) == np.array([1, 3])).tolist() == [True, False]
    same = treadle.eye(2) @ np.ones((2, 2), np.float32)
    assert same.tolist() == [[1, 1], [1, 1]]
