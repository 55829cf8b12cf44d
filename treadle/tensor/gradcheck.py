"""Gradients against finite differences: how one tests a `Function` of one's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from treadle.base.errors import GradientError
from treadle.base.lazy import LazyModule
from treadle.tensor.autograd import grad
from treadle.tensor.creation import from_numpy, zeros_like
from treadle.tensor.random import randn
from treadle.tensor.record import Lazy

np = LazyModule("numpy")


class GradcheckError(GradientError):
    """An analytical gradient that differs from the numerical one."""


def _tensors(value: Any) -> list[Any]:
    parts = value if isinstance(value, (tuple, list)) else (value,)
    return [t for t in parts if isinstance(t, Lazy)]


def _moved(inputs: list[Any], i: int, at: int, by: float) -> list[Any]:
    """The inputs with one element of one of them changed."""
    array = inputs[i].detach().numpy().copy()
    array.reshape(-1)[at] += by
    changed = from_numpy(array).requires_grad_()
    return [changed if k == i else x for k, x in enumerate(inputs)]


def _numerical(function: Callable[..., Any], inputs: list[Any], i: int, eps: float) -> list[Any]:
    """For each output the matrix of its elements by those of input `i`, by central differences."""
    columns: list[list[Any]] = []
    for at in range(inputs[i].numel()):
        ends = []
        for by in (eps, -eps):
            outs = _tensors(function(*_moved(inputs, i, at, by)))
            ends.append([o.detach().numpy().reshape(-1).astype(np.float64) for o in outs])
        columns.append([(high - low) / (2 * eps) for high, low in zip(*ends, strict=True)])
    return [np.stack(parts) for parts in zip(*columns, strict=True)]


def _analytical(output: Any, x: Any) -> Any:
    """The matrix of the elements of an output by those of an input, by one backward a row."""
    rows = []
    for at in range(output.numel()):
        seed = np.zeros(tuple(output.shape), output.dtype.numpy)
        seed.reshape(-1)[at] = 1
        (g,) = grad(output, x, from_numpy(seed), retain_graph=True, allow_unused=True)
        rows.append((zeros_like(x) if g is None else g).detach().numpy().reshape(-1))
    return np.stack(rows, 1)


def gradcheck(
    func: Callable[..., Any],
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether the gradients of a function agree with central differences.

    Args:
        func: takes the inputs, gives a tensor or a tuple of them.
        inputs: a tensor or a sequence; those that require grad are checked, in float64.
        eps: the step of the differences.
        atol, rtol: how far the two may differ.
        raise_exception: raise instead of giving `False`.

    Raises:
        GradcheckError: they differ.
        ValueError: no input requires grad.

    Example:
        >>> import treadle
        >>> x = treadle.tensor([0.5, 1.0], dtype=treadle.float64, requires_grad=True)
        >>> treadle.autograd.gradcheck(treadle.sin, x)
        True
    """
    given = [inputs] if isinstance(inputs, Lazy) else list(inputs)
    checked = [i for i, x in enumerate(given) if isinstance(x, Lazy) and x._needs]
    if not checked:
        raise ValueError(
            "gradcheck expects at least one input tensor to require gradient, but none of them do"
        )
    outputs = [o for o in _tensors(func(*given)) if o._node.dtype.kind == "f"]
    for i in checked:
        numerical = _numerical(func, given, i, eps)
        for k, output in enumerate(outputs):
            analytical = (
                _analytical(output, given[i]) if output._needs else np.zeros_like(numerical[k])
            )
            if not np.allclose(analytical, numerical[k], rtol, atol, equal_nan=True):
                if not raise_exception:
                    return False
                raise GradcheckError(
                    f"Jacobian mismatch for output {k} with respect to input {i},\n"
                    f"numerical:\n{numerical[k]}\nanalytical:\n{analytical}"
                )
    return True


def gradgradcheck(
    func: Callable[..., Any],
    inputs: Any,
    grad_outputs: Sequence[Any] | None = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
) -> bool:
    """Whether the gradients of the gradients of a function agree with central differences.

    Args:
        grad_outputs: the weights of the first gradients (default: random).
        func, inputs, eps, atol, rtol, raise_exception: as for `gradcheck`.
    """
    given = [inputs] if isinstance(inputs, Lazy) else list(inputs)
    outputs = [o for o in _tensors(func(*given)) if o._needs]
    if grad_outputs is None:
        weights = [randn(tuple(o.shape), dtype=o.dtype).requires_grad_() for o in outputs]
    else:
        weights = list(grad_outputs)
    n = len(given)

    def first(*args: Any) -> Any:
        outs = [o for o in _tensors(func(*args[:n])) if o._needs]
        wanted = [x for x in args[:n] if isinstance(x, Lazy) and x._needs]
        found = grad(outs, wanted, list(args[n:]), create_graph=True, allow_unused=True)
        return tuple(g for g in found if g is not None)

    return gradcheck(
        first, [*given, *weights], eps=eps, atol=atol, rtol=rtol, raise_exception=raise_exception
    )
