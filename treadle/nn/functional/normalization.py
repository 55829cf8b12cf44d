"""Normalisation over the batch, a layer, groups of channels."""

from __future__ import annotations

from typing import Any

from treadle.base.errors import ShapeError
from treadle.base.shape import count
from treadle.nn.functional.common import shape_of, wide
from treadle.tensor import block, no_grad
from treadle.tensor import primitive as pr
from treadle.tensor.record import rebind


def _normalised(x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any, Any]:
    """`(x - mean) / sqrt(var + eps)` along axes, the mean, and the variance without correction."""
    mean = pr.average(x, axes)
    centred = x - mean
    variance = pr.average(centred * centred, axes)
    return centred * (variance + eps).rsqrt(), mean, variance


def _scaled(y: Any, weight: Any, bias: Any) -> Any:
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


def _take(rest: tuple[Any, ...], flags: tuple[bool, ...]) -> tuple[list[Any], tuple[Any, ...]]:
    """The optional tensors that flags say are there, `None` for the others, and what follows."""
    items = list(rest)
    return [items.pop(0) if flag else None for flag in flags], tuple(items)


def _given(*optional: Any) -> tuple[tuple[Any, ...], tuple[bool, ...]]:
    """The optional tensors that are there, and which of them are."""
    return tuple(x for x in optional if x is not None), tuple(x is not None for x in optional)


# --- batch -------------------------------------------------------------------------------------


def _batch_norm(x: Any, flags: Any, tensors: tuple[Any, ...], training: bool, momentum: Any,
                eps: float) -> Any:  # fmt: skip
    (mean, variance, tracked, weight, bias), _ = _take(tensors, flags)
    shape = shape_of(x)
    channels = shape[1]
    column = (1, channels, *(1,) * (len(shape) - 2))

    def shaped(t: Any) -> Any:
        return None if t is None else pr.shaped(t, column)

    value = wide(x)
    if not training:
        y = (value - shaped(mean)) * (shaped(variance) + eps).rsqrt()
        return pr.cast(_scaled(y, shaped(weight), shaped(bias)), x._node.dtype)
    axes = (0, *range(2, len(shape)))
    y, now_mean, now_variance = _normalised(value, axes, eps)
    out = pr.cast(_scaled(y, shaped(weight), shaped(bias)), x._node.dtype)
    if mean is None:
        return out
    n = count([shape[a] for a in axes])
    with no_grad():
        news = []
        if tracked is not None:
            tracked = tracked + 1
        factor = momentum if momentum is not None else 1 / pr.cast(tracked, mean._node.dtype)
        unbiased = now_variance * (n / max(n - 1, 1))
        for old, now in ((mean, now_mean), (variance, unbiased)):
            now = pr.cast(pr.shaped(now, (channels,)), old._node.dtype)
            # A batch of nothing has no statistics that could move the running ones.
            news.append(old * (1 - factor) + now * factor if n else old * 1)
    return (out, *news) if tracked is None else (out, *news, tracked)


def _batch_body(x: Any, *rest: Any) -> Any:
    *tensors, flags, training, momentum, eps = rest
    return _batch_norm(x, flags, tuple(tensors), training, momentum, eps)


def batch_norm_tracked(
    x: Any, mean: Any, variance: Any, tracked: Any, weight: Any, bias: Any, training: bool,
    momentum: float | None, eps: float,
) -> Any:  # fmt: skip
    """`batch_norm` that also counts the batches in `tracked`; without a momentum the running
    statistics are plain means over all batches."""
    shape = shape_of(x)
    if len(shape) < 2:
        raise ShapeError(f"batch_norm: expected at least 2 dimensions, got shape {shape}")
    if training and count(shape) == shape[1]:
        raise ValueError(
            f"Expected more than 1 value per channel when training, got input size {list(shape)}"
        )
    if mean is not None and shape_of(mean) != (shape[1],):
        raise ShapeError(
            f"batch_norm: running_mean should contain {shape[1]} elements, not "
            f"{count(shape_of(mean))}"
        )
    tensors, flags = _given(mean, variance, tracked if training else None, weight, bias)
    out = block(_batch_body, (x, *tensors), (flags, training, momentum, eps))
    if type(out) is not tuple:
        return out
    y, *news = out
    for old, new in zip((mean, variance, tracked), news, strict=False):
        rebind(old, new)
    return y


