"""Layers that read and write at computed places: bags of rows, folding, unpooling."""

from __future__ import annotations

from typing import Any

from treadle.base.dtype import DType
from treadle.nn import functional as F
from treadle.nn import init
from treadle.nn.embedding import options_of
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor import Tensor, empty, no_grad


class EmbeddingBag(Module):
    """The sum, mean or maximum of the rows of a table in each of several bags.

    Args:
        num_embeddings, embedding_dim: rows of the table and features of a row.
        mode: `"sum"`, `"mean"` or `"max"`.
        include_last_offset: the last offset is the end, not a start.
        padding_idx: a row that does not count.
        max_norm, norm_type, scale_grad_by_freq, sparse: as those of `Embedding`.
        device, dtype: of the table.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, max_norm: float | None = None,
        norm_type: float = 2.0, scale_grad_by_freq: bool = False, mode: str = "mean",
        sparse: bool = False, _weight: Tensor | None = None, include_last_offset: bool = False,
        padding_idx: int | None = None, device: Any = None, dtype: DType | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.mode, self.sparse = scale_grad_by_freq, mode, sparse
        self.include_last_offset = include_last_offset
        self.padding_idx = None if padding_idx is None else padding_idx % num_embeddings
        if _weight is None:
            table = empty(num_embeddings, embedding_dim, device=device, dtype=dtype)
            self.weight = Parameter(table)
            self.reset_parameters()
        else:
            self.weight = Parameter(_weight)

    def reset_parameters(self) -> None:
        """Draws new initial values: standard normal, and zero in the row of the padding."""
        init.normal_(self.weight)
        if self.padding_idx is not None:
            with no_grad():
                self.weight[self.padding_idx] = 0.0

    def forward(self, input: Any, offsets: Any = None, per_sample_weights: Any = None) -> Any:
        """Whole numbers to `(bags, embedding_dim)`."""
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq,
            self.mode, self.sparse, per_sample_weights, self.include_last_offset,
            self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        out = f"{self.num_embeddings}, {self.embedding_dim}{options_of(self)}, mode={self.mode!r}"
        return out if self.padding_idx is None else f"{out}, padding_idx={self.padding_idx}"


class Fold(Module):
    """Adds up columns `(n, c * window, positions)` into images: the adjoint of `Unfold`."""

    def __init__(self, output_size: Any, kernel_size: Any, dilation: Any = 1, padding: Any = 0,
                 stride: Any = 1) -> None:  # fmt: skip
        super().__init__()
        self.output_size, self.kernel_size = output_size, kernel_size
        self.dilation, self.padding, self.stride = dilation, padding, stride

    def forward(self, input: Any) -> Any:
        """The images `(n, c, h, w)`."""
        return F.fold(
            input, self.output_size, self.kernel_size, self.dilation, self.padding, self.stride
        )

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return (
            f"output_size={self.output_size}, kernel_size={self.kernel_size}, "
            f"dilation={self.dilation}, padding={self.padding}, stride={self.stride}"
        )


class _MaxUnpool(Module):
    """Lays maxima back where a pooling found them, zeros elsewhere."""

    rank: int

    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0) -> None:
        super().__init__()

        def each(v: Any) -> tuple[Any, ...]:
            return tuple(v) if isinstance(v, (tuple, list)) else (v,) * self.rank

        self.kernel_size = each(kernel_size)
        self.stride = each(kernel_size if stride is None else stride)
        self.padding = each(padding)

    def _run(self, function: Any, input: Any, indices: Any, output_size: Any) -> Any:
        return function(input, indices, self.kernel_size, self.stride, self.padding, output_size)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class MaxUnpool1d(_MaxUnpool):
    """The inverse of `MaxPool1d` as far as there is one."""

    rank = 1

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Any:
        """The maxima at their places in `(n, channels, length)`."""
        return self._run(F.max_unpool1d, input, indices, output_size)


class MaxUnpool2d(_MaxUnpool):
    """The inverse of `MaxPool2d` as far as there is one."""

    rank = 2

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Any:
        """The maxima at their places in `(n, channels, h, w)`."""
        return self._run(F.max_unpool2d, input, indices, output_size)


class MaxUnpool3d(_MaxUnpool):
    """The inverse of `MaxPool3d` as far as there is one."""

    rank = 3

    def forward(self, input: Any, indices: Any, output_size: Any = None) -> Any:
        """The maxima at their places in `(n, channels, d, h, w)`."""
        return self._run(F.max_unpool3d, input, indices, output_size)
