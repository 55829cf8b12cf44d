"""Attention: softmax(q k^T scale + mask) v, of which no matrix of scores is ever stored.

Tensors have the order of projections, so that neither side of attention needs a copy:

    q    (b, t, h, d)        b batches, t queries, s keys, h heads
    k    (b, s, h, d)
    v    (b, s, h, e)
    lse  (b, h, t)           the logarithm of the sum of exp(scores), of each query
    mask (b, h, t, s)        bool (true where a query sees a key) or added to the scores; extents
                             of 1 are broadcast

Three ops share one kernel each way: `attention` and `attention_lse` (joined by the graph passes
where both are wanted), and `attention_gradient` for q, k and v. A query that sees no key has lse
-inf, the result 0 and no gradient, as in PyTorch.

Source: Dao, Fu, Ermon, Rudra, Re, "FlashAttention: fast and memory-efficient exact attention with
IO-awareness", 2022.
"""

from __future__ import annotations

import math
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import ShapeError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops import reduce, source, view
from treadle.ops.composed import composed_vjp
from treadle.ops.contract import contract
from treadle.ops.table import Arg, Op, Sample, make, no_lowering, require_float, require_same_dtype

np = LazyModule("numpy")

_Q: Final = (0, 2, 1, 4)
_K: Final = (0, 3, 1, 4)
_V: Final = (0, 3, 1, 5)
_OUT: Final = (0, 2, 1, 5)
_SCORES: Final = (0, 1, 2, 3)
"""Labels: batch 0, head 1, query 2, key 3, feature of a key 4, feature of a value 5."""


def _check(q: Any, k: Any, v: Any, mask: tuple[Any, ...]) -> None:
    require_float("attention", q)
    require_same_dtype("attention", q, k, v)
    (b, t, h, d), (s, e) = q.shape, (k.shape[1], v.shape[3])
    if tuple(k.shape) != (b, s, h, d) or tuple(v.shape) != (b, s, h, e):
        raise ShapeError(
            f"attention: queries {tuple(q.shape)}, keys {tuple(k.shape)} and values "
            f"{tuple(v.shape)} do not fit: batches, heads and features of queries and keys must "
            f"agree, and there is one value for each key"
        )
    for m in mask:
        full = (b, h, t, s)
        if len(m.shape) != 4 or any(n not in (1, w) for n, w in zip(m.shape, full, strict=True)):
            raise ShapeError(f"attention: a mask of shape {tuple(m.shape)} is no {full}")
        if m.dtype is not dt.bool_:
            require_same_dtype("attention", q, m)


# --- what the ops mean, in other ops ---------------------------------------------------------


def _scores(q: Node, k: Node, mask: tuple[Node, ...], scale: float, causal: bool) -> Node:
    scores = pw.mul(contract(q, k, _Q, _K, _SCORES), pw.like(scale, q))
    nothing = pw.like(-math.inf, q)
    for m in mask:
        scores = pw.where(m, scores, nothing) if m.dtype is dt.bool_ else pw.add(scores, m)
    if causal:
        square = scores.shape[2:]
        seen = pw.ge(source.iota(square, 0), source.iota(square, 1))
        scores = pw.where(seen, scores, nothing)
    return scores


def _weights(scores: Node, lse: Node) -> Node:
    """The softmax, given the logarithms of its denominators."""
    blind = pw.eq(lse, pw.like(-math.inf, lse))
    finite = pw.where(blind, pw.like(0, lse), lse)
    return pw.exp(pw.sub(scores, view.reshape(finite, (*lse.shape, 1))))


def _compose_gradient(inputs: tuple[Node, ...], attrs: tuple) -> Node:
    q, k, v, lse, g, delta, *mask = inputs
    wrt, scale, causal = attrs
    weights = _weights(_scores(q, k, tuple(mask), scale, causal), lse)
    if wrt == 2:
        return contract(weights, g, _SCORES, _OUT, _V)
    d_scores = _score_gradient(weights, v, g, delta)
    return _through_scores(d_scores, q, k, wrt, scale)


def _through_scores(d_scores: Node, q: Node, k: Node, wrt: int, scale: float) -> Node:
    """The gradient for q or k, given that for the scores."""
    if wrt == 0:
        part = contract(d_scores, k, _SCORES, _K, _Q)
    else:
        part = contract(d_scores, q, _SCORES, _Q, _K)
    return pw.mul(part, pw.like(scale, q))


def _score_gradient(weights: Node, v: Node, g: Node, delta: Node) -> Node:
    """The gradient for the scores: `p (g v^T - delta)`."""
    against = contract(g, v, _OUT, _V, _SCORES)
    return pw.mul(weights, pw.sub(against, view.reshape(delta, (*delta.shape, 1))))


# --- gradients -------------------------------------------------------------------------------


def _lse_gradient(node: Node, g: Node, i: int) -> Node | None:
    q, k, *mask = node.inputs
    scale, causal = node.attrs
    if i == 2 and mask[0].dtype is dt.bool_:
        return None
    weights = _weights(_scores(q, k, tuple(mask), scale, causal), node)
    d_scores = pw.mul(weights, view.reshape(g, (*g.shape, 1)))
    if i == 2:
        return reduce.sum_to(d_scores, mask[0].shape)
    return _through_scores(d_scores, q, k, i, scale)


