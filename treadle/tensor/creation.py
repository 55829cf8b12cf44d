"""Making tensors: from Python and NumPy values, and from nothing but a shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtype as dt
from treadle.base.device import Device, device_of
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.base.shape import count
from treadle.ops.source import FULL, IOTA
from treadle.ops.view import ALIAS, EXPAND
from treadle.tensor import arithmetic as ar
from treadle.tensor.host import from_numpy
from treadle.tensor.movement import reshape, sizes
from treadle.tensor.promote import as_dtype, get_default_dtype, number_dtype
from treadle.tensor.record import Lazy, record

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

np = LazyModule("numpy")


def _needs(t: Any, requires_grad: bool) -> Any:
    return t.requires_grad_() if requires_grad else t


def tensor(
    data: Any,
    *,
    dtype: DType | None = None,
    device: Device | str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of a copy of the data: numbers, nested sequences of numbers, arrays or tensors.

    Args:
        data: the values; nested sequences must be rectangular.
        dtype: the element type (default: int64, bool, or the default floating type).
        device: where the tensor lives.
        requires_grad: whether gradients are collected at it.

    Raises:
        ValueError: sequences of unequal length.

    Example:
        >>> import treadle
        >>> treadle.tensor([[1, 2], [3, 4]])
        tensor([[1, 2],
                [3, 4]])
    """
    device_of(device)
    if isinstance(data, Lazy):
        copy: Any = data
        out = (copy if dtype is None else as_dtype(copy, dtype)).detach().clone()
        return _needs(out, requires_grad)
    if isinstance(data, (list, tuple)) and any(isinstance(x, Lazy) for x in data):
        data = [x.tolist() if hasattr(x, "tolist") else x for x in data]
    try:
        array = np.array(data, order="C")
    except ValueError as error:
        raise ValueError(f"expected a rectangular sequence of numbers: {error}") from None
    if array.dtype == object or array.dtype.kind not in "biufV":
        raise TypeError(f"new(): data of type {type(data).__name__} are no numbers: {data!r:.60}")
    if dtype is None:
        typed = hasattr(data, "dtype")
        if typed:
            dtype = dt.from_numpy(array.dtype)
        else:
            dtype = get_default_dtype() if array.dtype.kind == "f" or not array.size else (
                dt.bool_ if array.dtype.kind == "b" else dt.int64)  # fmt: skip
    return _needs(from_numpy(array.astype(dtype.numpy)), requires_grad)


def as_tensor(data: Any, dtype: DType | None = None, device: Any = None) -> Tensor:
    """The data as a tensor; a tensor or NumPy array of the right dtype is shared, not copied."""
    if isinstance(data, Lazy):
        return data if dtype is None else as_dtype(data, dtype)  # type: ignore[return-value]
    if isinstance(data, np.ndarray):
        out = from_numpy(data)
        return out if dtype is None else as_dtype(out, dtype)
    return tensor(data, dtype=dtype, device=device)


asarray = as_tensor


