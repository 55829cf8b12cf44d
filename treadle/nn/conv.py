"""Convolutions as layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from treadle.base.dtype import DType
from treadle.nn import functional as F
from treadle.nn import init
from treadle.nn.functional.common import repeated
from treadle.nn.functional.conv import same_padding
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor import empty

_MODES = ("zeros", "reflect", "replicate", "circular")


class _Conv(Module):
    """What all convolutions share: their arguments, parameters and printed form."""

    rank: int
    bias: Parameter | None

    def _set(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any,
             padding: Any, dilation: Any, output_padding: Any, groups: int, bias: bool,
             padding_mode: str, transposed: bool, device: Any,
             dtype: DType | None) -> None:  # fmt: skip
        rank = self.rank
        if groups <= 0:
            raise ValueError("groups must be a positive integer")
        if in_channels % groups:
            raise ValueError("in_channels must be divisible by groups")
        if out_channels % groups:
            raise ValueError("out_channels must be divisible by groups")
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(
                f"Invalid padding string {padding!r}, should be one of {{'valid', 'same'}}"
            )
        if padding_mode not in _MODES:
            raise ValueError(
                f"padding_mode must be one of {set(_MODES)}, but got padding_mode='{padding_mode}'"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = repeated(kernel_size, rank, "kernel_size")
        self.stride = repeated(stride, rank, "stride")
        if padding == "same" and any(s != 1 for s in self.stride):
            raise ValueError("padding='same' is not supported for strided convolutions")
        whole = isinstance(padding, str)
        self.padding = padding if whole else repeated(padding, rank, "padding")
        self.dilation = repeated(dilation, rank, "dilation")
        self.output_padding = repeated(output_padding, rank, "output_padding")
        self.transposed, self.padding_mode = transposed, padding_mode
        first, second = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Parameter(empty(*shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draws new initial values: uniform within `1 / sqrt(inputs of an output element)`."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan, _ = init._fans(self.weight)
            if fan:
                init.uniform_(self.bias, -1 / math.sqrt(fan), 1 / math.sqrt(fan))

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        rank = self.rank
        out = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"stride={self.stride}"
        )
        if self.padding != (0,) * rank:
            out += f", padding={self.padding}"
        if self.dilation != (1,) * rank:
            out += f", dilation={self.dilation}"
        if self.output_padding != (0,) * rank:
            out += f", output_padding={self.output_padding}"
        if self.groups != 1:
            out += f", groups={self.groups}"
        if self.bias is None:
            out += ", bias=False"
        return out + (f", padding_mode={self.padding_mode}" * (self.padding_mode != "zeros"))


class _Forward(_Conv):
    """A convolution.

    Args:
        in_channels, out_channels: channels of input and output.
        kernel_size: extents of the window, one number or one for each axis.
        stride: elements between windows.
        padding: elements added at both ends of each axis, `"valid"` (none) or `"same"`.
        dilation: elements between the taps of the window.
        groups: how many parts of the channels are convolved apart.
        bias: whether there is a bias.
        padding_mode: `"zeros"`, `"reflect"`, `"replicate"` or `"circular"`.
        device, dtype: of the parameters.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self._set(in_channels, out_channels, kernel_size, stride, padding, dilation, 0, groups,
                  bias, padding_mode, False, device, dtype)  # fmt: skip

    def _run(self, function: Any, input: Any) -> Any:
        if self.padding_mode == "zeros":
            return function(input, self.weight, self.bias, self.stride, self.padding,
                            self.dilation, self.groups)  # fmt: skip
        if self.padding == "same":
            ends = same_padding(self.kernel_size, self.dilation)
        else:
            plain = (0,) * self.rank if self.padding == "valid" else self.padding
            ends = tuple((p, p) for p in plain)
        flat = [p for pair in reversed(ends) for p in pair]
        wide = F.pad(input, flat, self.padding_mode)
        return function(wide, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class Conv1d(_Forward):
    """Cross-correlation of `(n, channels, length)`."""

    rank = 1

    def forward(self, input: Any) -> Any:
        """`(n, in_channels, length)` to `(n, out_channels, positions)`."""
        return self._run(F.conv1d, input)


class Conv2d(_Forward):
    """Cross-correlation of images `(n, channels, h, w)`.

    Example:
        >>> import treadle
        >>> treadle.nn.Conv2d(3, 8, 3, padding=1)(treadle.ones(2, 3, 5, 5)).shape
        treadle.Size([2, 8, 5, 5])
    """

    rank = 2

    def forward(self, input: Any) -> Any:
        """`(n, in_channels, h, w)` to `(n, out_channels, rows, columns)`."""
        return self._run(F.conv2d, input)


class Conv3d(_Forward):
    """Cross-correlation of volumes `(n, channels, d, h, w)`."""

    rank = 3

    def forward(self, input: Any) -> Any:
        """`(n, in_channels, d, h, w)` to `(n, out_channels, *positions)`."""
        return self._run(F.conv3d, input)


class _Transposed(_Conv):
    """The adjoint of a convolution by its input.

    Args:
        in_channels, out_channels: channels of input and output.
        kernel_size, stride, padding, dilation, groups: those of the convolution.
        output_padding: elements added at the end of each axis, to tell which of several extents
            is meant.
        bias: whether there is a bias.
        padding_mode: only `"zeros"`.
        device, dtype: of the parameters.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", device: Any = None,
        dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if padding_mode != "zeros":
            raise ValueError(f'Only "zeros" padding mode is supported for {type(self).__name__}')
        self._set(in_channels, out_channels, kernel_size, stride, padding, dilation,
                  output_padding, groups, bias, padding_mode, True, device, dtype)  # fmt: skip

    def _run(self, function: Any, input: Any, output_size: Sequence[int] | None) -> Any:
        extra = self._extra(input, output_size)
        return function(input, self.weight, self.bias, self.stride, self.padding, extra,
                        self.groups, self.dilation)  # fmt: skip

    def _extra(self, input: Any, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """The output padding that gives the extents asked for."""
        if output_size is None:
            return self.output_padding
        rank = self.rank
        wanted = tuple(output_size)[-rank:]
        space = tuple(input.shape)[-rank:]
        least = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(
                space, self.stride, self.padding, self.dilation, self.kernel_size, strict=True
            )
        ]
        out = tuple(w - low for w, low in zip(wanted, least, strict=True))
        if any(e < 0 or e > s - 1 for e, s in zip(out, self.stride, strict=True)):
            most = [low + s - 1 for low, s in zip(least, self.stride, strict=True)]
            raise ValueError(
                f"requested an output size of {list(wanted)}, but valid sizes range from {least} "
                f"to {most} (for an input of {list(space)})"
            )
        return out


class ConvTranspose1d(_Transposed):
    """The adjoint of `Conv1d` by its input."""

    rank = 1

    def forward(self, input: Any, output_size: Sequence[int] | None = None) -> Any:
        """`(n, in_channels, length)` to `(n, out_channels, positions)`."""
        return self._run(F.conv_transpose1d, input, output_size)


class ConvTranspose2d(_Transposed):
    """The adjoint of `Conv2d` by its input."""

    rank = 2

    def forward(self, input: Any, output_size: Sequence[int] | None = None) -> Any:
        """`(n, in_channels, h, w)` to `(n, out_channels, rows, columns)`."""
        return self._run(F.conv_transpose2d, input, output_size)


class ConvTranspose3d(_Transposed):
    """The adjoint of `Conv3d` by its input."""

    rank = 3

    def forward(self, input: Any, output_size: Sequence[int] | None = None) -> Any:
        """`(n, in_channels, d, h, w)` to `(n, out_channels, *positions)`."""
        return self._run(F.conv_transpose3d, input, output_size)
