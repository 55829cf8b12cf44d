"""Dropout as layers."""

from __future__ import annotations

from typing import Any

from treadle.nn import functional as F
from treadle.nn.module import Module


class _Dropout(Module):
    """Random zeros in training.

    Args:
        p: the probability of a zero.
        inplace: write to the input.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")
        self.p, self.inplace = p, inplace

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"p={self.p}, inplace={self.inplace}"


class Dropout(_Dropout):
    """Zeros each element with probability p in training, and scales the others by `1/(1-p)`."""

    def forward(self, input: Any) -> Any:
        """The input with random zeros in training, unchanged in evaluation."""
        return F.dropout(input, self.p, self.training, self.inplace)


class Dropout1d(_Dropout):
    """Zeros whole channels of `(n, channels, length)` with probability p in training."""

    def forward(self, input: Any) -> Any:
        """The input with random zeros in training, unchanged in evaluation."""
        return F.dropout1d(input, self.p, self.training, self.inplace)


class Dropout2d(_Dropout):
    """Zeros whole channels of `(n, channels, h, w)` with probability p in training."""

    def forward(self, input: Any) -> Any:
        """The input with random zeros in training, unchanged in evaluation."""
        return F.dropout2d(input, self.p, self.training, self.inplace)


class Dropout3d(_Dropout):
    """Zeros whole channels of `(n, channels, d, h, w)` with probability p in training."""

    def forward(self, input: Any) -> Any:
        """The input with random zeros in training, unchanged in evaluation."""
        return F.dropout3d(input, self.p, self.training, self.inplace)


class AlphaDropout(_Dropout):
    """Dropout that keeps mean and variance of what comes out of `SELU`."""

    def forward(self, input: Any) -> Any:
        """The input with random elements replaced in training, unchanged in evaluation."""
        return F.alpha_dropout(input, self.p, self.training)


class FeatureAlphaDropout(_Dropout):
    """Alpha dropout of whole channels."""

    def forward(self, input: Any) -> Any:
        """The input with random channels replaced in training, unchanged in evaluation."""
        return F.feature_alpha_dropout(input, self.p, self.training)
