"""Losses of classes.

The logarithm of a softmax is written with the row's maximum, exponentials, their sum and a
comparison of the class number with the label, not with a gather: forward and backward are then row
kernels without memory between their steps.
"""

from __future__ import annotations

from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.shape import count
from treadle.base.symbolic import real
from treadle.nn.functional.common import (
    reduced,
    require_float,
    require_reduction,
    require_same_shape,
    shape_of,
    wide,
)
from treadle.nn.functional.linear import linear
from treadle.tensor import block
from treadle.tensor import primitive as pr


def _class_axis(x: Any) -> int:
    return 0 if len(shape_of(x)) == 1 else 1


def _require_labels(name: str, x: Any, target: Any) -> None:
    """Raises unless the target gives one whole number for each row of the input."""
    require_float(name, x)
    shape = shape_of(x)
    if not shape:
        raise ShapeError(f"{name}: the input needs a class dimension, got a 0-d tensor")
    axis = _class_axis(x)
    expected = shape[:axis] + shape[axis + 1 :]
    if target._node.dtype.kind not in "iu":
        raise DTypeError(
            f"{name}: class labels must be whole numbers (int64), got "
            f"{target._node.dtype.name} of shape {shape_of(target)}; hint: target.long(), or "
            f"probabilities of the shape {shape} of the input"
        )
    if shape_of(target) != expected:
        hint = "one label for each row"
        if shape_of(target) == (*expected, 1):
            hint += ": target.squeeze(-1)"
        elif shape_of(target) == shape:
            hint += ": one-hot rows become labels by target.argmax(1), or floats by target.float()"
        raise ShapeError(
            f"{name}: the input has shape {shape}, so the target should have {expected}, but it "
            f"has {shape_of(target)}; hint: {hint}"
        )


def _labels(x: Any, target: Any, ignore: int, name: str) -> tuple[Any, Any]:
    """Whether each element of `x` is of its row's class, and whether each row is ignored."""
    shape = shape_of(x)
    axis = _class_axis(x)
    classes = shape[axis]
    column = tuple(1 if a == axis else n for a, n in enumerate(shape))
    label = pr.shaped(pr.cast(target, dt.int64), column)
    ok = (label >= 0) & (label < classes)
    ignored = label == ignore
    message = f"{name}: Target is out of bounds: expected class labels in [0, {classes})"
    label = pr.checked(label, ok | ignored, message)
    return pr.counter(shape, axis) == label, ignored


def _negative_log(x: Any, log_p: Any, rest: tuple[Any, ...], log_total: Any) -> Any:
    """The losses of the rows, reduced; `log_p` less `log_total` are log-probabilities."""
    *tensors, name, ignore, smoothing, reduction = rest
    target, weight = tensors if len(tensors) == 2 else (tensors[0], None)
    axis = _class_axis(x)
    classes = shape_of(x)[axis]
    zero = pr.constant(0, log_p._node.dtype)
    hit, ignored = _labels(x, target, ignore, name)
    row = tuple(n for a, n in enumerate(shape_of(x)) if a != axis)
    factors = None
    if weight is not None:
        column = (classes, *(1,) * (len(shape_of(x)) - axis - 1))
        factors = pr.cast(pr.shaped(weight, column), log_p._node.dtype)
    chosen = pr.total(pr.select(hit, log_p, zero), (axis,))
    loss = (zero if log_total is None else log_total) - chosen
    share: Any = None
    if factors is not None:
        share = pr.total(pr.select(hit, factors, zero), (axis,))
        loss = loss * share
    if smoothing:
        spread = log_p if log_total is None else log_p - log_total
        spread = spread if factors is None else spread * factors
        loss = loss * (1 - smoothing) - pr.total(spread, (axis,)) * (smoothing / classes)
    loss = pr.select(ignored, zero, loss)
    if reduction != "mean":
        return reduced(pr.shaped(loss, row), reduction)
    axes = tuple(range(len(shape_of(x))))
    if share is None:
        share = pr.cast(ignored.logical_not(), log_p._node.dtype)
    else:
        share = pr.select(ignored, zero, share)
    return pr.shaped(pr.total(loss, axes) / pr.total(share, axes), ())


def _cross_entropy(x: Any, *rest: Any) -> Any:
    _require_labels("cross_entropy", x, rest[0])
    axis = _class_axis(x)
    value = wide(x)
    shifted = value - pr.peak(value, (axis,))
    log_total = pr.total(shifted.exp(), (axis,)).log()
    return pr.cast(_negative_log(x, shifted, rest, log_total), x._node.dtype)


