"""treadle: write it eagerly, run it as one compiled graph.

import treadle
x = treadle.randn(3, requires_grad=True)
(x * x).sum().backward()
print(x.grad)
"""

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
from treadle.tensor import autograd

double, float, half = float64, float32, float16
long, int, short = int64, int32, int16

__version__ = "0.1.0"
__all__ = [
    "autograd", "bfloat16", "bool", "device", "double", "dtype", "float", "float16", "float32",
    "float64", "half", "int", "int8", "int16", "int32", "int64", "long", "short", "uint8",
]  # fmt: skip
