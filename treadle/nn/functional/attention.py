"""Attention: means of values, weighted by how well queries and keys agree.

One kernel computes it without ever storing a matrix of scores, in memory linear in the lengths.
Where weights are asked for or dropped at random, and for float16 and bfloat16, scores, softmax and
weighted mean are recorded one after the other.
"""

from __future__ import annotations

import math
from typing import Any

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.errors import ShapeError
from treadle.nn.functional.common import shape_of
from treadle.nn.functional.linear import linear
from treadle.tensor import block
from treadle.tensor import primitive as pr
from treadle.tensor.random import next_key, uniform


def _causal(shape: tuple[int, ...]) -> Any:
    """Whether a key is not later than the query, for scores `(*, queries, keys)`."""
    square = shape[-2:]
    return pr.counter(square, 0) >= pr.counter(square, 1)


def _weights(scores: Any, masked: bool) -> Any:
    """The softmax along the keys; a query that may see none has weights of zero."""
    axis = len(shape_of(scores)) - 1
    peak = pr.peak(scores, (axis,))
    if not masked:
        e = (scores - peak).exp()
        return e / pr.total(e, (axis,))
    zero, one = pr.constant(0, scores._node.dtype), pr.constant(1, scores._node.dtype)
    blind = peak == pr.constant(-math.inf, scores._node.dtype)
    e = (scores - pr.select(blind, zero, peak)).exp()
    return e / pr.select(blind, one, pr.total(e, (axis,)))


def _limited(scores: Any, mask: Any) -> Any:
    """Scores with a mask: -inf where a bool mask is false, or a float mask added."""
    if mask._node.dtype is dt.bool_:
        return pr.select(mask, scores, pr.constant(-math.inf, scores._node.dtype))
    return scores + pr.cast(mask, scores._node.dtype)


def _thinned(weights: Any, key: Any, p: float) -> Any:
    keep = uniform(key, shape_of(weights), dt.float32) >= p
    zero = pr.constant(0, weights._node.dtype)
    return pr.select(keep, weights * (1.0 / (1.0 - p)), zero)


def _attention(*args: Any) -> Any:
    *tensors, has_mask, p, causal, scale, grouped = args
    q, k, v, *rest = tensors
    if grouped:
        k, v = (_repeated(t, shape_of(q)[-3]) for t in (k, v))
    if not p and _has_kernel(q, k, v):
        return _in_one(q, k, v, rest[0] if has_mask else None, scale, causal)
    scores = (q @ k.transpose(-2, -1)) * scale
    masked = causal or has_mask
    if causal:
        scores = _limited(scores, _causal(shape_of(scores)))
    if has_mask:
        scores = _limited(scores, rest[0])
    weights = _weights(scores, masked)
    if p:
        weights = _thinned(weights, rest[-1], p)
    return weights @ v


def _has_kernel(*tensors: Any) -> bool:
    """Whether the attention kernel takes tensors: floats of 32 or 64 bits, none of them empty."""
    dtype = tensors[0]._node.dtype
    return dtype in (dt.float32, dt.float64) and all(
        t._node.dtype is dtype and len(shape_of(t)) >= 2 and 0 not in shape_of(t) for t in tensors
    )


def _in_one(q: Any, k: Any, v: Any, mask: Any, scale: float, causal: bool) -> Any:
    """Attention by one kernel. Of the dimensions before the lengths the last are heads, all others
    batches."""
    lead = sh.broadcast(*(shape_of(t)[:-2] for t in (q, k, v)))
    if mask is not None:
        lead = sh.broadcast(lead, shape_of(mask)[:-2])
        mask = _limits(mask, q._node.dtype, lead, shape_of(q)[-2], shape_of(k)[-2])
    q, k, v = (_by_length(pr.expanded(t, (*lead, *shape_of(t)[-2:]))) for t in (q, k, v))
    out = pr.ordered(pr.attended(q, k, v, mask, scale, causal), (0, 2, 1, 3))
    return pr.shaped(out, (*lead, *shape_of(out)[-2:]))


def _by_length(t: Any) -> Any:
    """`(*, heads, length, size)` to `(batch, length, heads, size)`."""
    *lead, length, size = shape_of(t)
    heads = lead[-1] if lead else 1
    wide = pr.shaped(t, (sh.count(lead[:-1]), heads, length, size))
    return pr.ordered(wide, (0, 2, 1, 3))


def _limits(mask: Any, dtype: Any, lead: Any, queries: int, keys: int) -> Any:
    """A mask as `(batch, heads, queries, keys)`, extents of 1 being broadcast."""
    if mask._node.dtype is not dt.bool_:
        mask = pr.cast(mask, dtype)
    given = shape_of(mask)
    full = (*lead, queries, keys)
    if sh.broadcast(given, full[-2:])[-2:] != full[-2:]:
        raise ShapeError(f"attn_mask: {given} does not broadcast to {full}")
    given = (1,) * (len(full) - len(given)) + given
    batches, heads = given[:-3], given[-3] if lead else 1
    if len(set(batches) - {1}) and batches != tuple(lead[:-1]):
        mask, batches = pr.expanded(mask, (*lead[:-1], *given[-3:])), lead[:-1]
    return pr.shaped(mask, (sh.count(batches), heads, *given[-2:]))


