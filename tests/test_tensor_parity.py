"""Functions and methods against PyTorch: values, dtypes, shapes and gradients, by table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from against_torch import agree, listed

torch = pytest.importorskip("torch")

RNG = np.random.default_rng(7)
M = RNG.uniform(-2, 2, (3, 4))
N = RNG.uniform(0.5, 2, (3, 4))
V = RNG.uniform(-1, 1, (4,))
C = RNG.uniform(-1, 1, (2, 3, 4))
I = RNG.integers(-5, 6, (3, 4))
J = RNG.integers(1, 6, (4,))
B = RNG.random((3, 4)) < 0.5
SPECIAL = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1.5, -2.5, 0.5, 1e-8])

POINTWISE = listed("""
    a + b  a - b  a * b  a / b  a % b  a ** 2  a ** 3  b ** -1  b ** 0.5  b ** 1.7  2 ** a  2 - a
    1 / b  -a  +a  abs(a)  a < b  a <= 0  a == b  a != 1  a > b  a >= b  a.add(b, alpha=3)
    a.sub(b, alpha=0.5)  t.fmod(a, b)  t.remainder(a, b)  b.pow(a)  t.pow(2.5, a)  t.maximum(a, b)
    t.minimum(a, b)  t.max(a, b)  t.atan2(a, b)  a.clamp(-1, 1)  a.clamp(min=0)  a.clamp(max=b)
    t.where(a > 0, a, b)  t.where(a > 0, a, 1.0)  t.lerp(a, b, 0.3)  t.addcmul(a, a, b, value=0.5)
    t.addcdiv(a, a, b, value=2)  t.div(a, b, rounding_mode='floor')
    t.div(a, b, rounding_mode='trunc')  a.exp()  t.exp2(a)  t.expm1(a)  b.log()  t.log2(b)
    t.log10(b)  t.log1p(b)  b.sqrt()  b.rsqrt()  b.reciprocal()  a.sin()  a.cos()  a.tan()
    a.tanh()  a.sigmoid()  t.erf(a)  a.floor()  a.ceil()  a.round()  a.trunc()  a.sign()
    a.square()  t.relu(a)  a.isnan()  t.isclose(a, a + 1e-9)  t.logical_and(a, b)
    t.logical_not(a > 0)  t.logical_or(a > 0, b > 1)  t.logical_xor(a > 0, b > 1)
""")


@pytest.mark.parametrize("expression", POINTWISE)
def test_elementwise(expression: str) -> None:
    agree(torch, expression, [M, N])
    agree(torch, expression, [M.astype(np.float32), N.astype(np.float32)], rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("expression", POINTWISE)
def test_elementwise_broadcasts(expression: str) -> None:
    agree(torch, expression, [C, N[:1]])
    agree(torch, expression, [V[:1], N])


UNARY_SPECIAL = listed("""
    a.exp()  t.exp2(a)  t.expm1(a)  a.log()  t.log1p(a)  a.sqrt()  a.rsqrt()  a.sin()  a.tanh()
    a.sigmoid()  t.erf(a)  a.floor()  a.ceil()  a.round()  a.trunc()  a.abs()  a.isnan()
    a.isinf()  a.isfinite()  a.clamp(-1, 1)  t.relu(a)  t.maximum(a, a.flip(0))
    t.minimum(a, a * 0)  a.pow(2)  a.pow(0)  a % 2  a // 2  t.fmod(a, 2)  a / 0  0 / a  a.max()
    a.min()  a.sum()  a.argmax()  a.argmin()  a.bool()  t.isclose(a, a)
    t.isclose(a, a, equal_nan=True)  a.pow(0.5)  a.pow(-1)  t.pow(0.0, a)  t.where(a > 0, a, -a)
    a == a  a != a
""")


@pytest.mark.parametrize("expression", UNARY_SPECIAL)
def test_special_values(expression: str) -> None:
    agree(torch, expression, [SPECIAL], gradients=False)


INTEGER = listed("""
    a + b  a - b  a * b  a / b  a // b  a % b  a ** 2  a & b  a | b  a ^ b  ~a
    a << b.clamp(max=3)  a >> b  -a  abs(a)  a.sign()  a < b  a == b  a + 1  a + 1.5  a * True
    a / 2  a // 2  a.sum()  a.prod(1)  a.max()  a.amin(0)  a.float().mean()  a.exp()  a.sqrt()
    t.fmod(a, b)  t.div(a, b, rounding_mode='trunc')  t.div(a, b, rounding_mode='floor')
    a.clamp(-1, 2)  a.clamp(0.5)  a.floor()  a.round()  t.maximum(a, b)  a.argmax(1)
    a.count_nonzero()  a.any()  a.all(1)  t.where(a > 0, a, b)  a.relu()  t.atan2(a, b)
    a.square()  a.to(t.int32) + b  a.to(t.int8) * b.to(t.uint8)  a.bool() + b.bool()  a.bool() * b
    a.bool() & b.bool()  a == 1.5  a.max(1)  a.tril()
