"""Own configurations: one row for each layer that PyTorch ships none for."""

from __future__ import annotations

from typing import Any

import torch
from layers import Case


def x(*shape: int, seed: int = 0) -> torch.Tensor:
    """A normal float64 tensor, the same in each run."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def whole(high: int, *shape: int) -> torch.Tensor:
    """Whole numbers in `[0, high)`."""
    return torch.randint(high, shape, generator=torch.Generator().manual_seed(1))


def _uniform(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def _pooled(rank: int, extent: int, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Maxima and where they were found."""
    pool = getattr(torch.nn.functional, f"max_pool{rank}d")
    values, places = pool(x(2, 3, *(extent,) * rank), window, return_indices=True)
    return values.detach(), places


def _row(name: str, *args: Any, inputs: tuple[Any, ...], **kwargs: Any) -> Case:
    return Case(name, args, kwargs, inputs)


LAYERS: tuple[Case, ...] = (
    *(_row(name, 0.4, inputs=(x(2, 3, 4, 5),))
      for name in ("Dropout", "Dropout2d", "AlphaDropout", "FeatureAlphaDropout")),
    _row("Dropout1d", inputs=(x(2, 3, 4),)),
    _row("Dropout3d", inputs=(x(2, 3, 4, 2, 2),)),
    _row("Dropout", 0.0, inputs=(x(3, 4),)),
    _row("Dropout", 1.0, inputs=(x(3, 4),)),
    _row("RReLU", inputs=(x(3, 4),)),
    _row("RReLU", 0.2, 0.2, inputs=(x(3, 4),)),
    _row("ChannelShuffle", 2, inputs=(x(2, 4, 3, 3),)),
    _row("CosineSimilarity", inputs=(x(3, 5), x(3, 5, seed=1))),
    _row("CosineSimilarity", 0, 0.5, inputs=(x(3, 5), x(1, 5, seed=1))),
    _row("CosineSimilarity", -1, inputs=(x(2, 1, 5), x(3, 5, seed=1))),
    _row("PairwiseDistance", inputs=(x(3, 5), x(3, 5, seed=1))),
    _row("PairwiseDistance", 1.0, keepdim=True, inputs=(x(3, 5), x(3, 5, seed=1))),
    _row("PairwiseDistance", 3.0, inputs=(x(3, 5), x(5, seed=1))),
    _row("EmbeddingBag", 7, 3, inputs=(whole(7, 4, 5),)),
    _row("EmbeddingBag", 7, 3, mode="sum", inputs=(whole(7, 9), torch.tensor([0, 2, 2, 7]))),
    _row("EmbeddingBag", 7, 3, mode="max", inputs=(whole(7, 4, 5),)),
    _row("EmbeddingBag", 7, 3, padding_idx=2, inputs=(whole(7, 4, 5),)),
    _row("Flatten", inputs=(x(2, 3, 4),)),
    _row("Flatten", 0, 1, inputs=(x(2, 3, 4),)),
    _row("Unflatten", 1, (2, 3), inputs=(x(2, 6, 4),)),
    _row("Unflatten", 1, (-1, 2), inputs=(x(2, 6),)),
    _row("Fold", (4, 5), (2, 3), inputs=(x(2, 12, 9),)),
    _row("Fold", 5, 3, 1, 1, 2, inputs=(x(2, 9, 9),)),
    _row("Unfold", (2, 3), inputs=(x(2, 2, 4, 5),)),
    _row("Unfold", 3, 2, 1, 2, inputs=(x(1, 2, 7, 7),)),
    _row("Hardsigmoid", inputs=(x(4, 5) * 4,)),
    _row("Identity", 3, inputs=(x(4, 5),)),
    _row("MaxUnpool1d", 2, inputs=_pooled(1, 8, 2)),
    _row("MaxUnpool2d", 2, inputs=_pooled(2, 6, 2)),
    _row("MaxUnpool3d", 2, inputs=_pooled(3, 4, 2)),
    _row("PixelShuffle", 2, inputs=(x(2, 8, 3, 3),)),
    _row("PixelUnshuffle", 2, inputs=(x(2, 2, 4, 6),)),
    _row("TripletMarginLoss", inputs=(x(4, 5), x(4, 5, seed=1), x(4, 5, seed=2))),
    _row("TripletMarginLoss", 0.5, 1.0, swap=True, reduction="none",
         inputs=(x(4, 5), x(4, 5, seed=1), x(4, 5, seed=2))),
    _row("TripletMarginWithDistanceLoss", inputs=(x(4, 5), x(4, 5, seed=1), x(4, 5, seed=2))),
    _row("Upsample", scale_factor=2, inputs=(x(2, 3, 4, 4),)),
    _row("Upsample", (5, 7), mode="bilinear", align_corners=True, inputs=(x(2, 3, 4, 4),)),
    _row("Upsample", scale_factor=1.5, mode="bicubic", inputs=(x(1, 2, 4, 6),)),
    _row("Upsample", size=7, mode="linear", inputs=(x(2, 3, 4),)),
    _row("LazyLinear", 3, inputs=(x(2, 5),)),
    _row("LazyBatchNorm1d", inputs=(x(4, 3),)),
    _row("LazyBatchNorm2d", inputs=(x(4, 3, 2, 2),)),
    _row("LazyInstanceNorm1d", inputs=(x(2, 3, 5),)),
    _row("LazyInstanceNorm2d", inputs=(x(2, 3, 4, 4),)),
    _row("LazyInstanceNorm3d", inputs=(x(2, 3, 2, 3, 2),)),
    _row("AdaptiveLogSoftmaxWithLoss", 16, 20, [5, 10], head_bias=True,
         inputs=(x(6, 16), whole(20, 6))),
    _row("AdaptiveLogSoftmaxWithLoss", 8, 7, [2], 2.0, inputs=(x(8), torch.tensor(6))),
    _row("UpsamplingNearest2d", scale_factor=2, inputs=(x(1, 2, 3, 4),)),
    _row("UpsamplingBilinear2d", (5, 6), inputs=(x(1, 2, 3, 4),)),
    _row("FractionalMaxPool2d", (2, 3), (3, 2), _random_samples=_uniform(2, 3, 2),
         return_indices=True, inputs=(x(2, 3, 7, 6),)),
    _row("FractionalMaxPool3d", 2, output_ratio=0.5, _random_samples=_uniform(2, 3, 3),
         return_indices=True, inputs=(x(2, 3, 6, 7, 5),)),
    _row("LazyBatchNorm3d", inputs=(x(4, 3, 2, 2, 2),)),
)  # fmt: skip

LAYERS_WITHOUT_CASE: dict[str, str] = {
    "Module": "a base class",
    "RNNBase": "a base class; RNN, LSTM and GRU have configurations",
    "Sequential": "a container; tests/test_nn_module.py",
    "ModuleList": "a container; tests/test_nn_module.py",
    "ModuleDict": "a container; tests/test_nn_module.py",
    "ParameterList": "a container; tests/test_nn_module.py",
    "ParameterDict": "a container; tests/test_nn_module.py",
    "NonDynamicallyQuantizableLinear": "a Linear under another name",
    "TransformerDecoder": "a stack of layers that have configurations",
}