def _repeated(t: Any, heads: int) -> Any:
    """Keys or values of fewer heads, each of which serves several heads of the queries."""
    *lead, n, length, size = shape_of(t)
    if heads % n:
        raise ShapeError(f"enable_gqa: {heads} query heads do not divide into {n} key heads")
    wide = pr.expanded(
        pr.shaped(t, (*lead, n, 1, length, size)), (*lead, n, heads // n, length, size)
    )
    return pr.shaped(wide, (*lead, heads, length, size))


def scaled_dot_product_attention(
    query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: float | None = None, enable_gqa: bool = False,
) -> Any:  # fmt: skip
    """`softmax(query @ key^T * scale + mask) @ value`.

    Args:
        query: `(*, queries, size)`.
        key: `(*, keys, size)`.
        value: `(*, keys, features)`.
        attn_mask: bool (true where a query sees a key) or floats that are added to the scores;
            broadcasts to `(*, queries, keys)`.
        dropout_p: the probability with which a weight is dropped.
        is_causal: a query sees no key after its own position.
        scale: default `1 / sqrt(size)`.
        enable_gqa: let each head of keys and values serve several heads of queries.

    Returns:
        `(*, queries, features)`.
    """
    size = shape_of(query)[-1]
    inputs = [query, key, value]
    if attn_mask is not None:
        if is_causal:
            raise RuntimeError("Explicit attn_mask should not be set when is_causal=True")
        inputs.append(attn_mask)
    if dropout_p:
        inputs.append(next_key())
    factor = 1 / math.sqrt(size) if scale is None else scale
    attrs = (attn_mask is not None, dropout_p, is_causal, factor, enable_gqa)
    return block(_attention, inputs, attrs)


# --- several heads -----------------------------------------------------------------------------


def _heads(x: Any, heads: int) -> Any:
    """`(length, n, heads * size)` to `(n, heads, length, size)`."""
    length, n, features = shape_of(x)
    return pr.ordered(pr.shaped(x, (length, n, heads, features // heads)), (1, 2, 0, 3))


def _projected(q: Any, k: Any, v: Any, weights: list[Any], bias: Any, same: bool) -> list[Any]:
    """The queries, keys and values after their linear maps; of one input they are one product."""
    if len(weights) == 1 and same:
        both = linear(q, weights[0], bias)
        return list(both.chunk(3, -1))
    parts = list(weights[0].chunk(3, 0)) if len(weights) == 1 else weights
    biases = [None] * 3 if bias is None else list(bias.chunk(3, 0))
    return [linear(x, w, b) for x, w, b in zip((q, k, v), parts, biases, strict=True)]


def _additive(mask: Any, dtype: Any) -> Any:
    """A mask to be added to scores: a bool mask is true where a key must not be seen."""
    if mask._node.dtype is not dt.bool_:
        return pr.cast(mask, dtype)
    return pr.select(mask, pr.constant(-math.inf, dtype), pr.constant(0.0, dtype))


def _multi_head(*args: Any) -> Any:
    *tensors, flags, heads, p, zero, causal, same, average = args
    items = list(tensors)
    q, k, v = items.pop(0), items.pop(0), items.pop(0)
    packed, has_bias, has_extra, has_out_bias, has_padding, has_mask, has_key = flags
    weights = [items.pop(0) for _ in range(1 if packed else 3)]
    bias = items.pop(0) if has_bias else None
    extra = (items.pop(0), items.pop(0)) if has_extra else None
    out_weight = items.pop(0)
    out_bias = items.pop(0) if has_out_bias else None
    padding = items.pop(0) if has_padding else None
    mask = items.pop(0) if has_mask else None
    random = items.pop(0) if has_key else None
    length, n, features = shape_of(q)
    q, k, v = _projected(q, k, v, weights, bias, same)
    added = 0
    if extra is not None:
        k, v = (
            pr.joined((t, pr.expanded(e, (1, n, features))), 0)
            for t, e in zip((k, v), extra, strict=True)
        )
        added += 1
    q, k, v = (_heads(t, heads) for t in (q, k, v))
    if zero:
        k, v = (pr.padded(t, ((0, 0), (0, 0), (0, 1), (0, 0))) for t in (k, v))
        added += 1
    hidden = _hidden(shape_of(q)[:-1], shape_of(k)[2], q._node.dtype, mask, padding, added)
    scale = 1 / math.sqrt(features // heads)
    causal = causal and mask is None
    if average is None and random is None and not (causal and added) and _has_kernel(q, k, v):
        used, mixed = None, _in_one(q, k, v, hidden, scale, causal)
    else:
        scores = (q @ k.transpose(-2, -1)) * scale
        if causal:
            later = pr.counter(shape_of(scores)[-2:], 1) >= shape_of(scores)[-1] - added
            scores = _limited(scores, _causal(shape_of(scores)) | later)
        scores = scores if hidden is None else scores + hidden
        shares = _weights(scores, causal or hidden is not None)
        used = shares if random is None else _thinned(shares, random, p)
        mixed = used @ v
    out = linear(
        pr.shaped(pr.ordered(mixed, (2, 0, 1, 3)), (length, n, features)), out_weight, out_bias
    )
    if average is None:
        return out
    assert used is not None
    return out, (used.mean(1) if average else used)


def _hidden(
    lead: tuple[int, ...], keys: int, dtype: Any, mask: Any, padding: Any, added: int
) -> Any:
    """What is added to scores `(n, heads, queries, keys)` by both masks, which say nothing of added
    keys; `None` without masks."""
    n, heads, queries = lead
    known = keys - added
    parts = []
    if mask is not None:
        shape = shape_of(mask)
        if shape not in ((queries, known), (n * heads, queries, known)):
            raise ShapeError(
                f"The shape of the attn_mask is {shape}, but should be {(queries, known)} or "
                f"{(n * heads, queries, known)}"
            )
        outer = (1, 1) if len(shape) == 2 else (n, heads)
        parts.append(pr.shaped(_additive(mask, dtype), (*outer, queries, known)))
    if padding is not None:
        if shape_of(padding) != (n, known):
            raise ShapeError(
                f"The shape of the key_padding_mask is {shape_of(padding)}, but should be "
                f"{(n, known)}"
            )
        parts.append(pr.shaped(_additive(padding, dtype), (n, 1, 1, known)))
    if not parts:
        return None
    both = parts[0] if len(parts) == 1 else parts[0] + parts[1]
    return pr.padded(both, ((0, 0), (0, 0), (0, 0), (0, added)))


def multi_head_attention_forward(
    query: Any, key: Any, value: Any, embed_dim_to_check: int, num_heads: int,
    in_proj_weight: Any, in_proj_bias: Any, bias_k: Any, bias_v: Any, add_zero_attn: bool,
    dropout_p: float, out_proj_weight: Any, out_proj_bias: Any, training: bool = True,
    key_padding_mask: Any = None, need_weights: bool = True, attn_mask: Any = None,
    use_separate_proj_weight: bool = False, q_proj_weight: Any = None, k_proj_weight: Any = None,
    v_proj_weight: Any = None, static_k: Any = None, static_v: Any = None,
    average_attn_weights: bool = True, is_causal: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """Attention of several heads with its linear maps.

    Args:
        query: `(queries, n, features)`, or without n.
        key, value: `(keys, n, *)`.
        key_padding_mask: `(n, keys)`, true (or -inf) for keys that are padding.
        attn_mask: `(queries, keys)` or `(n * heads, queries, keys)`, true (or -inf) where a query
            must not see a key.
        need_weights: give the weights as well, `average_attn_weights` over the heads.
        is_causal: with `need_weights` off, take a causal mask for granted.

    Returns:
        The result `(queries, n, features)`, and weights `(n, queries, keys)` or `None`.
    """
    if static_k is not None or static_v is not None:
        raise NotImplementedError("multi_head_attention_forward: static_k and static_v")
    features = shape_of(query)[-1]
    if features != embed_dim_to_check:
        raise ShapeError(
            f"was expecting embedding dimension of {embed_dim_to_check}, but got {features}"
        )
    batched = len(shape_of(query)) == 3
    same = query is key and key is value
    if not batched:
        query, key, value = (t.unsqueeze(1) for t in (query, key, value))
        key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
    weights = (
        (q_proj_weight, k_proj_weight, v_proj_weight)
        if use_separate_proj_weight
        else (in_proj_weight,)
    )
    random = next_key() if training and dropout_p > 0 else None
    optional = (in_proj_bias, bias_k, bias_v, out_proj_bias, key_padding_mask, attn_mask, random)
    flags = tuple(t is not None for t in optional)
    inputs = [query, key, value, *weights]
    inputs += [t for t in optional[:3] if t is not None]
    inputs.append(out_proj_weight)
    inputs += [t for t in optional[3:] if t is not None]
    average = average_attn_weights if need_weights else None
    has = (not use_separate_proj_weight, flags[0], flags[1], *flags[3:])
    causal = is_causal and not need_weights
    attrs = (has, num_heads, dropout_p, add_zero_attn, causal, same, average)
    out = block(_multi_head, inputs, attrs)
    result, shares = out if need_weights else (out, None)
    if batched:
        return result, shares
    return result.squeeze(1), None if shares is None else shares.squeeze(0)
