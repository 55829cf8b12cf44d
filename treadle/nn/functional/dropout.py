"""Dropout: random zeros in training.

The mask is a pure function of a key, drawn inside the kernel that uses it, in the forward and in
the backward pass: it is never stored.
"""

from __future__ import annotations

from typing import Any

from treadle.base import dtype as dt
from treadle.nn.functional.common import shape_of
from treadle.tensor import block
from treadle.tensor import primitive as pr
from treadle.tensor.inplace import write
from treadle.tensor.random import next_key, uniform


def _require_probability(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _drop(x: Any, key: Any, p: float, shared: tuple[int, ...]) -> Any:
    """Zeros with probability p, the rest scaled up; one draw for all of the `shared` axes."""
    zero = pr.constant(0, x._node.dtype)
    if p == 1.0:
        return x * zero
    shape = tuple(1 if a in shared else n for a, n in enumerate(shape_of(x)))
    keep = uniform(key, shape, dt.float32) >= p
    return pr.select(keep, x * (1.0 / (1.0 - p)), zero)


def _dropped(x: Any, p: float, training: bool, inplace: bool, shared: tuple[int, ...]) -> Any:
    _require_probability(p)
    if not training or p == 0.0:
        return x
    out = block(_drop, (x, next_key()), (p, shared))
    return write(x, out) if inplace else out


def dropout(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Zeros each element with probability p in training, and scales the others by `1 / (1 - p)`."""
    return _dropped(input, p, training, inplace, ())


def _channels(input: Any, p: float, training: bool, inplace: bool, rank: int) -> Any:
    extents = len(shape_of(input))
    shared = tuple(range(extents - rank, extents))
    return _dropped(input, p, training, inplace, shared)


def dropout1d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Zeros whole channels of `(n, channels, length)` with probability p in training."""
    return _channels(input, p, training, inplace, 1)


def dropout2d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Zeros whole channels of `(n, channels, h, w)` with probability p in training."""
    return _channels(input, p, training, inplace, 2)


def dropout3d(input: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    """Zeros whole channels of `(n, channels, d, h, w)` with probability p in training."""
    return _channels(input, p, training, inplace, 3)


_SELU_LIMIT = -1.7580993408473766
"""What `selu` tends to at minus infinity: alpha dropout's value of a dropped element."""


def _alpha(x: Any, key: Any, p: float, shared: tuple[int, ...]) -> Any:
    shape = tuple(1 if a in shared else n for a, n in enumerate(shape_of(x)))
    keep = uniform(key, shape, dt.float32) >= p
    scale = ((1 - p) * (1 + p * _SELU_LIMIT**2)) ** -0.5
    dropped = pr.constant(_SELU_LIMIT, x._node.dtype)
    return pr.select(keep, x, dropped) * scale - scale * p * _SELU_LIMIT


def alpha_dropout(input: Any, p: float = 0.5, training: bool = False, inplace: bool = False) -> Any:
    """Dropout that keeps mean and variance of what comes out of `selu`."""
    _require_probability(p)
    if not training or p == 0.0:
        return input
    out = input * 0.0 if p == 1.0 else block(_alpha, (input, next_key()), (p, ()))
    return write(input, out) if inplace else out


def feature_alpha_dropout(
    input: Any, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Any:
    """Alpha dropout of whole channels."""
    _require_probability(p)
    if not training or p == 0.0:
        return input
    shared = tuple(range(2, len(shape_of(input))))
    out = input * 0.0 if p == 1.0 else block(_alpha, (input, next_key()), (p, shared))
    return write(input, out) if inplace else out
