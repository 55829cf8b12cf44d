"""Contractions: matmul, batched matmul, einsum of two operands, and convolution."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import ShapeError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.node import Node
from treadle.ops import view
from treadle.ops.table import (
    TABLE,
    Arg,
    Op,
    Sample,
    make,
    no_lowering,
    per_input,
    require_same_dtype,
)

np = LazyModule("numpy")

Labels = tuple[int, ...]


def _extents(a: Any, b: Any, left: Labels, right: Labels) -> dict[int, int]:
    extents: dict[int, int] = {}
    for x, labels in ((a, left), (b, right)):
        for label, n in zip(labels, x.shape, strict=True):
            if extents.setdefault(label, n) != n:
                raise ShapeError(
                    f"matmul: shapes {tuple(a.shape)} and {tuple(b.shape)} do not fit: "
                    f"{extents[label]} and {n} are summed together; hint: the last dimension of "
                    f"the first must equal the last but one of the second"
                )
    return extents


def _infer(a: Any, b: Any, left: Labels, right: Labels, out: Labels) -> tuple[Shape, DType]:
    dtype = require_same_dtype("matmul", a, b)
    extents = _extents(a, b, left, right)
    return tuple(extents[label] for label in out), dtype


def _gradient(node: Node, g: Node, i: int) -> Node:
    """The same contraction with the output in the place of one operand."""
    left, right, out = node.attrs
    mine, other = (left, right) if i == 0 else (right, left)
    source = node.inputs[1 - i]
    found = set(out) | set(other)
    kept = tuple(label for label in mine if label in found)
    part = contract(g, source, out, other, kept)
    if kept == mine:
        return part
    # A label of this operand alone was summed by itself: its gradient does not vary along it.
    shape = node.inputs[i].shape
    column = tuple(n if label in found else 1 for label, n in zip(mine, shape, strict=True))
    return view.expand(view.reshape(part, column), shape)


def _ref(a: Any, b: Any, left: Labels, right: Labels, out: Labels) -> Any:
    return np.einsum(a, list(left), b, list(right), list(out)).astype(a.dtype, copy=False)


CONTRACT: Final = Op(
    name="contract", kind="contract", attr_names=("left", "right", "out"), infer=_infer,
    vjp=_gradient, lower=no_lowering, ref=_ref,
    samples=tuple(
        Sample((Arg(a, d), Arg(b, d)), attrs)
        for d in (dt.float32, dt.float64)
        for a, b, attrs in (
            ((3, 4), (4, 5), ((0, 2), (2, 1), (0, 1))),
            ((4, 3), (5, 4), ((2, 0), (1, 2), (0, 1))),
            ((2, 3, 4), (2, 4, 5), ((3, 0, 2), (3, 2, 1), (3, 0, 1))),
            ((4,), (4,), ((0,), (0,), ())),
            ((3,), (4,), ((0,), (1,), (0, 1))),
        )
    ),
    doc="sum over the labels that the output lacks of the product of the operands (einsum)",
)  # fmt: skip


def contract(a: Node, b: Node, left: Labels, right: Labels, out: Labels) -> Node:
    """The sum of products over the labels missing from `out`."""
    return make(CONTRACT, (a, b), (left, right, out))


# --- convolution -----------------------------------------------------------------------------


def conv_extent(
    n: int, k: int, step: int, pad: tuple[int, int], spacing: int, dilation: int
) -> int:
    """The output extent of a convolution along one axis."""
    wide = (n - 1) * dilation + 1 + pad[0] + pad[1] if n else 0
    return max(0, (wide - (k - 1) * spacing - 1) // step + 1)


def _conv_infer(
    x: Any,
    w: Any,
    steps: Shape,
    pads: tuple[tuple[int, int], ...],
    spacings: Shape,
    dilations: Shape,
) -> tuple[Shape, DType]:
    dtype = require_same_dtype("conv", x, w)
    n, groups, channels, *space = x.shape
    wgroups, outs, wchannels, *window = w.shape
    if (groups, channels) != (wgroups, wchannels) or len(space) != len(window):
        raise ShapeError(
            f"conv: the weight expects {wgroups * wchannels} input channels, "
            f"the input of shape {(n, groups * channels, *space)} has {groups * channels}"
        )
    out = tuple(
        conv_extent(*each)
        for each in zip(space, window, steps, pads, spacings, dilations, strict=True)
    )
    if 0 in out and 0 not in space:
        raise ShapeError(
            f"conv: the kernel {tuple(window)} is larger than the padded input {tuple(space)}"
        )
    return (n, groups, outs, *out), dtype


def _conv_data_gradient(node: Node, g: Node) -> Node:
    """A convolution of the dilated gradient with the flipped kernel, channels swapped."""
    x, w = node.inputs
    steps, pads, spacings, dilations = node.attrs
    space = tuple(range(3, len(w.shape)))
    flipped = make(TABLE["flip"], (w,), (space,))
    swapped = view.permute(flipped, (0, 2, 1, *space))
    back: list[tuple[int, int]] = []
    for n, k, o, s, p, r, d in zip(
        x.shape[3:], w.shape[3:], g.shape[3:], steps, pads, spacings, dilations, strict=True
    ):
        low = (k - 1) * r - p[0]
        # As much as the dilated input is long: (n-1)*d+1 = (o-1)*s+1 + low + high - (k-1)*r.
        back.append((low, (n - 1) * d + 1 - ((o - 1) * s + 1) - low + (k - 1) * r))
    return conv(g, swapped, dilations, tuple(back), spacings, steps)


def _conv_weight_gradient(node: Node, g: Node) -> Node:
    """A convolution of the input with the gradient as kernel, summed over the batch."""
    x, w = node.inputs
    steps, pads, spacings, dilations = node.attrs
    space = tuple(range(3, len(w.shape)))
    back: list[tuple[int, int]] = []
    for n, k, o, s, p, r, d in zip(
        x.shape[3:], w.shape[3:], g.shape[3:], steps, pads, spacings, dilations, strict=True
    ):
        # Just as much padding as makes exactly k positions of the gradient's window.
        high = (k - 1) * r + (o - 1) * s + 1 - ((n - 1) * d + 1) - p[0]
        back.append((p[0], high))
    swapped = view.permute(x, (2, 1, 0, *space))
    kernel = view.permute(g, (1, 2, 0, *space))
    part = conv(swapped, kernel, spacings, tuple(back), steps, dilations)
    return view.permute(part, (1, 2, 0, *space))


def _conv_ref(
    x: Any,
    w: Any,
    steps: Shape,
    pads: tuple[tuple[int, int], ...],
    spacings: Shape,
    dilations: Shape,
) -> Any:
    space = x.shape[3:]
    dilated = tuple((n - 1) * d + 1 for n, d in zip(space, dilations, strict=True))
    wide = np.zeros((*x.shape[:3], *dilated), x.dtype)
    wide[(..., *(slice(None, None, d) for d in dilations))] = x
    wide = np.pad(wide, ((0, 0),) * 3 + tuple((max(a, 0), max(b, 0)) for a, b in pads))
    crop = tuple(slice(max(-a, 0), n - max(-b, 0)) for (a, b), n in zip(
        ((min(a, 0), min(b, 0)) for a, b in pads), wide.shape[3:], strict=True))  # fmt: skip
    wide = wide[(..., *crop)]
    sizes = tuple((k - 1) * r + 1 for k, r in zip(w.shape[3:], spacings, strict=True))
    view_ = np.lib.stride_tricks.sliding_window_view(wide, sizes, tuple(range(3, wide.ndim)))
    rank = len(sizes)
    view_ = view_[
        (..., *(slice(None, None, s) for s in steps), *(slice(None, None, r) for r in spacings))
    ]
    spatial = list(range(10, 10 + rank))
    window = list(range(20, 20 + rank))
    return np.einsum(
        view_, [0, 1, 2, *spatial, *window], w, [1, 3, 2, *window], [0, 1, 3, *spatial]
    )


def _conv_sample(x: Shape, w: Shape, step: int, pad: int, spacing: int, dilation: int) -> Sample:
    rank = len(x) - 3
    attrs = ((step,) * rank, ((pad, pad),) * rank, (spacing,) * rank, (dilation,) * rank)
    return Sample((Arg(x, dt.float64), Arg(w, dt.float64)), attrs)


CONV: Final = Op(
    name="conv", kind="conv", attr_names=("steps", "pads", "spacings", "dilations"),
    infer=_conv_infer, vjp=per_input(_conv_data_gradient, _conv_weight_gradient),
    lower=no_lowering, ref=_conv_ref,
    samples=(
        _conv_sample((2, 1, 3, 6, 5), (1, 4, 3, 3, 2), 1, 0, 1, 1),
        _conv_sample((2, 1, 3, 6, 5), (1, 4, 3, 3, 3), 2, 1, 1, 1),
        _conv_sample((2, 2, 2, 7), (2, 3, 2, 3), 2, 2, 2, 1),
        _conv_sample((1, 1, 2, 4, 4), (1, 2, 2, 3, 3), 1, 2, 1, 2),
        _conv_sample((2, 1, 1, 5, 4, 6), (1, 2, 1, 2, 2, 3), 1, 1, 1, 1),
    ),
    doc="cross-correlation of x (n, group, channel, *space) with w (group, out, channel, *window); "
    "pads may be negative (crop), spacings dilate the window, dilations the input",
)  # fmt: skip


def conv(
    x: Node,
    w: Node,
    steps: Shape,
    pads: tuple[tuple[int, int], ...],
    spacings: Shape,
    dilations: Shape,
) -> Node:
    """Cross-correlation in any number of dimensions, with groups as an axis of their own."""
    return make(CONV, (x, w), (steps, pads, spacings, dilations))