def _gradient(node: Node, g: Node, i: int) -> Node | None:
    q, k, v, lse, *mask = node.inputs
    if i == 3:
        return None
    b, t, h = node.shape[:3]
    products = reduce.total(pw.mul(g, node), (3,))
    delta = view.permute(view.reshape(products, (b, t, h)), (0, 2, 1))
    if i < 3:
        inputs = (q, k, v, lse, g, delta, *mask)
        return make(ATTENTION_GRADIENT, inputs, (i, *node.attrs))
    if mask[0].dtype is dt.bool_:
        return None
    weights = _weights(_scores(q, k, tuple(mask), *node.attrs), lse)
    return reduce.sum_to(_score_gradient(weights, v, g, delta), mask[0].shape)


# --- references ------------------------------------------------------------------------------


def _scores_ref(q: Any, k: Any, mask: tuple[Any, ...], scale: float, causal: bool) -> Any:
    scores = np.einsum("bthd,bshd->bhts", q, k) * q.dtype.type(scale)
    for m in mask:
        scores = np.where(m, scores, -np.inf) if m.dtype == bool else scores + m
    if causal:
        scores = np.where(np.tri(*scores.shape[2:], dtype=bool), scores, -np.inf)
    return scores.astype(q.dtype)


def _lse_ref(q: Any, k: Any, *rest: Any) -> Any:
    scores = _scores_ref(q, k, rest[:-2], *rest[-2:])
    return np.logaddexp.reduce(scores, axis=3).astype(q.dtype)


def _weights_ref(scores: Any, lse: Any) -> Any:
    return np.exp(scores - np.where(lse == -np.inf, 0, lse)[..., None])


def _ref(q: Any, k: Any, v: Any, lse: Any, *rest: Any) -> Any:
    scores = _scores_ref(q, k, rest[:-2], *rest[-2:])
    weights = _weights_ref(scores, _lse_ref(q, k, *rest))
    return np.einsum("bhts,bshe->bthe", weights, v).astype(q.dtype)


def _gradient_ref(q: Any, k: Any, v: Any, lse: Any, g: Any, delta: Any, *rest: Any) -> Any:
    *mask, wrt, scale, causal = rest
    weights = _weights_ref(_scores_ref(q, k, tuple(mask), scale, causal), lse)
    if wrt == 2:
        return np.einsum("bhts,bthe->bshe", weights, g).astype(q.dtype)
    against = np.einsum("bthe,bshe->bhts", g, v)
    d_scores = weights * (against - delta[..., None]) * q.dtype.type(scale)
    if wrt == 0:
        return np.einsum("bhts,bshd->bthd", d_scores, k).astype(q.dtype)
    return np.einsum("bhts,bthd->bshd", d_scores, q).astype(q.dtype)


# --- records ---------------------------------------------------------------------------------


def _lse_infer(q: Any, k: Any, *rest: Any) -> tuple[Shape, DType]:
    _check(q, k, k, rest[:-2])
    b, t, h, _ = q.shape
    return (b, h, t), q.dtype


def _infer(q: Any, k: Any, v: Any, lse: Any, *rest: Any) -> tuple[Shape, DType]:
    _check(q, k, v, rest[:-2])
    return (*q.shape[:3], v.shape[3]), q.dtype


def _gradient_infer(
    q: Any, k: Any, v: Any, lse: Any, g: Any, delta: Any, *rest: Any
) -> tuple[Shape, DType]:
    _check(q, k, v, rest[:-3])
    return tuple((q, k, v)[rest[-3]].shape), q.dtype


_MASKS: Final = ((), (Arg((1, 2, 3, 5), dt.bool_, 1, 1),), (Arg((2, 1, 1, 5), dt.float64),))


def _samples(gradient: bool) -> tuple[Sample, ...]:
    """Two heads of two batches; lse large enough for weights of about one."""
    q, k, v = (Arg(shape, dt.float64) for shape in ((2, 3, 2, 4), (2, 5, 2, 4), (2, 5, 2, 3)))
    lse, delta = Arg((2, 2, 3), dt.float64, 1.0, 2.0), Arg((2, 2, 3), dt.float64)
    g = Arg((2, 3, 2, 3), dt.float64)
    inputs = (q, k, v, lse, g, delta) if gradient else (q, k)
    wanted: tuple[tuple[int, ...], ...] = ((0,), (1,), (2,)) if gradient else ((),)
    return tuple(
        Sample((*inputs, *mask), (*wrt, 0.5, causal))
        for mask in _MASKS
        for wrt in wanted
        for causal in (False, True)
    )


ATTENTION_LSE: Final = Op(
    name="attention_lse", kind="attention", attr_names=("scale", "causal"), infer=_lse_infer,
    vjp=_lse_gradient, lower=no_lowering, ref=_lse_ref, samples=_samples(False),
    doc="log of the sum over the keys of exp(scores), for q, k and perhaps a mask",
)  # fmt: skip
ATTENTION: Final = Op(
    name="attention", kind="attention", attr_names=("scale", "causal"), infer=_infer,
    vjp=_gradient, lower=no_lowering, ref=_ref, samples=(),
    doc="softmax of the scores of q and k times v; the input lse is `attention_lse` of the same q, "
    "k and mask, which the gradient needs",
)  # fmt: skip
ATTENTION_GRADIENT: Final = Op(
    name="attention_gradient", kind="attention", attr_names=("wrt", "scale", "causal"),
    infer=_gradient_infer, vjp=composed_vjp(_compose_gradient), lower=no_lowering,
    ref=_gradient_ref, samples=_samples(True),
    doc="the gradient for input `wrt` of (q, k, v), from q, k, v, lse, the gradient g of the "
    "result, delta (the sum over the features of g times the result), and perhaps a mask",
)  # fmt: skip
