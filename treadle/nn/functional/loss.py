"""Losses of values: how far predictions are from targets, and of pairs and triplets."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

from treadle.base.symbolic import real
from treadle.nn.functional.activation import _log_one_plus_exp
from treadle.nn.functional.common import (
    length,
    reduced,
    require_reduction,
    require_same_shape,
    shape_of,
)
from treadle.nn.functional.linear import pairwise_distance
from treadle.tensor import block
from treadle.tensor import primitive as pr


def _elementwise(
    body: Callable[..., Any], inputs: tuple[Any, ...], attrs: tuple[Any, ...], reduction: str
) -> Any:
    require_reduction(reduction)
    return block(_reduced_body, inputs, (body, attrs, reduction))


def _reduced_body(*inputs: Any) -> Any:
    *tensors, body, attrs, reduction = inputs
    return reduced(body(*tensors, *attrs), reduction)


def _pair(body: Callable[..., Any], name: str, input: Any, target: Any, weight: Any,
          attrs: tuple[Any, ...], reduction: str) -> Any:  # fmt: skip
    if shape_of(input) != shape_of(target):
        warnings.warn(
            f"Using a target size ({shape_of(target)}) that is different to the input size "
            f"({shape_of(input)}). This will likely lead to incorrect results due to broadcasting. "
            f"Please ensure they have the same size.",
            stacklevel=3,
        )
    if weight is None:
        return _elementwise(body, (input, target), attrs, reduction)
    require_same_shape(name, input, weight)
    require_reduction(reduction)
    return block(_weighted_body, (input, target, weight), (body, attrs, reduction))


def _weighted_body(*inputs: Any) -> Any:
    x, y, weight, body, attrs, reduction = inputs
    loss = body(x, y, *attrs) * weight
    if reduction != "mean":
        return reduced(loss, reduction)
    return reduced(loss, "sum") / reduced(weight, "sum")


def mse_loss(input: Any, target: Any, size_average: Any = None, reduce: Any = None,
             reduction: str = "mean", weight: Any = None) -> Any:  # fmt: skip
    """`(input - target)^2`, reduced."""
    return _pair(_squared, "mse_loss", input, target, weight, (), reduction)


def _squared(x: Any, y: Any) -> Any:
    d = x - y
    return d * d


def l1_loss(input: Any, target: Any, size_average: Any = None, reduce: Any = None,
            reduction: str = "mean", weight: Any = None) -> Any:  # fmt: skip
    """`|input - target|`, reduced."""
    return _pair(_absolute, "l1_loss", input, target, weight, (), reduction)


def _absolute(x: Any, y: Any) -> Any:
    return (x - y).abs()


def smooth_l1_loss(input: Any, target: Any, size_average: Any = None, reduce: Any = None,
                   reduction: str = "mean", beta: float = 1.0) -> Any:  # fmt: skip
    """`d^2 / (2 beta)` where `d = |input - target| < beta`, else `d - beta / 2`."""
    if beta < 0:
        raise ValueError("smooth_l1_loss does not support negative values for beta")
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    return _pair(_smooth, "smooth_l1_loss", input, target, None, (beta,), reduction)


def _smooth(x: Any, y: Any, beta: float) -> Any:
    d = (x - y).abs()
    return pr.select(d < beta, d * d * (0.5 / beta), d - 0.5 * beta)


def huber_loss(input: Any, target: Any, reduction: str = "mean", delta: float = 1.0,
               weight: Any = None) -> Any:  # fmt: skip
    """`d^2 / 2` where `d = |input - target| < delta`, else `delta * (d - delta / 2)`."""
    if delta <= 0:
        raise ValueError("huber_loss does not support non-positive values for delta.")
    return _pair(_huber, "huber_loss", input, target, weight, (delta,), reduction)


def _huber(x: Any, y: Any, delta: float) -> Any:
    d = (x - y).abs()
    return pr.select(d < delta, d * d * 0.5, (d - 0.5 * delta) * delta)


def binary_cross_entropy(input: Any, target: Any, weight: Any = None, size_average: Any = None,
                         reduce: Any = None, reduction: str = "mean") -> Any:  # fmt: skip
    """`-(target log(input) + (1 - target) log(1 - input))` with logarithms of at least -100.

    Args:
        input: probabilities in `[0, 1]`.
        target: probabilities, of the same shape.
        weight: factors that broadcast to it.
    """
    require_same_shape("binary_cross_entropy", input, target)
    tensors = (input, target) if weight is None else (input, target, weight)
    return _elementwise(_binary, tensors, (), reduction)


def _binary(x: Any, y: Any, weight: Any = None) -> Any:
    ok = (x >= 0) & (x <= 1)
    x = pr.checked(x, ok, "binary_cross_entropy: all elements of input should be between 0 and 1")
    one = pr.constant(1, x._node.dtype)
    # As PyTorch: the value is cut at -100, the gradient at a denominator of 1e-12.
    tiny = pr.constant(1e-12, x._node.dtype)
    low = pr.constant(-100.0, x._node.dtype)
    p, q = _log_floored(x, tiny, low), _log_floored(one - x, tiny, low)
    loss = -(y * p + (one - y) * q)
    return loss if weight is None else loss * weight


def _log_floored(x: Any, tiny: Any, low: Any) -> Any:
    """`max(log(x), -100)`, whose gradient is `1 / max(x, 1e-12)`."""
    small = x < tiny
    slope = x / tiny
    with_slope = slope - pr.fixed(slope)
    return pr.select(small, pr.fixed(x.log()).maximum(low) + with_slope, pr.select(
        small, tiny, x).log())  # fmt: skip


def binary_cross_entropy_with_logits(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean", pos_weight: Any = None,
) -> Any:  # fmt: skip
    """`binary_cross_entropy(sigmoid(input), target)`, without overflow.

    Args:
        input: logits.
        target: probabilities, of the same shape.
        weight: factors that broadcast to it.
        pos_weight: factors of the positive part, that broadcast to it.
    """
    require_same_shape("binary_cross_entropy_with_logits", input, target)
    tensors = (input, target, *(t for t in (weight, pos_weight) if t is not None))
    flags = (weight is not None, pos_weight is not None)
    return _elementwise(_binary_logits, tensors, flags, reduction)


def _binary_logits(x: Any, y: Any, *rest: Any) -> Any:
    *tensors, has_weight, has_positive = rest
    one = pr.constant(1, x._node.dtype)
    # log(1 + exp(-x)): the cost of a positive; that of a negative is x more.
    positive = _log_one_plus_exp(-x)
    if has_positive:
        factor = (tensors[-1] - one) * y + one
        loss = (one - y) * x + factor * positive
    else:
        loss = (one - y) * x + positive
    return loss * tensors[0] if has_weight else loss


def kl_div(input: Any, target: Any, size_average: Any = None, reduce: Any = None,
           reduction: str = "mean", log_target: bool = False) -> Any:  # fmt: skip
    """`target * (log(target) - input)`, reduced; `"batchmean"` divides the sum by the batch.

    Args:
        input: log-probabilities.
        target: probabilities, or their logarithms under `log_target`.
    """
    if reduction == "batchmean":
        total = _elementwise(_kl, (input, target), (log_target,), "sum")
        n = shape_of(input)[0] if shape_of(input) else 1
        return total / real(n)
    return _elementwise(_kl, (input, target), (log_target,), reduction)


def _kl(x: Any, y: Any, log_target: bool) -> Any:
    if log_target:
        return y.exp() * (y - x)
    return _x_log_x(y) - y * x


def _x_log_x(y: Any) -> Any:
    """`y log(y)`, 0 at 0."""
    zero, one = pr.constant(0, y._node.dtype), pr.constant(1, y._node.dtype)
    empty = y == zero
    return pr.select(empty, zero, y * pr.select(empty, one, y).log())


def poisson_nll_loss(
    input: Any, target: Any, log_input: bool = True, full: bool = False, size_average: Any = None,
    eps: float = 1e-8, reduce: Any = None, reduction: str = "mean",
) -> Any:  # fmt: skip
    """`exp(input) - target * input`, or `input - target * log(input + eps)` of plain rates; `full`
    adds Stirling's approximation of `log(target!)`."""
    return _elementwise(_poisson, (input, target), (log_input, full, eps), reduction)


