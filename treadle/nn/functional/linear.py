"""Linear maps, embeddings and distances."""

from __future__ import annotations

from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.shape import count
from treadle.nn.functional.common import length, shape_of
from treadle.tensor import block, broadcast_tensors, no_grad, triu_indices
from treadle.tensor import primitive as pr
from treadle.tensor.record import rebind


def linear(input: Any, weight: Any, bias: Any = None) -> Any:
    """`input @ weight.T + bias`.

    Args:
        input: `(*, in_features)`.
        weight: `(out_features, in_features)`, or `(in_features,)`.
        bias: `(out_features,)`, or none.

    Returns:
        `(*, out_features)`.

    Raises:
        ShapeError: the features of input and weight differ.
        DTypeError: the dtypes differ.
    """
    if bias is None:
        return block(_linear, (input, weight))
    return block(_linear, (input, weight, bias))


def _linear(x: Any, w: Any, b: Any = None) -> Any:
    shape, size = shape_of(x), shape_of(w)
    if x._node.dtype is not w._node.dtype:
        raise DTypeError(
            f"linear: the input is {x._node.dtype.name}, the weight {w._node.dtype.name}; hint: "
            f"convert the input with .to({w._node.dtype.name}), or the model"
        )
    if not shape or not 1 <= len(size) <= 2 or shape[-1] != size[-1]:
        raise ShapeError(
            f"linear: mat1 and mat2 shapes cannot be multiplied: the input {shape} has "
            f"{shape[-1] if shape else 'no'} features in its last dimension, the weight {size} "
            f"takes {size[-1]}; hint: flatten or reshape the input to (..., {size[-1]})"
        )
    lead = shape[:-1]
    if len(size) == 1:
        axes = tuple(range(len(lead)))
        out = pr.contracted(x, w, (*axes, 9), (9,), axes)
    elif not lead:
        out = pr.contracted(x, w, (2,), (1, 2), (1,))
    else:
        flat = pr.shaped(x, (count(lead), shape[-1]))
        out = pr.shaped(pr.contracted(flat, w, (0, 2), (1, 2), (0, 1)), (*lead, size[0]))
    return out if b is None else out + b


def bilinear(input1: Any, input2: Any, weight: Any, bias: Any = None) -> Any:
    """`input1^T weight[o] input2 + bias[o]` for each output o.

    Args:
        input1: `(*, in1)`.
        input2: `(*, in2)`.
        weight: `(out, in1, in2)`.
        bias: `(out,)`, or none.
    """
    return block(_bilinear, (input1, input2, weight) + (() if bias is None else (bias,)))


def _bilinear(a: Any, b: Any, w: Any, bias: Any = None) -> Any:
    lead = shape_of(a)[:-1]
    left = pr.shaped(a, (count(lead), shape_of(a)[-1]))
    right = pr.shaped(b, (count(lead), shape_of(b)[-1]))
    half = pr.contracted(left, w, (0, 2), (1, 2, 3), (0, 1, 3))
    out = pr.contracted(half, right, (0, 1, 3), (0, 3), (0, 1))
    out = pr.shaped(out, (*lead, shape_of(w)[0]))
    return out if bias is None else out + bias


