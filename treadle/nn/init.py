"""Initial values of parameters: in place, without history, under PyTorch's names and formulas."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

from treadle.base.lazy import LazyModule
from treadle.tensor import no_grad
from treadle.tensor.creation import eye, from_numpy
from treadle.tensor.random import Generator, host_generator

np = LazyModule("numpy")


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def wrapper(tensor: Any, *args: Any, **kwargs: Any) -> Any:
        with no_grad():
            return function(tensor, *args, **kwargs)

    return wrapper


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor by which a nonlinearity shrinks the standard deviation of what passes.

    Args:
        nonlinearity: its name in `nn.functional`, such as `"relu"` or `"leaky_relu"`.
        param: the negative slope of `"leaky_relu"` (default 0.01).
    """
    if nonlinearity == "leaky_relu":
        slope = 0.01 if param is None else param
        if isinstance(slope, bool) or not isinstance(slope, (int, float)):
            raise ValueError(f"negative_slope {param} not a valid number")
        return math.sqrt(2.0 / (1 + slope**2))
    gains = {"tanh": 5.0 / 3, "relu": math.sqrt(2.0), "selu": 3.0 / 4}
    plain = {"linear", "sigmoid", *(f"conv{k}{n}d" for k in ("", "_transpose") for n in (1, 2, 3))}
    if nonlinearity not in gains and nonlinearity not in plain:
        raise ValueError(f"Unsupported nonlinearity {nonlinearity}")
    return gains.get(nonlinearity, 1.0)


def _fans(tensor: Any) -> tuple[int, int]:
    """The inputs and the outputs that one element of the tensor's result depends on."""
    shape = tuple(tensor.shape)
    if len(shape) < 2:
        raise ValueError(
            "Fan in and fan out can not be computed for tensor with fewer than 2 dimensions"
        )
    window = math.prod(shape[2:])
    return shape[1] * window, shape[0] * window


_calculate_fan_in_and_fan_out = _fans


@_in_place
def uniform_(
    tensor: Any, a: float = 0.0, b: float = 1.0, generator: Generator | None = None
) -> Any:
    """Uniform on [a, b)."""
    return tensor.uniform_(a, b, generator=generator)


@_in_place
def normal_(
    tensor: Any, mean: float = 0.0, std: float = 1.0, generator: Generator | None = None
) -> Any:
    """Normal with a mean and a standard deviation."""
    return tensor.normal_(mean, std, generator=generator)


@_in_place
def trunc_normal_(
    tensor: Any, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Generator | None = None,
) -> Any:  # fmt: skip
    """Normal with a mean and a standard deviation, limited to [a, b]."""

    def below(x: float) -> float:
        return (1.0 + math.erf(x / math.sqrt(2.0))) / 2.0

    if mean < a - 2 * std or mean > b + 2 * std:
        warnings.warn(
            "mean is more than 2 std from [a, b] in nn.init.trunc_normal_. The distribution of "
            "values may be incorrect.",
            stacklevel=3,
        )
    low, high = below((a - mean) / std), below((b - mean) / std)
    u = host_generator(generator).uniform(low, high, tuple(tensor.shape))
    values = _normal_quantile(u) * std + mean
    return tensor.copy_(from_numpy(np.clip(values, a, b).astype(tensor.dtype.numpy)))


def _normal_quantile(p: Any) -> Any:
    """The inverse of the normal distribution function, to a relative error of 1.2e-9.

    Source: P. J. Acklam, "An algorithm for computing the inverse normal cumulative distribution
    function" (2003), two rational approximations.
    """
    a = (-3.969683028665376e01, 2.209460984245205e02, -2.759285104469687e02,
         1.383577518672690e02, -3.066479806614716e01, 2.506628277459239e00)  # fmt: skip
    b = (-5.447609879822406e01, 1.615858368580409e02, -1.556989798598866e02,
         6.680131188771972e01, -1.328068155288572e01, 1.0)  # fmt: skip
    c = (-7.784894002430293e-03, -3.223964580411365e-01, -2.400758277161838e00,
         -2.549732539343734e00, 4.374664141464968e00, 2.938163982698783e00)  # fmt: skip
    d = (7.784695709041462e-03, 3.224671290700398e-01, 2.445134137142996e00,
         3.754408661907416e00, 1.0)  # fmt: skip
    q = p - 0.5
    middle = np.polyval(a, q * q) * q / np.polyval(b, q * q)
    t = np.sqrt(-2 * np.log(np.clip(np.minimum(p, 1 - p), 1e-300, 0.5)))
    tail = np.polyval(c, t) / np.polyval(d, t)
    return np.where(np.abs(q) <= 0.47575, middle, np.where(q < 0, tail, -tail))


@_in_place
def constant_(tensor: Any, val: float) -> Any:
    """One value everywhere."""
    return tensor.fill_(val)


@_in_place
def ones_(tensor: Any) -> Any:
    """Ones everywhere."""
    return tensor.fill_(1.0)


