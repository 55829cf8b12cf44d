"""Convolutions in one, two and three dimensions, and their transposes."""

from __future__ import annotations

from typing import Any

from treadle.base.errors import DTypeError, ShapeError
from treadle.nn.functional.common import repeated, shape_of
from treadle.tensor import block
from treadle.tensor import primitive as pr

Pads = tuple[tuple[int, int], ...]


def same_padding(window: tuple[int, ...], spacings: tuple[int, ...]) -> Pads:
    """The padding under which a convolution of step 1 keeps the extents."""
    out = []
    for k, d in zip(window, spacings, strict=True):
        whole = (k - 1) * d
        out.append((whole // 2, whole - whole // 2))
    return tuple(out)


def _pads(padding: Any, window: tuple[int, ...], spacings: Any, steps: Any) -> Pads:
    if padding == "valid":
        return ((0, 0),) * len(window)
    if padding == "same":
        if any(s != 1 for s in steps):
            raise RuntimeError("padding='same' is not supported for strided convolutions")
        return same_padding(window, spacings)
    if isinstance(padding, str):
        raise RuntimeError(f"Invalid padding string: '{padding}'")
    out = repeated(padding, len(window), "padding")
    if any(p < 0 for p in out):
        raise RuntimeError("negative padding is not supported")
    return tuple((p, p) for p in out)


def _require(name: str, x: Any, w: Any, rank: int, channels: int, groups: int) -> None:
    shape, size = shape_of(x), shape_of(w)
    if len(size) != rank + 2:
        raise ShapeError(f"{name}: expected a {rank + 2}D weight, got shape {size}")
    if len(shape) not in (rank + 1, rank + 2):
        raise ShapeError(
            f"Expected {rank + 1}D (unbatched) or {rank + 2}D (batched) input to {name}, but got "
            f"input of size: {list(shape)}"
        )
    if x._node.dtype is not w._node.dtype:
        raise DTypeError(
            f"{name}: the input is {x._node.dtype.name}, the weight {w._node.dtype.name}; hint: "
            f"convert the input with .to({w._node.dtype.name}), or the model"
        )
    if shape[-rank - 1] != channels:
        raise ShapeError(
            f"{name}: given groups={groups}, weight of size {list(size)}, expected input "
            f"{list(shape)} to have {channels} channels, but got {shape[-rank - 1]} channels "
            f"instead"
        )


def _with_bias(out: Any, bias: Any, rank: int, batched: bool) -> Any:
    if bias is not None:
        out = out + pr.shaped(bias, (shape_of(bias)[0], *(1,) * rank))
    return out if batched else pr.shaped(out, shape_of(out)[1:])


def _conv(x: Any, w: Any, *rest: Any) -> Any:
    """The body of a convolution: `rest` is the bias, if any, and the attributes."""
    bias, (rank, steps, padding, spacings, groups) = _split(rest)
    outs, channels, *window = shape_of(w)
    _require(f"conv{rank}d", x, w, rank, channels * groups, groups)
    if outs % groups:
        raise ShapeError(f"conv{rank}d: {outs} output channels do not divide into {groups} groups")
    batched = len(shape_of(x)) == rank + 2
    n, space = (shape_of(x)[0] if batched else 1), shape_of(x)[-rank:]
    pads = _pads(padding, tuple(window), spacings, steps)
    image = pr.shaped(x, (n, groups, channels, *space))
    kernel = pr.shaped(w, (groups, outs // groups, channels, *window))
    out = pr.convolved(image, kernel, steps, pads, spacings, (1,) * rank)
    return _with_bias(pr.shaped(out, (n, outs, *shape_of(out)[3:])), bias, rank, batched)


def _split(rest: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    return (rest[0], rest[1:]) if hasattr(rest[0], "_node") else (None, rest)


def _transposed(x: Any, w: Any, *rest: Any) -> Any:
    """A convolution of the dilated input with the flipped kernel, channels exchanged."""
    bias, (rank, steps, padding, extra, groups, spacings) = _split(rest)
    channels, outs, *window = shape_of(w)
    _require(f"conv_transpose{rank}d", x, w, rank, channels, groups)
    batched = len(shape_of(x)) == rank + 2
    n, space = (shape_of(x)[0] if batched else 1), shape_of(x)[-rank:]
    image = pr.shaped(x, (n, groups, channels // groups, *space))
    kernel = pr.shaped(w, (groups, channels // groups, outs, *window))
    axes = tuple(range(3, 3 + rank))
    swapped = pr.ordered(pr.flipped(kernel, axes), (0, 2, 1, *axes))
    pads = tuple(
        (d * (k - 1) - p, d * (k - 1) - p + e)
        for k, d, p, e in zip(window, spacings, padding, extra, strict=True)
    )
    out = pr.convolved(image, swapped, (1,) * rank, pads, spacings, steps)
    out = pr.shaped(out, (n, outs * groups, *shape_of(out)[3:]))
    return _with_bias(out, bias, rank, batched)


def _convolve(rank: int, x: Any, w: Any, bias: Any, stride: Any, padding: Any, dilation: Any,
              groups: int) -> Any:  # fmt: skip
    attrs = (
        rank,
        repeated(stride, rank, "stride"),
        padding if isinstance(padding, str) else repeated(padding, rank, "padding"),
        repeated(dilation, rank, "dilation"),
        groups,
    )
    return block(_conv, (x, w) if bias is None else (x, w, bias), attrs)


def conv1d(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
           dilation: Any = 1, groups: int = 1) -> Any:  # fmt: skip
    """Cross-correlation along one axis.

    Args:
        input: `(n, channels, length)` or `(channels, length)`.
        weight: `(outputs, channels / groups, window)`.
        bias: `(outputs,)`, or none.
        stride: elements between windows.
        padding: zeros at both ends, `"valid"` (none), or `"same"` (keep the length).
        dilation: elements between the taps of the window.
        groups: how many parts of the channels are convolved apart.

    Raises:
        ShapeError: channels do not fit, or the window is larger than the padded input.
    """
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
           dilation: Any = 1, groups: int = 1) -> Any:  # fmt: skip
    """Cross-correlation of `(n, channels, h, w)`; the arguments are those of `conv1d`."""
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv3d(input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
           dilation: Any = 1, groups: int = 1) -> Any:  # fmt: skip
    """Cross-correlation of `(n, channels, d, h, w)`; the arguments are those of `conv1d`."""
    return _convolve(3, input, weight, bias, stride, padding, dilation, groups)


def _convolve_back(rank: int, x: Any, w: Any, bias: Any, stride: Any, padding: Any,
                   output_padding: Any, groups: int, dilation: Any) -> Any:  # fmt: skip
    steps, spacings = repeated(stride, rank, "stride"), repeated(dilation, rank, "dilation")
    extra = repeated(output_padding, rank, "output_padding")
    if any(e >= s and e >= d for e, s, d in zip(extra, steps, spacings, strict=True)):
        raise RuntimeError("output padding must be smaller than either stride or dilation")
    attrs = (rank, steps, repeated(padding, rank, "padding"), extra, groups, spacings)
    return block(_transposed, (x, w) if bias is None else (x, w, bias), attrs)


def conv_transpose1d(input: Any, weight: Any, bias: Any = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1,
                     dilation: Any = 1) -> Any:  # fmt: skip
    """The adjoint of `conv1d` by its input.

    Args:
        input: `(n, channels, length)` or `(channels, length)`.
        weight: `(channels, outputs / groups, window)`.
        bias: `(outputs,)`, or none.
        stride, padding, dilation, groups: those of the convolution it is the adjoint of.
        output_padding: elements added at the end, to tell which of several lengths is meant.
    """
    return _convolve_back(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose2d(input: Any, weight: Any, bias: Any = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1,
                     dilation: Any = 1) -> Any:  # fmt: skip
    """The adjoint of `conv2d` by its input; the arguments are those of `conv_transpose1d`."""
    return _convolve_back(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


def conv_transpose3d(input: Any, weight: Any, bias: Any = None, stride: Any = 1,
                     padding: Any = 0, output_padding: Any = 0, groups: int = 1,
                     dilation: Any = 1) -> Any:  # fmt: skip
    """The adjoint of `conv3d` by its input; the arguments are those of `conv_transpose1d`."""
    return _convolve_back(3, input, weight, bias, stride, padding, output_padding, groups, dilation)
