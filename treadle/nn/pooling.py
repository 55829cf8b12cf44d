"""Pooling as layers."""

from __future__ import annotations

from typing import Any

from treadle.nn import functional as F
from treadle.nn.module import Module


class _MaxPool(Module):
    """The largest element of each window.

    Args:
        kernel_size: extents of the window.
        stride: elements between windows (default: the window).
        padding: elements of -inf at both ends.
        dilation: elements between the taps of a window.
        return_indices: give the positions in the input as well.
        ceil_mode: let the last window reach over the end.
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.dilation = padding, dilation
        self.return_indices, self.ceil_mode = return_indices, ceil_mode

    def _run(self, function: Any, input: Any) -> Any:
        return function(input, self.kernel_size, self.stride, self.padding, self.dilation,
                        self.ceil_mode, self.return_indices)  # fmt: skip

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return (
            f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}, "
            f"dilation={self.dilation}, ceil_mode={self.ceil_mode}"
        )


class MaxPool1d(_MaxPool):
    """The largest element of each window of `(n, channels, length)`."""

    def forward(self, input: Any) -> Any:
        """The maxima, and under `return_indices` their positions."""
        return self._run(F.max_pool1d, input)


class MaxPool2d(_MaxPool):
    """The largest element of each window of images `(n, channels, h, w)`."""

    def forward(self, input: Any) -> Any:
        """The maxima, and under `return_indices` their positions."""
        return self._run(F.max_pool2d, input)


class MaxPool3d(_MaxPool):
    """The largest element of each window of volumes `(n, channels, d, h, w)`."""

    def forward(self, input: Any) -> Any:
        """The maxima, and under `return_indices` their positions."""
        return self._run(F.max_pool3d, input)


class AvgPool1d(Module):
    """The mean of each window of `(n, channels, length)`."""

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()

        def single(v: Any) -> Any:
            return tuple(v) if isinstance(v, (tuple, list)) else (v,)

        self.kernel_size = single(kernel_size)
        self.stride = single(kernel_size if stride is None else stride)
        self.padding = single(padding)
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, input: Any) -> Any:
        """The means."""
        return F.avg_pool1d(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                            self.count_include_pad)  # fmt: skip

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class _AvgPool(Module):
    """The mean of each window.

    Args:
        kernel_size: extents of the window.
        stride: elements between windows (default: the window).
        padding: zeros at both ends.
        ceil_mode: let the last window reach over the end.
        count_include_pad: count the padding's zeros.
        divisor_override: what to divide by in the place of the number of elements.
    """

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.kernel_size = kernel_size
        self.stride = kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def _run(self, function: Any, input: Any) -> Any:
        return function(input, self.kernel_size, self.stride, self.padding, self.ceil_mode,
                        self.count_include_pad, self.divisor_override)  # fmt: skip

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AvgPool2d(_AvgPool):
    """The mean of each window of images `(n, channels, h, w)`."""

    def forward(self, input: Any) -> Any:
        """The means."""
        return self._run(F.avg_pool2d, input)


class AvgPool3d(_AvgPool):
    """The mean of each window of volumes `(n, channels, d, h, w)`."""

    def forward(self, input: Any) -> Any:
        """The means."""
        return self._run(F.avg_pool3d, input)


class _LPPool(Module):
    """The p-norm of each window."""

    def __init__(
        self, norm_type: float, kernel_size: Any, stride: Any = None, ceil_mode: bool = False
    ) -> None:
        super().__init__()
        self.norm_type, self.kernel_size = norm_type, kernel_size
        self.stride, self.ceil_mode = stride, ceil_mode

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return (
            f"norm_type={self.norm_type}, kernel_size={self.kernel_size}, stride={self.stride}, "
            f"ceil_mode={self.ceil_mode}"
        )


class LPPool1d(_LPPool):
    """The p-norm of each window of `(n, channels, length)`."""

    def forward(self, input: Any) -> Any:
        """The norms."""
        return F.lp_pool1d(
            input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        )


class LPPool2d(_LPPool):
    """The p-norm of each window of images `(n, channels, h, w)`."""

    def forward(self, input: Any) -> Any:
        """The norms."""
        return F.lp_pool2d(
            input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        )


class LPPool3d(_LPPool):
    """The p-norm of each window of volumes `(n, channels, d, h, w)`."""

    def forward(self, input: Any) -> Any:
        """The norms."""
        return F.lp_pool3d(
            input, float(self.norm_type), self.kernel_size, self.stride, self.ceil_mode
        )


class _AdaptiveAvg(Module):
    """The means of windows that cover the input evenly."""

    def __init__(self, output_size: Any) -> None:
        super().__init__()
        self.output_size = output_size

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"output_size={self.output_size}"


class AdaptiveAvgPool1d(_AdaptiveAvg):
    """The means of `output_size` windows that cover `(n, channels, length)` evenly."""

    def forward(self, input: Any) -> Any:
        """The means."""
        return F.adaptive_avg_pool1d(input, self.output_size)


class AdaptiveAvgPool2d(_AdaptiveAvg):
    """The means of `output_size` windows that cover images evenly."""

    def forward(self, input: Any) -> Any:
        """The means."""
        return F.adaptive_avg_pool2d(input, self.output_size)


class AdaptiveAvgPool3d(_AdaptiveAvg):
    """The means of `output_size` windows that cover volumes evenly."""

    def forward(self, input: Any) -> Any:
        """The means."""
        return F.adaptive_avg_pool3d(input, self.output_size)


class _AdaptiveMax(_AdaptiveAvg):
    """The maxima of windows that cover the input evenly."""

    def __init__(self, output_size: Any, return_indices: bool = False) -> None:
        super().__init__(output_size)
        self.return_indices = return_indices


class AdaptiveMaxPool1d(_AdaptiveMax):
    """The maxima of `output_size` windows that cover `(n, channels, length)` evenly."""

    def forward(self, input: Any) -> Any:
        """The maxima, and under `return_indices` their positions."""
        return F.adaptive_max_pool1d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool2d(_AdaptiveMax):
    """The maxima of `output_size` windows that cover images evenly."""

    def forward(self, input: Any) -> Any:
        """The maxima, and under `return_indices` their positions."""
        return F.adaptive_max_pool2d(input, self.output_size, self.return_indices)


class AdaptiveMaxPool3d(_AdaptiveMax):
    """The maxima of `output_size` windows that cover volumes evenly."""

    def forward(self, input: Any) -> Any:
        """The maxima, and under `return_indices` their positions."""
        return F.adaptive_max_pool3d(input, self.output_size, self.return_indices)