@_in_place
def zeros_(tensor: Any) -> Any:
    """Zeros everywhere."""
    return tensor.zero_()


@_in_place
def eye_(tensor: Any) -> Any:
    """The identity matrix."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    return tensor.copy_(eye(*tensor.shape, dtype=tensor.dtype))


@_in_place
def dirac_(tensor: Any, groups: int = 1) -> Any:
    """A convolution's identity: each channel passes as it is, in each of the groups."""
    shape = tuple(tensor.shape)
    if len(shape) not in (3, 4, 5):
        raise ValueError("Only tensors with 3, 4, or 5 dimensions are supported")
    if shape[0] % groups:
        raise ValueError("dim 0 must be divisible by groups")
    values = np.zeros(shape, tensor.dtype.numpy)
    outs = shape[0] // groups
    middle = tuple(k // 2 for k in shape[2:])
    for group in range(groups):
        for channel in range(min(outs, shape[1])):
            values[(group * outs + channel, channel, *middle)] = 1
    return tensor.copy_(from_numpy(values))


@_in_place
def xavier_uniform_(tensor: Any, gain: float = 1.0, generator: Generator | None = None) -> Any:
    """Uniform with the variance `gain^2 * 2 / (fan_in + fan_out)` (Glorot and Bengio, 2010)."""
    bound = math.sqrt(3.0) * gain * math.sqrt(2.0 / sum(_fans(tensor)))
    return tensor.uniform_(-bound, bound, generator=generator)


@_in_place
def xavier_normal_(tensor: Any, gain: float = 1.0, generator: Generator | None = None) -> Any:
    """Normal with the variance `gain^2 * 2 / (fan_in + fan_out)` (Glorot and Bengio, 2010)."""
    std = gain * math.sqrt(2.0 / sum(_fans(tensor)))
    return tensor.normal_(0.0, std, generator=generator)


def _kaiming_std(tensor: Any, a: float, mode: str, nonlinearity: str) -> float:
    modes = {"fan_in": 0, "fan_out": 1}
    if mode.lower() not in modes:
        raise ValueError(f"Mode {mode} not supported, please use one of {list(modes)}")
    fan = _fans(tensor)[modes[mode.lower()]]
    return calculate_gain(nonlinearity, a) / math.sqrt(fan)


def _is_empty(tensor: Any) -> bool:
    if 0 in tensor.shape:
        warnings.warn("Initializing zero-element tensors is a no-op", stacklevel=4)
        return True
    return False


@_in_place
def kaiming_uniform_(
    tensor: Any, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Any:  # fmt: skip
    """Uniform with the standard deviation `gain / sqrt(fan)` (He et al., 2015).

    Args:
        a: the negative slope of the rectifier that follows.
        mode: `"fan_in"` keeps the variance forward, `"fan_out"` backward.
        nonlinearity: what follows; its gain is `calculate_gain`.
    """
    if _is_empty(tensor):
        return tensor
    bound = math.sqrt(3.0) * _kaiming_std(tensor, a, mode, nonlinearity)
    return tensor.uniform_(-bound, bound, generator=generator)


@_in_place
def kaiming_normal_(
    tensor: Any, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Generator | None = None,
) -> Any:  # fmt: skip
    """Normal with the standard deviation `gain / sqrt(fan)` (He et al., 2015)."""
    if _is_empty(tensor):
        return tensor
    return tensor.normal_(0.0, _kaiming_std(tensor, a, mode, nonlinearity), generator=generator)


@_in_place
def orthogonal_(tensor: Any, gain: float = 1, generator: Generator | None = None) -> Any:
    """A matrix (or more axes seen as one) with orthonormal rows or columns, times `gain`."""
    if tensor.ndim < 2:
        raise ValueError("Only tensors with 2 or more dimensions are supported")
    if tensor.numel() == 0:
        return tensor
    rows = tensor.shape[0]
    columns = tensor.numel() // rows
    draw = host_generator(generator).standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(draw)
    q *= np.sign(np.diag(r))
    q = q.T if rows < columns else q
    values = np.ascontiguousarray((gain * q).reshape(tuple(tensor.shape)))
    return tensor.copy_(from_numpy(values.astype(tensor.dtype.numpy)))


@_in_place
def sparse_(
    tensor: Any, sparsity: float, std: float = 0.01, generator: Generator | None = None
) -> Any:
    """Normal, with a share `sparsity` of each column set to zero."""
    if tensor.ndim != 2:
        raise ValueError("Only tensors with 2 dimensions are supported")
    rows, columns = tensor.shape
    draw = host_generator(generator)
    values = draw.standard_normal((rows, columns)) * std
    for column in range(columns):
        values[draw.permutation(rows)[: math.ceil(sparsity * rows)], column] = 0
    return tensor.copy_(from_numpy(values.astype(tensor.dtype.numpy)))
