"""Windows that signals are weighed with, under PyTorch's names and defaults."""

from __future__ import annotations

import math
from typing import Any

from treadle.base.dtype import DType
from treadle.tensor import arithmetic as ar
from treadle.tensor.creation import arange, ones
from treadle.tensor.promote import get_default_dtype
from treadle.tensor.special import i0


def _phase(n: int, periodic: bool, dtype: DType | None) -> Any:
    """`k / m` for the elements k, of a period m; `None` for a window of fewer than two."""
    if n < 0:
        raise ValueError(f"window_length must be non-negative, got {n}")
    dtype = dtype or get_default_dtype()
    return None if n < 2 else ar.div(arange(n, dtype=dtype), float(n if periodic else n - 1))


def _cosines(n: int, periodic: bool, dtype: DType | None, *weights: float) -> Any:
    """`sum_j (-1)^j w_j cos(2 pi j k / m)`."""
    x = _phase(n, periodic, dtype)
    if x is None:
        return ones(n, dtype=dtype)
    out: Any = weights[0]
    for j, w in enumerate(weights[1:], 1):
        out = ar.cos(x * (2 * math.pi * j)) * (w if j % 2 == 0 else -w) + out
    return out


def hann_window(window_length: int, periodic: bool = True, *, dtype: DType | None = None,
                device: Any = None) -> Any:  # fmt: skip
    """`0.5 - 0.5 cos(2 pi k / m)`; the period m is the length, or one less if not `periodic`."""
    return _cosines(window_length, periodic, dtype, 0.5, 0.5)


def hamming_window(
    window_length: int, periodic: bool = True, alpha: float = 0.54, beta: float = 0.46, *,
    dtype: DType | None = None, device: Any = None,
) -> Any:  # fmt: skip
    """`alpha - beta cos(2 pi k / m)`."""
    return _cosines(window_length, periodic, dtype, alpha, beta)


def blackman_window(window_length: int, periodic: bool = True, *, dtype: DType | None = None,
                    device: Any = None) -> Any:  # fmt: skip
    """`0.42 - 0.5 cos(2 pi k / m) + 0.08 cos(4 pi k / m)`."""
    return _cosines(window_length, periodic, dtype, 0.42, 0.5, 0.08)


def bartlett_window(window_length: int, periodic: bool = True, *, dtype: DType | None = None,
                    device: Any = None) -> Any:  # fmt: skip
    """A triangle, `1 - |2 k / m - 1|`."""
    x = _phase(window_length, periodic, dtype)
    return ones(window_length, dtype=dtype) if x is None else -ar.abs(x * 2 - 1) + 1


def kaiser_window(
    window_length: int, periodic: bool = True, beta: float = 12.0, *,
    dtype: DType | None = None, device: Any = None,
) -> Any:  # fmt: skip
    """`i0(beta sqrt(1 - (2 k / m - 1)^2)) / i0(beta)`."""
    x = _phase(window_length, periodic, dtype)
    if x is None:
        return ones(window_length, dtype=dtype)
    inner = ar.clamp(-(x * 2 - 1).square() + 1, min=0).sqrt() * beta
    return i0(inner) / i0(ones((), dtype=inner.dtype) * beta)
