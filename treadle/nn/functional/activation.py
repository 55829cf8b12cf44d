"""Activations, and the softmax family.

The smooth ones are written with a few exponentials so that a fused kernel is bound by memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.errors import ShapeError
from treadle.nn.functional.common import shape_of
from treadle.tensor import block, no_grad
from treadle.tensor import primitive as pr
from treadle.tensor.arithmetic import relu as _relu
from treadle.tensor.inplace import write
from treadle.tensor.random import next_key, uniform
from treadle.tensor.softmax_family import log_softmax as _log_softmax
from treadle.tensor.softmax_family import softmax as _softmax
from treadle.tensor.softmax_family import softmax_of


def _like(value: float, x: Any) -> Any:
    return pr.constant(value, x._node.dtype)


def _finish(x: Any, out: Any, inplace: bool) -> Any:
    return write(x, out) if inplace else out


def relu(input: Any, inplace: bool = False) -> Any:
    """`max(input, 0)`; the gradient at 0 is 0."""
    return write(input, _relu(input)) if inplace else _relu(input)


def relu_(input: Any) -> Any:
    """`relu` in place."""
    return relu(input, True)


def relu6(input: Any, inplace: bool = False) -> Any:
    """`min(max(input, 0), 6)`."""
    return hardtanh(input, 0.0, 6.0, inplace)


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Any:
    """The input limited to `[min_val, max_val]`; the gradient at the limits is 0."""
    return _finish(input, block(_hardtanh, (input,), (min_val, max_val)), inplace)


def _hardtanh(x: Any, low: float, high: float) -> Any:
    inner = (x > low) & (x < high)
    if x._node.dtype.kind != "f":
        low, high = int(low), int(high)
    with no_grad():
        limited = x.clamp(low, high)
    return pr.select(inner, x, limited)


def threshold(input: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    """The input where it is above a threshold, else a value."""
    return _finish(input, block(_threshold, (input,), (threshold, value)), inplace)


def _threshold(x: Any, limit: float, value: float) -> Any:
    return pr.select(x > limit, x, _like(value, x))


def leaky_relu(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> Any:
    """`input` where it is positive, else `negative_slope * input`."""
    return _finish(input, block(_leaky, (input,), (negative_slope,)), inplace)


def _leaky(x: Any, slope: float) -> Any:
    return pr.select(x > _like(0, x), x, x * slope)


def prelu(input: Any, weight: Any) -> Any:
    """`input` where it is positive, else `weight * input`.

    Args:
        input: `(n, channels, *)`.
        weight: `(1,)`, or `(channels,)`.
    """
    return block(_prelu, (input, weight))


def _prelu(x: Any, w: Any) -> Any:
    rank, n = len(shape_of(x)), sh.count(shape_of(w))
    channels = shape_of(x)[1] if rank > 1 else 1
    if n not in (1, channels):
        raise ShapeError(
            f"prelu: Mismatch of parameter numbers and input channel size. Found parameter "
            f"numbers = {n} and channel size = {channels}."
        )
    column = (1, n, *(1,) * (rank - 2)) if rank > 1 else (n,) * rank
    return pr.select(x > _like(0, x), x, x * pr.shaped(w, column))


def rrelu(
    input: Any,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Any:
    """Leaky ReLU with a slope drawn from `[lower, upper)`, or the mean of both in evaluation."""
    if not training:
        return leaky_relu(input, (lower + upper) / 2, inplace)
    return _finish(input, block(_rrelu, (input, next_key()), (lower, upper)), inplace)


def _rrelu(x: Any, key: Any, lower: float, upper: float) -> Any:
    slope = uniform(key, shape_of(x), x._node.dtype) * (upper - lower) + lower
    return pr.select(x > _like(0, x), x, x * slope)


def elu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """`input` where it is positive, else `alpha * (exp(input) - 1)`."""
    return _finish(input, block(_elu, (input,), (alpha, 1.0, 1.0)), inplace)


def _elu(x: Any, alpha: float, scale: float, rate: float) -> Any:
    # The branch not taken must stay finite, or its gradient would be 0 * inf.
    negative = pr.select(x > _like(0, x), _like(0, x), x)
    inner = (negative if rate == 1 else negative * rate).expm1()
    inner = inner if alpha == 1 else inner * alpha
    out = pr.select(x > _like(0, x), x, inner)
    return out if scale == 1 else out * scale


def selu(input: Any, inplace: bool = False) -> Any:
    """`scale * elu(input, alpha)` with the constants that keep mean 0 and variance 1."""
    attrs = (1.6732632423543772848170429916717, 1.0507009873554804934193349852946, 1.0)
    return _finish(input, block(_elu, (input,), attrs), inplace)


def celu(input: Any, alpha: float = 1.0, inplace: bool = False) -> Any:
    """`input` where it is positive, else `alpha * (exp(input / alpha) - 1)`."""
    return _finish(input, block(_elu, (input,), (alpha, 1.0, 1.0 / alpha)), inplace)


def gelu(input: Any, approximate: str = "none") -> Any:
    """`input * Phi(input)` with the normal distribution function, or its approximation by tanh."""
    if approximate not in ("none", "tanh"):
        raise RuntimeError("approximate argument must be either none or tanh.")
    return block(_gelu if approximate == "none" else _gelu_tanh, (input,))


def _gelu(x: Any) -> Any:
    half = _like(0.5, x)
    return x * (half + half * (x * _like(math.sqrt(0.5), x)).erf())


def _gelu_tanh(x: Any) -> Any:
    half = _like(0.5, x)
    inner = x * (_like(math.sqrt(2 / math.pi), x) * (_like(1, x) + _like(0.044715, x) * (x * x)))
    return x * (half + half * inner.tanh())


def silu(input: Any, inplace: bool = False) -> Any:
    """`input * sigmoid(input)`."""
    return _finish(input, block(_silu, (input,)), inplace)


def _silu(x: Any) -> Any:
    return x * x.sigmoid()


def mish(input: Any, inplace: bool = False) -> Any:
    """`input * tanh(log(1 + exp(input)))`."""
    return _finish(input, block(_mish, (input,)), inplace)


def _mish(x: Any) -> Any:
    return x * _log_one_plus_exp(x).tanh()


def _log_one_plus_exp(x: Any) -> Any:
    """`log(1 + exp(x))`, which neither overflows nor loses small values."""
    return x.maximum(_like(0, x)) + (-x.abs()).exp().log1p()


def softplus(input: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    """`log(1 + exp(beta * input)) / beta`; the input itself where `beta * input > threshold`."""
    return block(_softplus, (input,), (beta, threshold))


def _softplus(x: Any, beta: float, limit: float) -> Any:
    scaled = x if beta == 1 else x * beta
    # Below the threshold exp does not overflow, and the slope is sigmoid at 0 as well.
    safe = scaled.minimum(pr.constant(limit, x._node.dtype))
    smooth = safe.exp().log1p()
    return pr.select(scaled > limit, x, smooth if beta == 1 else smooth / beta)


def logsigmoid(input: Any) -> Any:
    """`log(sigmoid(input))`, without overflow."""
    return block(_logsigmoid, (input,))


def _logsigmoid(x: Any) -> Any:
    low = x.minimum(_like(0, x))
    # |x| written as x - 2 min(x, 0): its slope at 0 makes the sum's one half.
    return low - (low + low - x).exp().log1p()


def sigmoid(input: Any) -> Any:
    """`1 / (1 + exp(-input))`."""
    return input.sigmoid()


def tanh(input: Any) -> Any:
    """The hyperbolic tangent."""
    return input.tanh()


def hardsigmoid(input: Any, inplace: bool = False) -> Any:
    """`min(max(input + 3, 0), 6) / 6`."""
    return _finish(input, block(_hardsigmoid, (input,)), inplace)


def _hardsigmoid(x: Any) -> Any:
    return _hardtanh(x * _like(1 / 6, x) + _like(0.5, x), 0.0, 1.0)


def hardswish(input: Any, inplace: bool = False) -> Any:
    """`input * min(max(input + 3, 0), 6) / 6`."""
    return _finish(input, block(_hardswish, (input,)), inplace)


def _hardswish(x: Any) -> Any:
    return x * _hardtanh(x + _like(3, x), 0.0, 6.0) * _like(1 / 6, x)


def softsign(input: Any) -> Any:
    """`input / (1 + |input|)`."""
    return block(_softsign, (input,))


def _softsign(x: Any) -> Any:
    return x / (x.abs() + _like(1, x))


def tanhshrink(input: Any) -> Any:
    """`input - tanh(input)`."""
    return block(_tanhshrink, (input,))


def _tanhshrink(x: Any) -> Any:
    return x - x.tanh()


def softshrink(input: Any, lambd: float = 0.5) -> Any:
    """The input moved towards 0 by `lambd`, and 0 within `[-lambd, lambd]`."""
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return block(_softshrink, (input,), (lambd,))


def _softshrink(x: Any, size: float) -> Any:
    zero = _like(0, x)
    return pr.select(x > size, x - size, pr.select(x < -size, x + size, zero))


def hardshrink(input: Any, lambd: float = 0.5) -> Any:
    """The input, and 0 within `[-lambd, lambd]`."""
    return block(_hardshrink, (input,), (lambd,))


def _hardshrink(x: Any, size: float) -> Any:
    return pr.select((x > size) | (x < -size), x, _like(0, x))


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    """An activation that writes to its input."""

    def activate(input: Any, *args: Any, **kwargs: Any) -> Any:
        return function(input, *args, inplace=True, **kwargs)

    activate.__name__ = f"{function.__name__}_"
    activate.__doc__ = f"`{function.__name__}` in place."
    return activate


elu_, celu_, selu_ = _in_place(elu), _in_place(celu), _in_place(selu)
hardtanh_, leaky_relu_ = _in_place(hardtanh), _in_place(leaky_relu)
rrelu_, threshold_ = _in_place(rrelu), _in_place(threshold)


def glu(input: Any, dim: int = -1) -> Any:
    """`a * sigmoid(b)` with the halves a and b of the input along `dim`."""
    return block(_glu, (input,), (dim,))


def _glu(x: Any, dim: int) -> Any:
    shape = shape_of(x)
    axis = sh.axis(dim, len(shape))
    if shape[axis] % 2:
        raise ShapeError(
            f"Halving dimension must be even, but dimension {axis} is size {shape[axis]}"
        )
    half = shape[axis] // 2
    return x.narrow(axis, 0, half) * x.narrow(axis, half, half).sigmoid()


# --- softmax -----------------------------------------------------------------------------------


def _dim(input: Any, dim: int | None) -> int:
    """The axis of a softmax whose caller names none: PyTorch's choice."""
    if dim is not None:
        return dim
    return 0 if len(shape_of(input)) in (0, 1, 3) else 1