""")


@pytest.mark.parametrize("expression", INTEGER)
def test_integers(expression: str) -> None:
    agree(torch, expression, [I, J])


REDUCTIONS = listed("""
    a.sum()  a.sum(0)  a.sum(-1, keepdim=True)  a.sum((0, 1))  a.sum(dim=[1])  a.mean()  a.mean(1)
    a.mean((0, 1), keepdim=True)  a.var()  a.var(0)  a.var(1, unbiased=False)
    a.var(dim=1, correction=0, keepdim=True)  a.std()  a.std(-1)  b.prod()  b.prod(1)
    b.prod(0, keepdim=True)  a.amax()  a.amax(1)  a.amin((0, 1))  a.max()  a.min()
    tuple(a.max(1))  tuple(a.min(0, keepdim=True))  a.argmax()  a.argmin(1)
    a.argmax(0, keepdim=True)  a.logsumexp(1)  a.logsumexp((0, 1), keepdim=True)  a.norm()
    a.norm(1)  a.norm(3, dim=1)  a.norm(float('inf'), dim=0)  a.norm(2, dim=1, keepdim=True)
    t.count_nonzero(a)  (a > 0).any()  (a > 0).all(0)  (a > 0).sum()  (a > 0).sum(1)
    a.sum(dtype=t.float32)  t.sum(a, 1)  t.mean(a)  t.max(a, 1).values  t.max(a, 1).indices
    a.var(1, True)  a.std(1, False)  a.std(1, True, True)  a.min(1)[1]
""")


@pytest.mark.parametrize("expression", REDUCTIONS)
def test_reductions(expression: str) -> None:
    agree(torch, expression, [M, N])


MOVEMENT = listed("""
    a.reshape(4, 3)  a.view(-1)  a.reshape((2, -1))  a.t()  a.T  a.mT  a.transpose(0, 1)
    a.permute(1, 0)  a.unsqueeze(0)  a.unsqueeze(-1)  a[:1].squeeze(0)  a[:1].squeeze()
    a[:1].expand(5, 4)  a.unsqueeze(1).expand(-1, 2, -1)  a.repeat(2, 1)  a.repeat(2, 1, 2)
    a.flip(0)  a.flip(0, 1)  a.flip([1])  a.narrow(1, 1, 2)  a.split(2, 1)  a.split([1, 2])
    a.chunk(2, 1)  a.chunk(5)  a.unbind(1)  t.cat([a, b])  t.cat([a, b], 1)
    t.cat((a, a[:0]), dim=0)  t.stack([a, b])  t.stack([a, b], -1)  a.flatten()
    a.unflatten(1, (2, 2))  t.movedim(a, 0, 1)  t.broadcast_tensors(a, b[:1])
    t.broadcast_to(a[:1], (3, 4))  a.tril()  a.triu(1)  a.tril(-1)  a.expand_as(b)
    a.view_as(b.t())  a.reshape_as(b.t())  a.clone()  a.detach()  a.contiguous()  a.float()
    a.to(t.float32)  a.type_as(b)  a.view(a.shape)  a.size(1)  a.numel()  a.swapaxes(0, 1)
    a.ravel()  t.ravel(a)  a.moveaxis(0, 1)  a.fliplr()  t.flipud(a)  t.hstack([a, b])
    t.vstack([a, b])  t.concat([a, b])  t.split(a, 2)  a.select(1, 2)  a.select(0, -1)
    t.atleast_2d(a[0])  a.swapdims(0, 1)  t.column_stack([a, b])  t.dstack([a, b])
    a.tensor_split(3, 1)  t.hsplit(a, 2)
""")


@pytest.mark.parametrize("expression", MOVEMENT)
def test_movement(expression: str) -> None:
    agree(torch, expression, [M, N])


INDEXING = listed("""
    a[0]  a[-1]  a[1, 2]  a[1:]  a[:, 1]  a[::2, 1:3]  a[..., 0]  a[None]  a[:, None, 1]  a[5:]
    a[1:1]  a[t.tensor([0, 2])]  a[[0, 2]]  a[:, t.tensor([3, 0, 0])]  a[t.tensor(1)]
    a[t.tensor([[0, 1], [2, 0]])]  a[t.tensor([0, 1]), t.tensor([2, -1])]  a[t.tensor([-1, 0])]
    a[t.tensor([0, 2]), 1:3]  a[1, t.tensor([0, 2])]  a[t.tensor([[0], [1]]), t.tensor([0, 1, 2])]
    a[a > 0]  a[t.tensor([True, False, True])]  a[:, t.tensor([True, False, True, True])]
    a[t.tensor([True, False, True]), 1]  a[(a > 0) & (a < 1)]  a[a > 99]  a[[]]  a[...]  a[()]
    a[t.tensor([0, 1], dtype=t.int32)]  a[1][2]  a[1:][0, ::2]  a[:, -2:]  a[-2:-1]  a[True]
    a[None, t.tensor([0, 1])]  a[t.tensor([0, 1]), None]  a[t.tensor([0, 1]), :, None]  a[(0, 1)]
    a[[0, 1], [1, 0]]  a[range(2)]  a[False]  a[None, None, 1, ..., None]
