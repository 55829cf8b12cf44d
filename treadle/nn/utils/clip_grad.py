"""Limits on gradients: in place, recorded with the step that they belong to."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from treadle.base import dtype as dt
from treadle.tensor import Tensor, block, no_grad, tensor
from treadle.tensor import primitive as pr
from treadle.tensor.record import update


def _gradients(parameters: Any) -> list[Any]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p._grad for p in listed if p._grad is not None]


def _total(*args: Any) -> Any:
    """The p-norm of all elements of some tensors as one vector."""
    *tensors, p = args
    out: Any = None
    for x in tensors:
        axes = tuple(range(len(x._node.shape)))
        size = x.abs()
        if p == math.inf:
            part = pr.peak(size, axes)
        else:
            part = pr.total(size * size if p == 2 else size if p == 1 else size**p, axes)
        part = pr.shaped(part, ())
        if out is None:
            out = part
        else:
            out = out.maximum(part) if p == math.inf else out + part
    if p in (1, math.inf):
        return out
    return out.sqrt() if p == 2 else out ** (1.0 / p)


def get_total_norm(
    tensors: Any, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Any:  # fmt: skip
    """The p-norm of all elements of some tensors as one vector.

    Raises:
        RuntimeError: under `error_if_nonfinite`, the norm is infinite or NaN; this reads it.
    """
    listed = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not listed:
        return tensor(0.0)
    with no_grad():
        total = block(_total, listed, (float(norm_type),))
    if error_if_nonfinite and not math.isfinite(total.item()):
        raise RuntimeError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, "
            f"so it cannot be clipped. To disable this error and scale the gradients by the "
            f"non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return total


def _scaled(*args: Any) -> tuple[Any, ...]:
    *gradients, total, limit = args
    factor = limit / (total + pr.constant(1e-6, total._node.dtype))
    factor = factor.minimum(pr.constant(1.0, total._node.dtype))
    return tuple(g * pr.cast(factor, g._node.dtype) for g in gradients) + (total,)


def clip_grads_with_norm_(
    parameters: Any, max_norm: float, total_norm: Any, foreach: bool | None = None
) -> None:
    """Scales gradients, whose norm is given, so that it is at most `max_norm`."""
    gradients = _gradients(parameters)
    if gradients:
        with no_grad():
            inputs = [*gradients, total_norm]
            update(_scaled, inputs, (float(max_norm),), total_norm.dtype, (), inputs)


def clip_grad_norm_(
    parameters: Any, max_norm: float, norm_type: float = 2.0, error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Any:  # fmt: skip
    """Scales gradients so that the norm of all of them as one vector is at most `max_norm`.

    Args:
        parameters: a parameter, or several.
        max_norm: the limit.
        norm_type: the p of the norm; may be inf.
        error_if_nonfinite: raise where the norm is infinite or NaN; this reads it.

    Returns:
        The norm before, as a 0-d tensor.
    """
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    total = get_total_norm(_gradients(listed), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(listed, max_norm, total)
    return total


def _limited(*args: Any) -> tuple[Any, ...]:
    *gradients, limit = args
    out = []
    for g in gradients:
        bound = pr.cast(limit, g._node.dtype)
        out.append(g.maximum(-bound).minimum(bound))
    return tuple(out)


def clip_grad_value_(
    parameters: Iterable[Any] | Any, clip_value: float, foreach: bool | None = None
) -> None:
    """Limits each element of gradients to `[-clip_value, clip_value]`."""
    gradients = _gradients(parameters)
    if gradients:
        with no_grad():
            update(_limited, gradients, (float(clip_value),), dt.float32, (), gradients)
