"""Attention on NumPy arrays, from the very sizes that its machine code is given."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from treadle.base.lazy import LazyModule
from treadle.ir.attention import AXES, BACKWARD, EXTENTS, Attention

_np = LazyModule("numpy")


def interpret_attention(
    pattern: Attention, buffers: Sequence[Any], sizes: Sequence[int], starts: Sequence[int] = ()
) -> None:
    """Runs an attention pattern with the matrix of scores in memory.

    buffers: flat NumPy arrays for the operands and the outputs
    sizes:   the extents and strides, as `Attention` lists them
    starts:  the element of each buffer at which its matrix begins (default: the first)
    """
    batches, heads, t, s, d, e, bits = sizes[: len(EXTENTS)]
    (scale,) = struct.unpack("<d", struct.pack("<q", bits))
    shapes = {
        "q": (t, d), "k": (s, d), "v": (s, e), "mask": (t, s), "lse": (t, 1), "delta": (t, 1),
        "g": (t, e), "out": (t, e), "dq": (t, d), "dk": (s, d), "dv": (s, e),
    }  # fmt: skip
    x: dict[str, Any] = {}
    for i, matrix in enumerate((*pattern.operands, *pattern.outputs)):
        first = len(EXTENTS) + len(AXES) * i
        steps = sizes[first : first + len(AXES)]
        flat = buffers[i][starts[i] if starts else 0 :]
        x[matrix.name] = _np.lib.stride_tricks.as_strided(
            flat, (batches, heads, *shapes[matrix.name]), [n * flat.itemsize for n in steps]
        )
    with _np.errstate(all="ignore"):
        results = (_backward if pattern.backward else _forward)(pattern, x, scale)
    for matrix in pattern.outputs:
        x[matrix.name][...] = results[matrix.name]


def _scores(pattern: Attention, x: dict[str, Any], scale: float) -> Any:
    scores = x["q"] @ _np.swapaxes(x["k"], 2, 3) * scale
    mask = x.get("mask")
    if mask is not None:
        scores = _np.where(mask, scores, -_np.inf) if mask.dtype == bool else scores + mask
    if pattern.causal:
        scores = _np.where(_np.tri(*scores.shape[2:], dtype=bool), scores, -_np.inf)
    return scores


def _weights(scores: Any, lse: Any) -> Any:
    return _np.exp(scores - _np.where(lse == -_np.inf, 0, lse))


def _forward(pattern: Attention, x: dict[str, Any], scale: float) -> dict[str, Any]:
    scores = _scores(pattern, x, scale)
    lse = _np.logaddexp.reduce(scores, axis=3, keepdims=True)
    return {"lse": lse, "out": _weights(scores, lse) @ x["v"] if "v" in x else None}


def _backward(pattern: Attention, x: dict[str, Any], scale: float) -> dict[str, Any]:
    weights = _weights(_scores(pattern, x, scale), x["lse"])
    d_scores = weights * (x["g"] @ _np.swapaxes(x["v"], 2, 3) - x["delta"]) * scale
    across = _np.swapaxes(d_scores, 2, 3)
    found = (d_scores @ x["k"], across @ x["q"], _np.swapaxes(weights, 2, 3) @ x["g"])
    return dict(zip(BACKWARD, found, strict=True))
