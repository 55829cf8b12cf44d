"""Elements added at the ends of axes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from treadle.base.errors import ShapeError
from treadle.tensor import primitive as pr
from treadle.tensor.record import block

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

_MODES: Final = ("constant", "reflect", "replicate", "circular")


def pad(
    input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None
) -> Tensor:
    """Elements added at the ends of the last axes.

    Args:
        input: any shape.
        pad: `(before, after)` of the last axis, then of the last but one, and so on; negative
            numbers take elements away.
        mode: `"constant"`, `"reflect"`, `"replicate"` or `"circular"`.
        value: what `"constant"` fills with (default 0).

    Raises:
        ShapeError: the counts are odd, too many, or reach past the other end of an axis.
    """
    shape = tuple(input._node.shape)
    if len(pad) % 2 or len(pad) // 2 > len(shape):
        raise ShapeError(
            f"Padding length should be less than or equal to two times the input dimension but got "
            f"padding length {len(pad)} ({len(pad)} counts) and input of dimension {len(shape)}"
        )
    if mode not in _MODES:
        raise NotImplementedError(f"Unrecognised padding mode {mode}")
    pads = tuple(int(p) for p in pad)
    for i in range(len(pads) // 2):
        extent, before, after = shape[-1 - i], pads[2 * i], pads[2 * i + 1]
        if extent + before + after < 0 or extent + min(before, 0) + min(after, 0) < 0:
            raise ShapeError(
                f"pad: nothing is left of dimension {len(shape) - 1 - i} with extent {extent}"
            )
    if not any(pads):
        return input.clone()
    return block(_pad, (input,), (pads, mode, value or 0))


def constant_pad_nd(input: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    """`pad` with one value."""
    return _pad_of(input, pad, "constant", value)


_pad_of = pad


def _pad(x: Any, pads: tuple[int, ...], mode: str, value: float) -> Any:
    rank = len(x._node.shape)
    count = len(pads) // 2
    ends = [(pads[2 * i], pads[2 * i + 1]) for i in reversed(range(count))]
    if mode == "constant":
        dtype = x._node.dtype
        fill = bool(value) if dtype.kind == "b" else value if dtype.kind == "f" else int(value)
        return pr.padded(x, (*((0, 0),) * (rank - count), *ends), fill)
    # What is taken away goes first: the rest is what the ends are made of.
    cuts = tuple((min(a, 0), min(b, 0)) for a, b in ends)
    x = pr.padded(x, (*((0, 0),) * (rank - count), *cuts))
    for j, (before, after) in enumerate((max(a, 0), max(b, 0)) for a, b in ends):
        if before or after:
            axis = rank - count + j
            x = pr.taken(x, _source(x._node.shape[axis], before, after, mode), axis)
    return x


def _source(n: int, before: int, after: int, mode: str) -> Any:
    """Where each element of a padded axis is read from."""
    if mode == "reflect" and max(before, after) >= n:
        raise ShapeError(
            f"Padding size should be less than the corresponding input dimension: at most {n - 1}, "
            f"but got: padding ({before}, {after}) at a dimension of {n}"
        )
    if mode == "circular" and max(before, after) > n:
        raise ShapeError("Padding value causes wrapping around more than once.")
    if not n:
        raise ShapeError(f"pad: mode {mode!r} has nothing to read in a dimension of 0")
    i = pr.counter((n + before + after,), 0) - before
    if mode == "circular":
        return i % n
    if mode == "replicate":
        return i.clamp(0, n - 1)
    i = i.abs()
    return (n - 1) - ((n - 1) - i).abs()