def embedding(
    input: Any,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Any:
    """The rows of a table at an index.

    Args:
        input: whole numbers `(*)` in `[0, rows)`.
        weight: `(rows, features)`.
        padding_idx: a row that takes no gradient; negative ones count from the end.
        max_norm: rows that are looked up and longer than this are scaled down, in the table.
        norm_type: the p of that norm.
        scale_grad_by_freq: divide the gradient of a row by how often it is looked up.
        sparse: accepted; gradients are dense.

    Returns:
        `(*, features)`.

    Raises:
        IndexBoundsError: an index is out of range (when the plan runs).
    """
    if input._node.dtype.kind not in "iu":
        raise DTypeError(
            f"embedding: the index must be whole numbers, got {input._node.dtype.name}; "
            f"hint: input.long()"
        )
    rows = shape_of(weight)[0]
    if padding_idx is not None:
        if not -rows <= padding_idx < rows:
            raise ValueError("Padding_idx must be within num_embeddings")
        padding_idx %= rows
    if max_norm is not None:
        with no_grad():
            rebind(weight, block(_renormalised, (weight, input), (max_norm, norm_type)))
    return block(_embedding, (input, weight), (padding_idx, scale_grad_by_freq))


def _checked_index(index: Any, rows: int) -> Any:
    """The index as a vector of int64; the run fails where it is out of range."""
    flat = pr.shaped(pr.cast(index, dt.int64), (count(shape_of(index)),))
    ok = (flat >= 0) & (flat < rows)
    return pr.checked(flat, ok, f"embedding: index out of range for a table of {rows} rows")


def _embedding(index: Any, weight: Any, padding: int | None, scale: bool) -> Any:
    rows, features = shape_of(weight)
    flat = _checked_index(index, rows)
    out = pr.taken(weight, flat, 0)
    with no_grad():
        fixed = pr.taken(weight, flat, 0)
        if scale:
            ones = pr.filled(shape_of(flat), 1.0, weight._node.dtype)
            times = pr.taken(pr.scattered(ones, flat, 0, rows), flat, 0)
            share = pr.shaped(1 / times, (*shape_of(flat), 1))
    if scale:
        # The value is exactly `fixed`; only the gradient of the rest is scaled.
        out = fixed + (out - fixed) * share
    if padding is not None:
        out = pr.select(pr.shaped(flat == padding, (*shape_of(flat), 1)), fixed, out)
    return pr.shaped(out, (*shape_of(index), features))


def _renormalised(weight: Any, index: Any, max_norm: float, norm_type: float) -> Any:
    rows = shape_of(weight)[0]
    flat = _checked_index(index, rows)
    ones = pr.filled(shape_of(flat), 1.0, weight._node.dtype)
    used = pr.shaped(pr.scattered(ones, flat, 0, rows), (rows, 1)) > 0
    size = pr.total(abs(weight) ** norm_type, (1,)) ** (1.0 / norm_type)
    scale = pr.select(size > max_norm, max_norm / (size + 1e-7), size * 0.0 + 1.0)
    return pr.select(used, weight * scale, weight)


def normalize(input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Any:
    """`input / max(norm, eps)` with the p-norm along `dim`."""
    return block(_normalize, (input,), (p, dim, eps))


def _normalize(x: Any, p: float, dim: Any, eps: float) -> Any:
    return x / length(x, p, dim, True).clamp(min=eps)


def cosine_similarity(x1: Any, x2: Any, dim: int = 1, eps: float = 1e-8) -> Any:
    """`x1 . x2 / (max(|x1|, eps) * max(|x2|, eps))` along `dim`."""
    return block(_cosine, (x1, x2), (dim, eps))


def _cosine(a: Any, b: Any, dim: int, eps: float) -> Any:
    a, b = broadcast_tensors(a, b)
    left = a / length(a, 2, dim, True).clamp(min=eps)
    right = b / length(b, 2, dim, True).clamp(min=eps)
    return (left * right).sum(dim)


def pairwise_distance(
    x1: Any, x2: Any, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Any:
    """The p-norm of `x1 - x2 + eps` along the last axis."""
    return block(_distance, (x1, x2), (p, eps, keepdim))


def pdist(input: Any, p: float = 2.0) -> Any:
    """The p-norms of the differences of all pairs of rows of `(n, features)`, first with second,
    first with third, and so on: `(n (n - 1) / 2,)`."""
    if len(shape_of(input)) != 2:
        raise ShapeError(f"pdist: expected a matrix, got {shape_of(input)}")
    n = shape_of(input)[0]
    first, second = triu_indices(n, n, 1)
    return block(_gaps, (input, first, second), (p,))


def _gaps(x: Any, first: Any, second: Any, p: float) -> Any:
    return length(pr.taken(x, first, 0) - pr.taken(x, second, 0), p, -1, False)


def _distance(a: Any, b: Any, p: float, eps: float, keepdim: bool) -> Any:
    return length(a - b + eps, p, -1, keepdim)