def _poisson(x: Any, y: Any, log_input: bool, full: bool, eps: float) -> Any:
    loss = x.exp() - y * x if log_input else x - y * (x + eps).log()
    if full:
        one, zero = pr.constant(1, x._node.dtype), pr.constant(0, x._node.dtype)
        large = y > one
        safe = pr.select(large, y, one)
        stirling = safe * safe.log() - safe + (safe * (2 * math.pi)).log() * 0.5
        loss = loss + pr.select(large, stirling, zero)
    return loss


def gaussian_nll_loss(input: Any, target: Any, var: Any, full: bool = False, eps: float = 1e-6,
                      reduction: str = "mean") -> Any:  # fmt: skip
    """`(log(var) + (input - target)^2 / var) / 2` with a variance of at least `eps`."""
    if not hasattr(var, "_node"):
        var = input * 0.0 + float(var)
    elif shape_of(var) != shape_of(input) and shape_of(input)[:-1] == shape_of(var):
        var = var.unsqueeze(-1)
    return _elementwise(_gaussian, (input, target, var), (full, eps), reduction)


def _gaussian(x: Any, y: Any, var: Any, full: bool, eps: float) -> Any:
    # The floor under the variance takes no part in its gradient.
    safe = var + pr.fixed(var.maximum(pr.constant(eps, var._node.dtype)) - var)
    loss = (safe.log() + _squared(x, y) / safe) * 0.5
    return loss + 0.5 * math.log(2 * math.pi) if full else loss


