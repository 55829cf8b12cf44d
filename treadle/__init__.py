"""treadle: write it eagerly, run it as one compiled graph.

import treadle
x = treadle.randn(3, requires_grad=True)
(x * x).sum().backward()
print(x.grad)
"""

import importlib as _importlib
from typing import Any as _Any

from treadle.base.device import Device as device
from treadle.base.dtype import (
    DType as dtype,
)
from treadle.base.dtype import (
    bfloat16,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)
from treadle.base.dtype import bool_ as bool
from treadle.tensor import *  # noqa: F403

double, float, half = float64, float32, float16
long, int, short = int64, int32, int16


__version__ = "0.1.0"

# Loaded at first use: `import treadle` pays for recording only.
_ROOMS = {
    "autograd": "treadle.autograd", "nn": "treadle.nn", "optim": "treadle.optim",
    "utils": "treadle.utils", "io": "treadle.io", "vision": "treadle.vision",
    "text": "treadle.text", "cuda": "treadle.cuda",
}  # fmt: skip
# Functions of layers that PyTorch has at the top as well, with the same arguments.
_LAYERS = (
    "adaptive_avg_pool1d", "alpha_dropout", "avg_pool1d", "bilinear", "celu", "celu_",
    "channel_shuffle", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d",
    "conv_transpose3d", "cosine_similarity", "dropout", "feature_alpha_dropout", "group_norm",
    "hardshrink", "layer_norm", "max_pool1d", "max_pool2d", "max_pool3d", "pairwise_distance",
    "pdist", "pixel_shuffle", "pixel_unshuffle", "prelu", "rms_norm", "rrelu", "rrelu_", "selu",
    "selu_", "threshold", "threshold_", "relu_",
)  # fmt: skip
_FUNCTIONS = {
    "save": "treadle.io", "load": "treadle.io",
    "set_num_threads": "treadle.runtime.pool", "get_num_threads": "treadle.runtime.pool",
    "memory_stats": "treadle.runtime.buffer", "empty_cache": "treadle.runtime.buffer",
    "profile": "treadle.runtime.profile",
    **dict.fromkeys(_LAYERS, "treadle.nn.functional"),
}  # fmt: skip


def __getattr__(name: str) -> _Any:
    if name in _ROOMS:
        return _importlib.import_module(_ROOMS[name])
    if name in _FUNCTIONS:
        return getattr(_importlib.import_module(_FUNCTIONS[name]), name)
    raise AttributeError(f"module 'treadle' has no attribute {name!r}")