""")


@pytest.mark.parametrize("expression", INDEXING)
def test_indexing(expression: str) -> None:
    agree(torch, expression, [M])


INDEXING_CUBE = listed("""
    a[0, :, 1]  a[:, [0, 2]]  a[[0, 1], :, [1, 2]]  a[[0, 1], 1:, [1, 2]]  a[:, [0, 1], [1, 2]]
    a[1, :, [0, 3]]  a[[0, 1], 1, [0, 3]]  a[..., [1, 2]]  a[[0], ..., [1]]  a[None, :, [0, 1]]
    a[:, a[0] > 0]  a[a > 0]  a[a[:, 0, 0] > -9, 1:]  a[0, a[0] > 0]  a[:, 1, None, [1, 2]]
    a[[[0], [1]], [0, 1, 2]]  a[0][:, [1]][..., 0]  a[:, :, None][1]  a[[0, 1], None, [1, 2]]
""")


@pytest.mark.parametrize("expression", INDEXING_CUBE)
def test_indexing_of_three_axes(expression: str) -> None:
    agree(torch, expression, [C])


PRODUCTS = listed("""
    a @ b.t()  t.matmul(a, c)  a.mv(c)  t.dot(c, c)  t.outer(a[0], c)  t.mm(a, b.T)
    t.addmm(a @ b.t(), a, b.t(), beta=0.5, alpha=2)  a[None] @ b.t()[None]
    t.bmm(a[None], b.T[None])  a @ b.t()[None].expand(5, -1, -1)  c @ b.t()  a[None] @ c
    (a[None] @ b.t()).sum(0)  t.einsum('ij,kj->ik', a, b)  t.tensordot(a, b, ([1], [1]))
""")


@pytest.mark.parametrize("expression", PRODUCTS)
def test_products(expression: str) -> None:
    agree(torch, expression, [M, N, V])


# Without a derivative there, or with zeros for one: only the values are compared.
STEPS = listed("""
    a // b  7 // b  7 % b  a.floor_divide(b)  (a * 4).sign()
""")


@pytest.mark.parametrize("expression", STEPS)
def test_steps(expression: str) -> None:
    agree(torch, expression, [M, N], gradients=False)


CREATION = listed("""
    t.zeros(2, 3)  t.ones((2, 3))  t.full((2,), 3)  t.full((2,), 3.5)  t.arange(5)
    t.arange(1, 2, 0.25)  t.arange(5, 0, -2)  t.arange(3.0)  t.linspace(0, 1, 5)  t.eye(3)
    t.eye(2, 3)  t.tensor([[1, 2], [3, 4]])  t.tensor([1.5])  t.tensor(True)  t.tensor([])
    t.tensor([1, 2.5])  t.tensor([True, False])  t.zeros_like(a)  t.ones_like(a)
    t.full_like(a, 2)  t.zeros(2, dtype=t.int64)  t.arange(4, dtype=t.float64)  t.full((), True)
    a.new_zeros(2, 2)  a.new_ones((2,))  a.new_tensor([1, 2])  t.linspace(3, -2, 6)
    t.as_tensor([1, 2])  t.tensor(3)  t.linspace(1, 1, 1)  a.new_full((2,), 3)
    t.logspace(0, 2, 3)  a.new_empty(0)  t.zeros(())  t.arange(0)  t.tensor(2.5).item()
    a.tolist()[0][0]  len(a)  t.is_tensor(a)  a.dim()  a.ndim  t.numel(a)
""")


@pytest.mark.parametrize("expression", CREATION)
def test_creation(expression: str) -> None:
    agree(torch, expression, [M], gradients=False)


DTYPES = [
    "bool",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "bfloat16",
    "float32",
    "float64",
]
NUMBERS: list[Any] = [True, 3, 2.5]


@pytest.mark.parametrize("left", DTYPES)
def test_promotion(left: str) -> None:
    """Every pair of dtypes and ranks, and each kind of Python number."""
    for right in DTYPES:
        for x, y in (("(2,)", "(2,)"), ("(2,)", "()"), ("()", "(2,)"), ("()", "()")):
            agree(
                torch,
                f"t.ones({x}, dtype=t.{left}) * t.ones({y}, dtype=t.{right})", [], gradients=False,
            )  # fmt: skip
        assert str(torch.promote_types(getattr(torch, left), getattr(torch, right)))
    for number in NUMBERS:
        agree(torch, f"t.ones(2, dtype=t.{left}) * {number!r}", [], gradients=False)
        agree(torch, f"{number!r} + t.ones((), dtype=t.{left})", [], gradients=False)
        agree(torch, f"t.ones(2, dtype=t.{left}) / {number!r}", [], gradients=False, rtol=1e-2)
        agree(torch, f"t.ones(2, dtype=t.{left}) == {number!r}", [], gradients=False)
        agree(torch, f"t.where(t.tensor([True, False]), t.ones(2, dtype=t.{left}), {number!r})", [],
              gradients=False)  # fmt: skip