def _soft_cross_entropy(x: Any, target: Any, *rest: Any) -> Any:
    """The cross entropy with class probabilities."""
    *tensors, smoothing, reduction = rest
    require_float("cross_entropy", x)
    axis = _class_axis(x)
    classes = shape_of(x)[axis]
    value = wide(x)
    shifted = value - pr.peak(value, (axis,))
    log_p = shifted - pr.total(shifted.exp(), (axis,)).log()
    p = pr.cast(target, value._node.dtype)
    if smoothing:
        p = p * (1 - smoothing) + smoothing / classes
    terms = log_p * p
    if tensors:
        column = (classes, *(1,) * (len(shape_of(x)) - axis - 1))
        terms = terms * pr.cast(pr.shaped(tensors[0], column), value._node.dtype)
    loss = -pr.total(terms, (axis,))
    rows = count(shape_of(x)) // max(classes, 1)
    if reduction == "mean":
        out = reduced(loss, "sum") / real(rows)
    else:
        row = tuple(n for a, n in enumerate(shape_of(x)) if a != axis)
        out = reduced(pr.shaped(loss, row), reduction)
    return pr.cast(out, x._node.dtype)


def cross_entropy(
    input: Any, target: Any, weight: Any = None, size_average: Any = None,
    ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """The negative logarithm of the softmax of the input at the label, averaged over the rows.

    Args:
        input: logits `(n, classes)`, `(n, classes, *)` or `(classes,)`.
        target: labels `(n)`, `(n, *)` or `()`, whole numbers in `[0, classes)`; or class
            probabilities of the shape of the input.
        weight: `(classes,)`, factors of the classes; the mean divides by their sum.
        ignore_index: a label whose rows do not count.
        reduction: `"mean"`, `"sum"` or `"none"`.
        label_smoothing: the share in [0, 1] of the target that is spread over all classes.

    Raises:
        ShapeError, DTypeError: the target does not fit the input.
        IndexBoundsError: a label is out of range (when the plan runs).

    Example:
        >>> import treadle
        >>> from treadle.nn import functional as F
        >>> F.cross_entropy(treadle.zeros(2, 4), treadle.tensor([0, 3])).item()
        1.3862943649291992
    """
    inputs = (input, target) if weight is None else (input, target, weight)
    if target._node.dtype.kind == "f" and shape_of(target) == shape_of(input):
        require_reduction(reduction)
        return block(_soft_cross_entropy, inputs, (label_smoothing, reduction))
    if reduction not in ("mean", "sum", "none") or not 0.0 <= label_smoothing <= 1.0:
        require_reduction(reduction)
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    attrs = ("cross_entropy", ignore_index, label_smoothing, reduction)
    return block(_cross_entropy, inputs, attrs)


def nll_loss(
    input: Any, target: Any, weight: Any = None, size_average: Any = None,
    ignore_index: int = -100, reduce: Any = None, reduction: str = "mean",
) -> Any:  # fmt: skip
    """The negative of the log-probability at the label, averaged over the rows.

    Args:
        input: log-probabilities `(n, classes)`, `(n, classes, *)` or `(classes,)`.
        target, weight, ignore_index, reduction: as those of `cross_entropy`.
    """
    require_reduction(reduction)
    inputs = (input, target) if weight is None else (input, target, weight)
    return block(_nll, inputs, ("nll_loss", ignore_index, 0.0, reduction))


def _nll(x: Any, *rest: Any) -> Any:
    _require_labels("nll_loss", x, rest[0])
    return pr.cast(_negative_log(x, wide(x), rest, None), x._node.dtype)


# --- margins -----------------------------------------------------------------------------------


def multi_margin_loss(
    input: Any, target: Any, p: int = 1, margin: float = 1.0, weight: Any = None,
    size_average: Any = None, reduce: Any = None, reduction: str = "mean",
) -> Any:  # fmt: skip
    """`sum_i max(0, margin - input[label] + input[i])^p / classes` over the other classes."""
    require_reduction(reduction)
    inputs = (input, target) if weight is None else (input, target, weight)
    return block(_multi_margin, inputs, (p, margin, reduction))


def _multi_margin(x: Any, target: Any, *rest: Any) -> Any:
    *tensors, p, margin, reduction = rest
    x = x if shape_of(x) else pr.shaped(x, (1,))
    if len(shape_of(x)) == 1 and shape_of(target) == (1,):
        target = pr.shaped(target, ())
    _require_labels("multi_margin_loss", x, target)
    axis = _class_axis(x)
    zero = pr.constant(0, x._node.dtype)
    hit, _ = _labels(x, target, -1, "multi_margin_loss")
    own = pr.total(pr.select(hit, x, zero), (axis,))
    part = pr.select(hit, zero, (x - own + margin).relu())
    part = part if p == 1 else part * part
    if tensors:
        factors = pr.total(pr.select(hit, tensors[0], zero), (axis,))
        part = part * factors
    loss = pr.total(part, (axis,)) / float(shape_of(x)[axis])
    row = tuple(n for a, n in enumerate(shape_of(x)) if a != axis)
    return reduced(pr.shaped(loss, row), reduction)


def multilabel_margin_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean"
) -> Any:
    """`sum_ij max(0, 1 - input[label_j] + input[i]) / classes` over labels j and other classes i.

    Args:
        input: scores `(n, classes)` or `(classes,)`.
        target: labels, of the shape of the input; those from the first -1 on do not count.
    """
    require_reduction(reduction)
    require_same_shape("multilabel_margin_loss", input, target)
    return block(_multilabel_margin, (input, target), (reduction,))


