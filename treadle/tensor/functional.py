"""Derivatives of functions: Jacobians, Hessians and their products with vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.base.errors import GradientError
from treadle.tensor.autograd import grad
from treadle.tensor.creation import ones_like, zeros_like
from treadle.tensor.grad_mode import enable_grad
from treadle.tensor.movement import reshape, stack
from treadle.tensor.record import Lazy


def _many(value: Any) -> tuple[bool, tuple[Any, ...]]:
    single = isinstance(value, Lazy)
    return not single, (value,) if single else tuple(value)


def _fresh(inputs: tuple[Any, ...], create_graph: bool) -> tuple[Any, ...]:
    """The inputs as tensors to differentiate by: with their history only if that is wanted."""
    if create_graph:
        return tuple(x if x._needs else x.detach().requires_grad_() for x in inputs)
    return tuple(x.detach().clone().requires_grad_() for x in inputs)


def _finished(values: list[Any], create_graph: bool) -> list[Any]:
    return values if create_graph else [v.detach() for v in values]


def _unpacked(many: bool, values: Any) -> Any:
    return tuple(values) if many else values[0]


def _gradients(outputs: Any, inputs: Any, weights: Any, create_graph: bool) -> list[Any]:
    """Gradients with zeros where an output does not depend on an input."""
    pairs = [(o, w) for o, w in zip(outputs, weights, strict=True) if o._needs]
    if not pairs:
        return [zeros_like(x) for x in inputs]
    found = grad(
        [o for o, _ in pairs], list(inputs), [w for _, w in pairs], retain_graph=True,
        create_graph=create_graph, allow_unused=True,
    )  # fmt: skip
    return [zeros_like(x) if g is None else g for g, x in zip(found, inputs, strict=True)]


@enable_grad()
def jacobian(
    func: Callable[..., Any], inputs: Any, create_graph: bool = False, strict: bool = False
) -> Any:
    """The derivatives of every element of the outputs by every element of the inputs.

    Args:
        func: takes the inputs, gives a tensor or a tuple of them.
        inputs: a tensor or a tuple of them.
        create_graph: record the derivatives with history.
        strict: refuse outputs that depend on no input instead of giving zeros.

    Returns:
        A tensor of the shape of the output followed by that of the input; for tuples a tuple over
        the outputs of tuples over the inputs.
    """
    many_in, given = _many(inputs)
    xs = _fresh(given, create_graph)
    many_out, outputs = _many(func(*xs))
    table = []
    for output in outputs:
        if strict and not output._needs:
            raise GradientError("jacobian: an output of the function is independent of the inputs")
        rows: list[list[Any]] = [[] for _ in xs]
        flat = reshape(output, -1)
        for i in range(flat.numel()):
            one = flat[i]
            for row, g in zip(rows, _gradients([one], xs, [ones_like(one)], create_graph),
                              strict=True):  # fmt: skip
                row.append(g)
        shapes = [(*output._node.shape, *x._node.shape) for x in xs]
        blocks = [
            reshape(stack(row), shape) if row else reshape(zeros_like(output), shape)
            for row, shape in zip(rows, shapes, strict=True)
        ]
        table.append(_unpacked(many_in, _finished(blocks, create_graph)))
    return _unpacked(many_out, table)


def hessian(func: Callable[..., Any], inputs: Any, create_graph: bool = False) -> Any:
    """The second derivatives of a function with one element by every pair of input elements.

    Returns:
        A tensor of the shape of the input twice; for tuples a tuple of tuples.
    """
    many, _ = _many(inputs)

    def first(*xs: Any) -> Any:
        output = func(*xs)
        if output._node.shape not in ((), (1,)):
            raise GradientError("hessian: the function must give a tensor with one element")
        return _unpacked(many, _gradients([output], xs, [ones_like(output)], True))

    return jacobian(first, inputs, create_graph)


@enable_grad()
def vjp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False) -> Any:
    """The product of a vector and the Jacobian: gradients with the outputs weighted by `v`.

    Returns:
        The outputs of the function, and for each input its gradient.
    """
    many_in, given = _many(inputs)
    xs = _fresh(given, create_graph)
    many_out, outputs = _many(func(*xs))
    weights = tuple(map(ones_like, outputs)) if v is None else _many(v)[1]
    found = _gradients(outputs, xs, weights, create_graph)
    results = _finished(list(outputs), create_graph)
    return _unpacked(many_out, results), _unpacked(many_in, _finished(found, create_graph))


@enable_grad()
def jvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False) -> Any:
    """The product of the Jacobian and a vector: how the outputs change along `v`.

    It is the gradient, by the weights of the outputs, of the gradient weighted so.

    Returns:
        The outputs of the function, and for each its derivative along `v`.
    """
    _, given = _many(inputs)
    xs = _fresh(given, create_graph)
    many_out, outputs = _many(func(*xs))
    along = tuple(map(ones_like, xs)) if v is None else _many(v)[1]
    weights = tuple(zeros_like(o).requires_grad_() for o in outputs)
    first = _gradients(outputs, xs, weights, True)
    found = _gradients(first, weights, along, create_graph)
    results = _finished(list(outputs), create_graph)
    return _unpacked(many_out, results), _unpacked(many_out, _finished(found, create_graph))


@enable_grad()
def hvp(func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False) -> Any:
    """The product of the Hessian of a function with one element and a vector.

    Returns:
        The output of the function, and for each input its part of the product.
    """
    many, given = _many(inputs)
    xs = _fresh(given, create_graph)
    output = func(*xs)
    along = tuple(map(ones_like, xs)) if v is None else _many(v)[1]
    first = _gradients([output], xs, [ones_like(output)], True)
    found = _gradients(first, xs, along, create_graph)
    (value,) = _finished([output], create_graph)
    return value, _unpacked(many, _finished(found, create_graph))


vhp = hvp
"""The Hessian is symmetric: the product from the left is that from the right."""
