"""Pooling of windows at random places as layers."""

from __future__ import annotations

from typing import Any

from treadle.nn import functional as F
from treadle.nn.functional.common import repeated
from treadle.nn.module import Module


class _FractionalMaxPool(Module):
    """The largest element of each of several windows whose places are drawn.

    Args:
        kernel_size: extents of the window.
        output_size: how many windows along each axis, or
        output_ratio: that as a share of the input, in (0, 1).
        return_indices: give the positions in the input as well.
    """

    rank: int

    def __init__(
        self, kernel_size: Any, output_size: Any = None, output_ratio: Any = None,
        return_indices: bool = False, _random_samples: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if (output_size is None) == (output_ratio is None):
            raise ValueError("exactly one of output_size and output_ratio must be given")
        self.kernel_size = repeated(kernel_size, self.rank, "kernel_size")
        self.output_size = (
            None if output_size is None else repeated(output_size, self.rank, "output_size")
        )
        self.output_ratio = (
            None if output_ratio is None else repeated(output_ratio, self.rank, "output_ratio")
        )
        if self.output_ratio and not all(0 < r < 1 for r in self.output_ratio):
            raise ValueError(f"output_ratio must be between 0 and 1 (got {output_ratio})")
        self.return_indices = return_indices
        self.register_buffer("_random_samples", _random_samples)

    def _run(self, function: Any, input: Any) -> Any:
        return function(input, self.kernel_size, self.output_size, self.output_ratio,
                        self.return_indices, self._random_samples)  # fmt: skip


class FractionalMaxPool2d(_FractionalMaxPool):
    """Fractional pooling of images `(n, channels, h, w)`."""

    rank = 2

    def forward(self, input: Any) -> Any:
        """The maxima, and under `return_indices` their positions."""
        return self._run(F.fractional_max_pool2d, input)


class FractionalMaxPool3d(_FractionalMaxPool):
    """Fractional pooling of volumes `(n, channels, d, h, w)`."""

    rank = 3

    def forward(self, input: Any) -> Any:
        """The maxima, and under `return_indices` their positions."""
        return self._run(F.fractional_max_pool3d, input)