def softmax(
    input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Any:
    """`exp(input) / sum(exp(input))` along `dim`, without overflow."""
    return _softmax(input, _dim(input, dim), dtype)


def softmin(
    input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Any:
    """`softmax(-input)` along `dim`."""
    return _softmax(-input, _dim(input, dim), dtype)


def log_softmax(
    input: Any, dim: int | None = None, _stacklevel: int = 3, dtype: DType | None = None
) -> Any:
    """The logarithm of `softmax`, exact where that underflows."""
    return _log_softmax(input, _dim(input, dim), dtype)


def gumbel_softmax(
    logits: Any, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Any:
    """A random point of the simplex by Gumbel noise; `hard` gives a one-hot with its gradient."""
    axis = sh.axis(dim, len(shape_of(logits)))
    return block(_gumbel, (logits, next_key()), (tau, hard, axis))


def _gumbel(x: Any, key: Any, tau: float, hard: bool, axis: int) -> Any:
    u = uniform(key, shape_of(x), x._node.dtype)
    tiny = _like(2.0**-25, x)
    noise = -(-(u + tiny).log()).log()
    soft = softmax_of((x + noise) / tau, axis)
    if not hard:
        return soft
    with no_grad():
        place = pr.first_position(soft, pr.peak(soft, (axis,)), (axis,))
        one = pr.cast(pr.counter(shape_of(x), axis) == place, x._node.dtype) - soft
    return one + soft
