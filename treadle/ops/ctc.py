"""Connectionist temporal classification: all ways to spell a sequence, on the host.

Source: Graves, Fernández, Gomez and Schmidhuber, "Connectionist Temporal Classification" (2006).
"""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import IndexBoundsError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops.table import (
    Arg,
    Op,
    Sample,
    make,
    no_lowering,
    not_differentiable,
    require_float,
)
from treadle.ops.view import expand, reshape

np = LazyModule("numpy")


def _infer(x: Any, target: Any, times: Any, lengths: Any, blank: int,
           finite: bool) -> tuple[Shape, DType]:  # fmt: skip
    return (x.shape[1],), require_float("ctc_loss", x)


def _posterior_infer(x: Any, target: Any, times: Any, lengths: Any, nll: Any,
                     blank: int, finite: bool) -> tuple[Shape, DType]:  # fmt: skip
    return x.shape, require_float("ctc_loss", x)


def _paths(x: Any, target: Any, times: Any, lengths: Any, blank: int) -> tuple[Any, Any, Any]:
    """The labels with blanks between them `(n, s)`, where a step may pass over the blank, and the
    log-probabilities along them `(t, n, s)`."""
    steps, n, classes = x.shape
    if ((times < 0) | (times > steps)).any():
        raise IndexBoundsError(f"ctc_loss: input_lengths must be in [0, {steps}], got {times}")
    if ((lengths < 0) | (lengths > target.shape[1])).any():
        raise IndexBoundsError(
            f"ctc_loss: target_lengths must be in [0, {target.shape[1]}], got {lengths}"
        )
    used = np.arange(target.shape[1]) < lengths[:, None]
    if ((target < 0) | (target >= classes))[used].any():
        raise IndexBoundsError(f"ctc_loss: targets must be in [0, {classes})")
    labels = np.full((n, 2 * target.shape[1] + 1), blank, np.int64)
    labels[:, 1::2] = np.where(used, target, blank)
    skips = np.zeros(labels.shape, bool)
    skips[:, 3::2] = labels[:, 3::2] != labels[:, 1:-2:2]
    emitted = np.take_along_axis(x.astype(np.float64), labels[None], 2)
    return labels, skips, emitted


def _step(before: Any, skips: Any) -> Any:
    """The log-probability of coming to each place from the one before, itself, or two before."""
    out = before.copy()
    out[:, 1:] = np.logaddexp(out[:, 1:], before[:, :-1])
    passed = np.where(skips[:, 2:], before[:, :-2], -np.inf)
    out[:, 2:] = np.logaddexp(out[:, 2:], passed)
    return out


def _forward(emitted: Any, skips: Any) -> Any:
    """The log-probability of being at each place after each step `(t, n, s)`."""
    out = np.full(emitted.shape, -np.inf)
    if len(emitted):
        out[0, :, :2] = emitted[0, :, :2]
    for t in range(1, len(emitted)):
        out[t] = emitted[t] + _step(out[t - 1], skips)
    return out


def _ends(lengths: Any, width: int) -> Any:
    """The places where a spelling may end: the last label and the blank behind it."""
    place = np.arange(width)
    last = 2 * lengths[:, None]
    return (place == last) | ((place == last - 1) & (last > 0))


def _ref(x: Any, target: Any, times: Any, lengths: Any, blank: int, finite: bool) -> Any:
    with np.errstate(invalid="ignore"):
        labels, skips, emitted = _paths(x, target, times, lengths, blank)
        alpha = _forward(emitted, skips)
        ends = np.where(_ends(lengths, labels.shape[1]), 0.0, -np.inf)
        out = np.where(lengths == 0, 0.0, np.inf)
        for i in np.flatnonzero(times):
            out[i] = -np.logaddexp.reduce(alpha[times[i] - 1, i] + ends[i])
    return np.where(np.isinf(out), 0.0, out).astype(x.dtype) if finite else out.astype(x.dtype)


def _posterior(x: Any, target: Any, times: Any, lengths: Any, nll: Any, blank: int,
               finite: bool) -> Any:  # fmt: skip
    """How probable each label is at each step, given the target: minus the derivative.

    Of a target that no alignment spells it is 0 where its loss is, else NaN.
    """
    labels, skips, emitted = _paths(x, target, times, lengths, blank)
    ends = np.where(_ends(lengths, labels.shape[1]), 0.0, -np.inf)
    out = np.zeros(x.shape)
    turned = np.zeros(skips.shape, bool)
    turned[:, 2:] = skips[:, :1:-1]
    with np.errstate(invalid="ignore"):
        alpha = _forward(emitted, skips)
        beta = np.full(labels.shape, -np.inf)
        for t in range(len(x) - 1, -1, -1):
            onward = _step(beta[:, ::-1], turned)[:, ::-1]
            onward = np.where((times == t + 1)[:, None], ends, onward)
            beta = emitted[t] + onward
            share = np.exp(alpha[t] + onward + nll[:, None].astype(np.float64))
            share[t >= times] = 0.0
            rows = np.broadcast_to(np.arange(len(labels))[:, None], labels.shape)
            np.add.at(out[t], (rows, labels), share)
    return out.astype(x.dtype)


def _gradient(node: Node, g: Node, i: int) -> Node | None:
    if i:
        return None
    x = node.inputs[0]
    posterior = make(CTC_POSTERIOR, (*node.inputs, node), node.attrs)
    column = expand(reshape(g, (1, x.shape[1], 1)), x.shape)
    return pw.neg(pw.mul(posterior, column))


def _whole(shape: Shape, low: float, high: float) -> Arg:
    return Arg(shape, dt.int64, low, high)


_SAMPLES: Final = tuple(
    Sample(
        (Arg((6, 2, 4), d, -3.0, 0.0), _whole((2, 2), 1, 3), _whole((2,), 5, 7),
         _whole((2,), 1, 3)),
        (0, False),
    )
    for d in (dt.float32, dt.float64)
)  # fmt: skip

CTC: Final[Op] = Op(
    name="ctc", kind="host", attr_names=("blank", "finite"), infer=_infer, vjp=_gradient,
    lower=no_lowering, ref=_ref, samples=_SAMPLES,
    doc="-log of the probability of a sequence of labels, summed over its alignments",
)  # fmt: skip
CTC_POSTERIOR: Final[Op] = Op(
    name="ctc_posterior", kind="host", attr_names=("blank", "finite"), infer=_posterior_infer,
    vjp=not_differentiable, lower=no_lowering, ref=_posterior, samples=(),
    doc="the probability of each label at each step given the sequence that was spelled",
)  # fmt: skip