def full(
    size: Sequence[int], fill_value: float | int | bool, *, dtype: DType | None = None,
    device: Any = None, requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """A tensor of one value."""
    device_of(device)
    fill_value = _plain(fill_value)
    wanted = dtype or number_dtype(fill_value)
    if wanted.kind == "f":
        value: Any = float(fill_value)
    else:
        value = bool(fill_value) if wanted.kind == "b" else int(fill_value)
    shape = sizes((size,))
    if value in (0, 1):
        out = record(FULL, (), (shape, value, wanted))
    else:
        # An input of the plan, not a constant: another value compiles nothing.
        out = record(EXPAND, (as_dtype(value, wanted),), (shape,))
    return _needs(out, requires_grad)


def zeros(*size: Any, dtype: DType | None = None, device: Any = None,
          requires_grad: bool = False) -> Tensor:  # fmt: skip
    """A tensor of zeros."""
    return full(sizes(size), 0, dtype=dtype or get_default_dtype(), device=device,
                requires_grad=requires_grad)  # fmt: skip


def ones(*size: Any, dtype: DType | None = None, device: Any = None,
         requires_grad: bool = False) -> Tensor:  # fmt: skip
    """A tensor of ones."""
    return full(sizes(size), 1, dtype=dtype or get_default_dtype(), device=device,
                requires_grad=requires_grad)  # fmt: skip


empty = zeros
"""A tensor whose values do not matter; treadle gives zeros, so that no run differs."""


def full_like(input: Tensor, fill_value: float, *, dtype: DType | None = None,
              device: Any = None, requires_grad: bool = False) -> Tensor:  # fmt: skip
    """A tensor of one value, of the shape and dtype of another."""
    return full(input._node.shape, fill_value, dtype=dtype or input._node.dtype,
                requires_grad=requires_grad)  # fmt: skip


def zeros_like(input: Tensor, *, dtype: DType | None = None, device: Any = None,
               requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Zeros of the shape and dtype of another tensor."""
    return full_like(input, 0, dtype=dtype, requires_grad=requires_grad)


def ones_like(input: Tensor, *, dtype: DType | None = None, device: Any = None,
              requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Ones of the shape and dtype of another tensor."""
    return full_like(input, 1, dtype=dtype, requires_grad=requires_grad)


empty_like = zeros_like


def arange(start: float, end: float | None = None, step: float = 1, *,
           dtype: DType | None = None, device: Any = None,
           requires_grad: bool = False) -> Tensor:  # fmt: skip
    """`start, start + step, ...` up to but without `end`.

    Raises:
        ValueError: the step is 0, or leads away from `end`.
    """
    device_of(device)
    first, last = (0, start) if end is None else (start, end)
    if step == 0:
        raise ValueError("arange: step must be nonzero")
    if (last - first) * step < 0:
        raise ValueError("arange: upper bound and larger bound inconsistent with step sign")
    first, last, step = map(_plain, (first, last, step))
    whole = all(isinstance(v, int) for v in (first, last, step))
    if dtype is dt.int64:
        first, last, step = int(first), int(last), int(step)
    wanted = dtype or (dt.int64 if whole else get_default_dtype())
    n = max(0, math.ceil((last - first) / step))
    counting = dt.int64 if wanted.kind != "f" else dt.float64
    out: Any = record(IOTA, (), ((n,), 0, counting))
    if step != 1:
        out = ar.mul(out, step)
    if first != 0:
        out = ar.add(out, first)
    return _needs(as_dtype(out, wanted), requires_grad)


def _plain(value: Any) -> Any:
    """A number given as a tensor, read; other numbers as they are."""
    given: Any = value
    return given.item() if isinstance(value, Lazy) else given


def linspace(start: float, end: float, steps: int, *, dtype: DType | None = None,
             device: Any = None, requires_grad: bool = False) -> Tensor:  # fmt: skip
    """`steps` values from `start` to `end`, both included, evenly spaced."""
    start, end = _plain(start), _plain(end)
    i: Any = record(IOTA, (), ((steps,), 0, dt.float64))
    width = (end - start) / max(steps - 1, 1)
    # From both ends, so that the last value is exactly `end`.
    low, high = ar.add(ar.mul(i, width), start), ar.sub(end, ar.mul(ar.sub(steps - 1, i), width))
    out = ar.where(ar.lt(i, steps / 2), low, high)
    return _needs(as_dtype(out, dtype or get_default_dtype()), requires_grad)


def logspace(start: float, end: float, steps: int, base: float = 10.0, *,
             dtype: DType | None = None, device: Any = None,
             requires_grad: bool = False) -> Tensor:  # fmt: skip
    """`base` to the power of `steps` evenly spaced exponents from `start` to `end`."""
    exponents = linspace(start, end, steps, dtype=dt.float64)
    return _needs(
        as_dtype(ar.pow(float(base), exponents), dtype or get_default_dtype()), requires_grad
    )


def eye(n: int, m: int | None = None, *, dtype: DType | None = None, device: Any = None,
        requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Ones on the diagonal of an `(n, m)` matrix, zeros elsewhere."""
    shape = (n, n if m is None else m)
    row, column = (record(IOTA, (), (shape, axis, dt.int64)) for axis in (0, 1))
    return _needs(as_dtype(ar.eq(row, column), dtype or get_default_dtype()), requires_grad)


def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DType = dt.int64,
                 device: Any = None) -> Tensor:  # fmt: skip
    """The positions of the lower triangle of a `(row, col)` matrix, `(2, n)`."""
    return as_dtype(from_numpy(np.stack(np.tril_indices(row, offset, col))), dtype)


def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DType = dt.int64,
                 device: Any = None) -> Tensor:  # fmt: skip
    """The positions of the upper triangle of a `(row, col)` matrix, `(2, n)`."""
    return as_dtype(from_numpy(np.stack(np.triu_indices(row, offset, col))), dtype)


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """The powers of a vector as columns of a matrix, descending unless `increasing`."""
    shape = tuple(x._node.shape)
    n = shape[0] if N is None else N
    powers = arange(n) if increasing else arange(n - 1, -1, -1)
    return ar.pow(reshape(x, (*shape, 1)), as_dtype(powers, x._node.dtype))


def is_tensor(obj: Any) -> bool:
    """Whether an object is a tensor."""
    return isinstance(obj, Lazy)


def is_floating_point(input: Tensor) -> bool:
    """Whether the elements are floating-point numbers."""
    return bool(input._node.dtype.kind == "f")


def is_complex(input: Tensor) -> bool:
    """False: treadle has no complex numbers."""
    return False


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element of a tensor is not 0; reads it.

    Raises:
        RuntimeError: there is not just one.
    """
    if input.numel() != 1:
        raise RuntimeError(f"is_nonzero: expected one element, got {input.numel()}")
    return bool(input.item())


def scalar_tensor(s: float, *, dtype: DType | None = None, device: Any = None,
                  requires_grad: bool = False) -> Tensor:  # fmt: skip
    """A 0-d tensor of a number, in the default dtype."""
    return full((), s, dtype=dtype or get_default_dtype(), requires_grad=requires_grad)


def frombuffer(buffer: Any, *, dtype: DType, count: int = -1, offset: int = 0,
               requires_grad: bool = False) -> Tensor:  # fmt: skip
    """A vector of the elements in an object that exposes its memory, on the same memory."""
    return _needs(from_numpy(np.frombuffer(buffer, dtype.numpy, count, offset)), requires_grad)


def numel(input: Tensor) -> int:
    """The number of elements."""
    return count(input._node.shape)


def clone(input: Tensor) -> Tensor:
    """A copy; gradients flow through."""
    return record(ALIAS, (input,))


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of the last two axes, zeros above `diagonal`."""
    return _triangle(input, diagonal, ar.le)


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of the last two axes, zeros below `diagonal`."""
    return _triangle(input, diagonal, ar.ge)


def _triangle(input: Any, diagonal: int, test: Any) -> Any:
    shape = tuple(input._node.shape[-2:])
    row, column = (record(IOTA, (), (shape, axis, dt.int64)) for axis in (0, 1))
    return ar.where(test(ar.sub(column, row), diagonal), input, as_dtype(0, input._node.dtype))