def batch_norm(
    input: Any, running_mean: Any, running_var: Any, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """`(input - mean) / sqrt(var + eps) * weight + bias` for each channel.

    In training mean and variance are those of the batch, and the running ones move towards them by
    `momentum` in place; in evaluation the running ones are used.

    Args:
        input: `(n, channels, *)`.
        running_mean, running_var: `(channels,)`, or none (then the batch's are used).
        weight, bias: `(channels,)`, or none.
    """
    use_batch = training or running_mean is None
    return batch_norm_tracked(
        input, running_mean, running_var, None, weight, bias, use_batch, momentum, eps
    )


# --- layer, group, instance --------------------------------------------------------------------


def _require_end(name: str, x: Any, normalized_shape: tuple[int, ...]) -> None:
    shape = shape_of(x)
    if not normalized_shape or shape[-len(normalized_shape) :] != normalized_shape:
        raise ShapeError(
            f"{name}: Given normalized_shape={list(normalized_shape)}, expected input with shape "
            f"[*, {', '.join(map(str, normalized_shape))}], but got input of size {list(shape)}"
        )


def layer_norm(input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None,
               eps: float = 1e-5) -> Any:  # fmt: skip
    """`(input - mean) / sqrt(var + eps) * weight + bias` over the last axes.

    Args:
        input: `(*, normalized_shape)`.
        normalized_shape: the extents of the axes that share a mean.
        weight, bias: of that shape, or none.
    """
    tensors, flags = _given(weight, bias)
    return block(_layer_body, (input, *tensors), (flags, tuple(normalized_shape), eps))


def _layer_body(x: Any, *rest: Any) -> Any:
    *tensors, flags, inner, eps = rest
    _require_end("layer_norm", x, inner)
    weight, bias = _take(tuple(tensors), flags)[0]
    rank = len(shape_of(x))
    y, _, _ = _normalised(wide(x), tuple(range(rank - len(inner), rank)), eps)
    return pr.cast(_scaled(y, weight, bias), x._node.dtype)


def rms_norm(input: Any, normalized_shape: Any, weight: Any = None,
             eps: float | None = None) -> Any:  # fmt: skip
    """`input / sqrt(mean(input^2) + eps) * weight` over the last axes."""
    tensors, flags = _given(weight)
    return block(_rms_body, (input, *tensors), (flags, tuple(normalized_shape), eps))


_EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def _rms_body(x: Any, *rest: Any) -> Any:
    *tensors, flags, inner, eps = rest
    _require_end("rms_norm", x, inner)
    (weight,) = _take(tuple(tensors), flags)[0]
    rank = len(shape_of(x))
    value = wide(x)
    if eps is None:
        eps = _EPSILON[value._node.dtype.name]
    square = pr.average(value * value, tuple(range(rank - len(inner), rank)))
    return pr.cast(_scaled(value * (square + eps).rsqrt(), weight, None), x._node.dtype)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None,
               eps: float = 1e-5) -> Any:  # fmt: skip
    """Normalises the channels of each group, together with all that follows them.

    Args:
        input: `(n, channels, *)`.
        num_groups: parts that the channels divide into.
        weight, bias: `(channels,)`, or none.
    """
    tensors, flags = _given(weight, bias)
    return block(_group_body, (input, *tensors), (flags, num_groups, eps))


def _group_body(x: Any, *rest: Any) -> Any:
    *tensors, flags, groups, eps = rest
    weight, bias = _take(tuple(tensors), flags)[0]
    shape = shape_of(x)
    if len(shape) < 2 or shape[1] % groups:
        raise ShapeError(
            f"Expected number of channels in input to be divisible by num_groups, but got input "
            f"of shape {list(shape)} and num_groups={groups}"
        )
    n, channels, *space = shape
    parted = pr.shaped(wide(x), (n, groups, channels // groups, *space))
    y, _, _ = _normalised(parted, tuple(range(2, 3 + len(space))), eps)
    column = (1, channels, *(1,) * len(space))
    factors = [None if t is None else pr.shaped(t, column) for t in (weight, bias)]
    return pr.cast(_scaled(pr.shaped(y, shape), *factors), x._node.dtype)


def instance_norm(
    input: Any, running_mean: Any = None, running_var: Any = None, weight: Any = None,
    bias: Any = None, use_input_stats: bool = True, momentum: float = 0.1, eps: float = 1e-5,
) -> Any:  # fmt: skip
    """Normalises each channel of each sample by itself.

    Args:
        input: `(n, channels, *)`.
        running_mean, running_var: `(channels,)`, or none; they move in place.
        use_input_stats: use the sample's statistics, not the running ones.
    """
    if not use_input_stats:
        return batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    running, has_running = _given(running_mean, running_var)
    tensors, flags = _given(weight, bias)
    out = block(_instance_body, (input, *running, *tensors), (has_running, flags, momentum, eps))
    if type(out) is not tuple:
        return out
    rebind(running_mean, out[1])
    rebind(running_var, out[2])
    return out[0]


def _instance_body(x: Any, *rest: Any) -> Any:
    *tensors, has_running, flags, momentum, eps = rest
    (mean, variance, weight, bias), _ = _take(tuple(tensors), has_running + flags)
    shape = shape_of(x)
    axes = tuple(range(2, len(shape)))
    column = (1, shape[1], *(1,) * len(axes))
    y, now_mean, now_variance = _normalised(wide(x), axes, eps)
    factors = [None if t is None else pr.shaped(t, column) for t in (weight, bias)]
    out = pr.cast(_scaled(y, *factors), x._node.dtype)
    if mean is None:
        return out
    n = count([shape[a] for a in axes])
    with no_grad():
        now_variance = now_variance * (n / max(n - 1, 1))
        news = [
            old * (1 - momentum) + pr.shaped(pr.average(now, (0,)), shape_of(old)) * momentum
            for old, now in ((mean, now_mean), (variance, now_variance))
        ]
    return (out, *news)


def local_response_norm(
    input: Any, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Any:
    """`input / (k + alpha * mean(input^2 over `size` neighbouring channels))^beta`."""
    return block(_response_body, (input,), (size, alpha, beta, k))


def _response_body(x: Any, size: int, alpha: float, beta: float, k: float) -> Any:
    rank = len(shape_of(x))
    pads = tuple((size // 2, (size - 1) // 2) if a == 1 else (0, 0) for a in range(rank))
    wide_, inner = pr.windows(pr.padded(x * x, pads), (1,), (size,), (1,), (1,))
    mean = pr.shaped(pr.total(wide_, inner), shape_of(x)) / float(size)
    return x / (mean * alpha + k) ** beta
