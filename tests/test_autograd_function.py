"""Custom functions, gradient checks and the derivatives of functions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle.autograd import Function, GradcheckError, grad, gradcheck, gradgradcheck
from treadle.tensor.function import once_differentiable
from treadle.tensor.functional import hessian, hvp, jacobian, jvp, vjp


class Cube(Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (x,) = ctx.saved_tensors
        return 3 * x**2 * grads[0]


class Several(Function):
    """An integer, a product scaled by a number, and a sum."""

    @staticmethod
    def forward(ctx: Any, a: Any, factor: float, b: Any) -> Any:
        largest = a.argmax()
        ctx.mark_non_differentiable(largest)
        ctx.save_for_backward(a, b)
        ctx.factor = factor
        return largest, a * b * factor, a + b

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        _, g, h = grads
        a, b = ctx.saved_tensors
        return g * b * ctx.factor + h, None, g * a * ctx.factor + h


class Exponential(Function):
    """Saves its output, and is set up apart from its forward."""

    @staticmethod
    def forward(x: Any) -> Any:  # type: ignore[override]
        return x.exp()

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return ctx.saved_tensors[0] * grads[0]


def leaf(*values: float) -> Any:
    return treadle.tensor(values, dtype=treadle.float64, requires_grad=True)


def test_a_function_is_differentiated_by_its_own_rule() -> None:
    x = leaf(1.0, -2.0)
    y = Cube.apply(x * 2)
    assert y.grad_fn.name() == "CubeBackward"
    (y * treadle.tensor([1.0, 10.0])).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [24.0, 960.0])


def test_a_read_in_the_middle_changes_nothing() -> None:
    x = leaf(1.0, -2.0)
    y = Cube.apply((x * 2).exp())
    assert y.sum().item() > 0
    z = (y * y).sum()
    assert z.item() > 0
    z.backward()
    want = 6 * np.exp(12 * np.array([1.0, -2.0])) * 2
    np.testing.assert_allclose(x.grad.numpy(), want)


@pytest.mark.parametrize("pick", [(1,), (2,), (1, 2)])
def test_only_some_outputs_may_be_used(pick: tuple[int, ...]) -> None:
    a, b = leaf(1.0, 5.0), leaf(2.0, 3.0)
    outputs = Several.apply(a, 2.0, b)
    assert outputs[0].item() == 1
    assert not outputs[0].requires_grad
    sum(outputs[i].sum() for i in pick).backward()
    want_a = (1 in pick) * np.array([4.0, 6.0]) + (2 in pick)
    want_b = (1 in pick) * np.array([2.0, 10.0]) + (2 in pick)
    np.testing.assert_allclose(a.grad.numpy(), want_a)
    np.testing.assert_allclose(b.grad.numpy(), want_b)


def test_checks_accept_right_rules() -> None:
    assert gradcheck(Cube.apply, leaf(0.5, -1.5))
    assert gradgradcheck(Cube.apply, leaf(0.5, -1.5))
    assert gradcheck(Exponential.apply, leaf(0.5, -1.5))
    assert gradgradcheck(Exponential.apply, leaf(0.5, -1.5))
    assert gradcheck(lambda a, b: Several.apply(a, 0.5, b)[1:], [leaf(1.0, 2.0), leaf(3.0, 4.0)])
    assert gradcheck(lambda a: a @ a.t(), treadle.rand(2, 3, dtype=treadle.float64,
                                                       requires_grad=True))  # fmt: skip


class Wrong(Cube):
    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return 2 * ctx.saved_tensors[0] * grads[0]


def test_checks_reject_wrong_rules() -> None:
    with pytest.raises(GradcheckError, match="Jacobian mismatch"):
        gradcheck(Wrong.apply, leaf(0.5, 1.5))
    assert not gradcheck(Wrong.apply, leaf(0.5, 1.5), raise_exception=False)
    with pytest.raises(ValueError, match="at least one input"):
        gradcheck(treadle.sin, treadle.ones(2))


class TooMany(Cube):
    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], grads[0]


class BadShape(Cube):
    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0].unsqueeze(0).unsqueeze(0)


def test_a_wrong_number_or_shape_of_gradients_is_refused() -> None:
    with pytest.raises(RuntimeError, match=r"incorrect number of gradients \(expected 1, got 2\)"):
        TooMany.apply(leaf(1.0)).sum().backward()
    with pytest.raises(RuntimeError, match="invalid gradient at index 0"):
        BadShape.apply(leaf(1.0)).sum().backward()


def test_what_was_saved_is_freed_by_a_backward() -> None:
    x = leaf(2.0)
    y = Cube.apply(x).sum()
    y.backward(retain_graph=True)
    y.backward()
    assert x.grad.item() == 24.0
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_a_saved_tensor_keeps_its_value_when_it_is_written_later() -> None:
    x = leaf(2.0)
    h = x * 1
    y = Cube.apply(h)
    h.mul_(100)
    y.sum().backward()
    assert x.grad.item() == 12.0


class Once(Cube):
    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> Any:
        return 3 * ctx.saved_tensors[0] ** 2 * grads[0]


def test_once_differentiable() -> None:
    x = leaf(2.0)
    (g,) = grad(Once.apply(x).sum(), x, create_graph=True)
    assert g.item() == 12.0
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad(g.sum(), x)


class Reads(Cube):
    """A backward that computes with NumPy, so that everything pending runs in the middle."""

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        x = ctx.saved_tensors[0].detach().numpy()
        return treadle.from_numpy(3 * x**2 * grads[0].detach().numpy())


def test_a_backward_may_read_values() -> None:
    x = leaf(1.0, 2.0)
    h = x * 2
    y = (Reads.apply(h) * h).sum() + (x * x).sum()
    y.backward()
    np.testing.assert_allclose(x.grad.numpy(), 64 * np.array([1.0, 8.0]) + 2 * np.array([1.0, 2.0]))


def test_gradients_that_are_missing_may_come_as_none() -> None:
    seen = []

    class Pair(Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            ctx.set_materialize_grads(False)
            return x * 1, x * 2

        @staticmethod
        def backward(ctx: Any, *grads: Any) -> Any:
            seen.append([g is None for g in grads])
            return grads[1] * 2

    x = leaf(1.0)
    Pair.apply(x)[1].sum().backward()
    assert seen == [[True, False]]
    assert x.grad.item() == 2.0


def test_without_gradients_nothing_is_kept() -> None:
    with treadle.no_grad():
        y = Cube.apply(leaf(1.0))
    assert not y.requires_grad
    assert not Cube.apply(treadle.ones(2)).requires_grad
    with pytest.raises(NotImplementedError, match="forward"):
        Function.apply(treadle.ones(1))


# --- derivatives of functions ------------------------------------------------------------------


def test_jacobian_and_products() -> None:
    matrix = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 4.0]])
    a = treadle.from_numpy(matrix)
    x = treadle.tensor([0.3, -0.7], dtype=treadle.float64)

    def f(v: Any) -> Any:
        return (a @ v).sin()

    want = np.cos(matrix @ x.numpy())[:, None] * matrix
    np.testing.assert_allclose(jacobian(f, x).numpy(), want)
    weights = treadle.tensor([1.0, 2.0, 3.0], dtype=treadle.float64)
    value, left = vjp(f, x, weights)
    np.testing.assert_allclose(value.numpy(), np.sin(matrix @ x.numpy()))
    np.testing.assert_allclose(left.numpy(), weights.numpy() @ want)
    _, right = jvp(f, x, treadle.tensor([1.0, -2.0], dtype=treadle.float64))
    np.testing.assert_allclose(right.numpy(), want @ np.array([1.0, -2.0]))


def test_hessian() -> None:
    x = treadle.tensor([0.3, -0.7], dtype=treadle.float64)

    def f(v: Any) -> Any:
        return v[0] ** 2 * v[1] + v[1] ** 3

    want = np.array([[2 * -0.7, 2 * 0.3], [2 * 0.3, 6 * -0.7]])
    np.testing.assert_allclose(hessian(f, x).numpy(), want, atol=1e-12)
    value, product = hvp(f, x, treadle.tensor([1.0, 2.0], dtype=treadle.float64))
    np.testing.assert_allclose(value.item(), 0.09 * -0.7 - 0.343)
    np.testing.assert_allclose(product.numpy(), want @ np.array([1.0, 2.0]))


def test_jacobian_of_several_inputs_and_outputs() -> None:
    x, y = treadle.ones(2, dtype=treadle.float64), treadle.ones(3, dtype=treadle.float64)
    table = jacobian(lambda a, b: (a * 2, b.sum() * a.sum()), (x, y))
    assert [[tuple(t.shape) for t in row] for row in table] == [[(2, 2), (2, 3)], [(2,), (3,)]]
    np.testing.assert_allclose(table[0][0].numpy(), 2 * np.eye(2))
    np.testing.assert_allclose(table[0][1].numpy(), np.zeros((2, 3)))
    np.testing.assert_allclose(table[1][1].numpy(), [2.0, 2.0, 2.0])