def soft_margin_loss(input: Any, target: Any, size_average: Any = None, reduce: Any = None,
                     reduction: str = "mean") -> Any:  # fmt: skip
    """`log(1 + exp(-target * input))` with targets -1 and 1."""
    return _elementwise(_soft_margin, (input, target), (), reduction)


def _soft_margin(x: Any, y: Any) -> Any:
    return _log_one_plus_exp(-(y * x))


def hinge_embedding_loss(
    input: Any, target: Any, margin: float = 1.0, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    """`input` where the target is 1, `max(0, margin - input)` where it is -1."""
    return _elementwise(_hinge, (input, target), (margin,), reduction)


def _hinge(x: Any, y: Any, margin: float) -> Any:
    zero = pr.constant(0, x._node.dtype)
    apart = pr.select(y == 1, zero, (margin - x).relu())
    return apart + pr.select(y == -1, zero, x)


def margin_ranking_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Any:  # fmt: skip
    """`max(0, -target * (input1 - input2) + margin)`."""
    return _elementwise(_ranking, (input1, input2, target), (margin,), reduction)


def _ranking(a: Any, b: Any, y: Any, margin: float) -> Any:
    return (margin - y * (a - b)).relu()


def cosine_embedding_loss(
    input1: Any, input2: Any, target: Any, margin: float = 0, size_average: Any = None,
    reduce: Any = None, reduction: str = "mean",
) -> Any:  # fmt: skip
    """`1 - cos` where the target is 1, `max(0, cos - margin)` where it is -1."""
    return _elementwise(_cosine_embedding, (input1, input2, target), (margin,), reduction)


def _cosine_embedding(a: Any, b: Any, y: Any, margin: float) -> Any:
    eps = 1e-12
    cosine = (a * b).sum(-1) / (((a * a).sum(-1) + eps) * ((b * b).sum(-1) + eps)).sqrt()
    one, zero = pr.constant(1, a._node.dtype), pr.constant(0, a._node.dtype)
    alike = pr.select(y == 1, one - cosine, zero)
    return alike + pr.select(y == -1, (cosine - margin).relu(), zero)


def triplet_margin_loss(
    anchor: Any, positive: Any, negative: Any, margin: float = 1.0, p: float = 2,
    eps: float = 1e-6, swap: bool = False, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    """`max(0, |anchor - positive| - |anchor - negative| + margin)` with p-norms."""
    return _elementwise(_triplet, (anchor, positive, negative), (margin, p, eps, swap), reduction)


def triplet_margin_with_distance_loss(
    anchor: Any, positive: Any, negative: Any, *,
    distance_function: Callable[[Any, Any], Any] | None = None, margin: float = 1.0,
    swap: bool = False, reduction: str = "mean",
) -> Any:  # fmt: skip
    """`max(0, d(anchor, positive) - d(anchor, negative) + margin)` with any distance; `swap`
    takes the nearer of the anchor and the positive to the negative."""
    if margin <= 0:
        raise ValueError(f"margin must be greater than 0, got {margin}")
    require_reduction(reduction)
    distance = distance_function or pairwise_distance
    far = distance(anchor, negative)
    if swap:
        far = far.minimum(distance(positive, negative))
    return reduced((distance(anchor, positive) - far + margin).relu(), reduction)


def _triplet(a: Any, b: Any, c: Any, margin: float, p: float, eps: float, swap: bool) -> Any:
    far = length(a - c + eps, p, -1, False)
    if swap:
        far = far.minimum(length(b - c + eps, p, -1, False))
    return (length(a - b + eps, p, -1, False) - far + margin).relu()
