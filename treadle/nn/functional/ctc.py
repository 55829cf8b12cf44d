"""The loss of a sequence whose alignment with its labels is not known."""

from __future__ import annotations

from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import ShapeError
from treadle.nn.functional.common import reduced, require_float, require_reduction, shape_of
from treadle.tensor import Tensor, as_tensor, block, no_grad
from treadle.tensor import primitive as pr


def ctc_loss(
    log_probs: Any, targets: Any, input_lengths: Any, target_lengths: Any, blank: int = 0,
    reduction: str = "mean", zero_infinity: bool = False,
) -> Any:  # fmt: skip
    """Minus the log-probability of label sequences, summed over all their alignments.

    The gradient is that of log-probabilities that come from `log_softmax`, as in PyTorch.

    Source: Graves et al., "Connectionist Temporal Classification" (2006).

    Args:
        log_probs: `(time, n, classes)`, or `(time, classes)`.
        targets: `(n, longest)`, or all targets one after another; labels but the blank.
        input_lengths: `(n,)`, how many steps of each input count.
        target_lengths: `(n,)`, how many labels each target has.
        blank: the label of no label.
        reduction: `"mean"` divides by the length of the target, then averages.
        zero_infinity: count 0 for targets that are too long for their input.

    Raises:
        ShapeError: the number of lengths or of targets is wrong.
        IndexBoundsError: when it runs, a length or a label is out of range.
    """
    require_reduction(reduction)
    require_float("ctc_loss", log_probs)
    single = len(shape_of(log_probs)) == 2
    x = log_probs.unsqueeze(1) if single else log_probs
    n, classes = shape_of(x)[1:]
    if not 0 <= blank < classes:
        raise RuntimeError(f"blank must be in label range [0, {classes}), got {blank}")
    times, lengths = _vector(input_lengths), _vector(target_lengths)
    for name, given in (("input_lengths", times), ("target_lengths", lengths)):
        if shape_of(given) != (n,):
            raise ShapeError(f"ctc_loss: {name} must be of size {n}, got {shape_of(given)}")
    target = _padded(pr.cast(targets, dt.int64), lengths, n)
    out = block(_ctc, (x, target, times, lengths), (blank, zero_infinity, reduction))
    return out.reshape(()) if single and reduction == "none" else out


def _vector(lengths: Any) -> Any:
    given = lengths if isinstance(lengths, Tensor) else as_tensor(lengths, dtype=dt.int64)
    return pr.cast(given, dt.int64).reshape(-1)


def _padded(target: Any, lengths: Any, n: int) -> Any:
    """The targets as rows; such as come one after another are cut by their lengths, read."""
    shape = shape_of(target)
    if len(shape) == 2:
        if shape[0] != n:
            raise ShapeError(f"ctc_loss: expected {n} targets, got {shape[0]}")
        return target
    counts = lengths.tolist()
    if sum(counts) != shape[0] and n > 1:
        raise ShapeError(f"ctc_loss: target_lengths sum to {sum(counts)}, not {shape[0]}")
    longest = max(counts, default=0)
    starts = lengths.cumsum(0) - lengths
    place = starts.unsqueeze(1) + pr.counter((n, longest), 1)
    if not shape[0]:
        return pr.filled((n, longest), 0, dt.int64)
    return pr.taken(target, place.clamp(0, shape[0] - 1), 0)


def _ctc(x: Any, target: Any, times: Any, lengths: Any, blank: int, finite: bool,
         reduction: str) -> Any:  # fmt: skip
    loss = pr.spelled(x, target, times, lengths, blank, finite)
    loss = loss + _through_softmax(x, times, loss, finite)
    if reduction == "mean":
        share = pr.cast(lengths.clamp(min=1), loss._node.dtype)
        return reduced(loss / share, "mean")
    return reduced(loss, reduction)


def _through_softmax(x: Any, times: Any, loss: Any, finite: bool) -> Any:
    """0, with the gradient `exp(x)`: log-probabilities of all labels sum to one, and PyTorch's
    gradient keeps what moves their sum out of them."""
    steps, n, _ = shape_of(x)
    with no_grad():
        counted = pr.counter((steps, n, 1), 0) < pr.shaped(times, (1, n, 1))
        if finite:
            counted = counted & pr.shaped(loss != 0.0, (1, n, 1))
    mass = pr.total(pr.select(counted, x.exp(), pr.constant(0, x._node.dtype)), (0, 2))
    return pr.shaped(mass - pr.fixed(mass), (n,))