def _multilabel_margin(x: Any, target: Any, reduction: str) -> Any:
    lead = shape_of(x)[:-1]
    classes = shape_of(x)[-1] if shape_of(x) else 1
    rows = pr.shaped(x, (count(lead), classes))
    label = pr.shaped(pr.cast(target, dt.int64), (count(lead), classes))
    label = pr.checked(label, (label >= -1) & (label < classes),
                       f"multilabel_margin_loss: labels must be in [-1, {classes})")  # fmt: skip
    valid = pr.cast(label < 0, dt.int64).cumsum(1) == 0
    hit = label.unsqueeze(2) == pr.counter((1, 1, classes), 2)
    hit = hit & valid.unsqueeze(2)
    zero = pr.constant(0, x._node.dtype)
    own = pr.total(pr.select(hit, rows.unsqueeze(1), zero), (2,))
    other = hit.any(1).logical_not().unsqueeze(1) & valid.unsqueeze(2)
    terms = pr.select(other, (rows.unsqueeze(1) - own + 1.0).relu(), zero)
    loss = pr.total(terms, (1, 2)) / float(classes)
    return reduced(pr.shaped(loss, lead), reduction)


def linear_cross_entropy(
    input: Any, linear_weight: Any, target: Any, *, linear_bias: Any = None, weight: Any = None,
    reduction: str = "mean", ignore_index: int | None = None, label_smoothing: float = 0.0,
) -> Any:  # fmt: skip
    """`cross_entropy` of the logits `input @ linear_weight.T + linear_bias`.

    Args:
        input: `(n, features)` or `(features,)`.
        linear_weight: `(classes, features)`, or `(classes, d1, .., features)` for as many targets.
        linear_bias: `(classes, d1, ..)`.
        target, weight, reduction, ignore_index, label_smoothing: as those of `cross_entropy`.
    """
    ignored = -100 if ignore_index is None else ignore_index
    outs, features = shape_of(linear_weight)[:-1], shape_of(linear_weight)[-1]
    logits = linear(input, linear_weight.reshape(-1, features))
    logits = logits.reshape(*shape_of(input)[:-1], *outs)
    logits = logits if linear_bias is None else logits + linear_bias
    return cross_entropy(
        logits, target, weight, ignore_index=ignored,
        reduction=reduction, label_smoothing=label_smoothing,
    )  # fmt: skip


def multilabel_soft_margin_loss(
    input: Any, target: Any, weight: Any = None, size_average: Any = None, reduce: Any = None,
    reduction: str = "mean",
) -> Any:  # fmt: skip
    """The mean over the classes of the binary cross entropy of each, with logits."""
    require_reduction(reduction)
    require_same_shape("multilabel_soft_margin_loss", input, target)
    inputs = (input, target) if weight is None else (input, target, weight)
    return block(_multilabel_soft, inputs, (reduction,))


def _multilabel_soft(x: Any, y: Any, *rest: Any) -> Any:
    *tensors, reduction = rest
    loss = -(y * _log_sigmoid(x) + (1 - y) * _log_sigmoid(-x))
    if tensors:
        loss = loss * tensors[0]
    return reduced(loss.sum(-1) / float(shape_of(x)[-1]), reduction)


def _log_sigmoid(x: Any) -> Any:
    return x.minimum(pr.constant(0, x._node.dtype)) - (-x.abs()).exp().log1p()
