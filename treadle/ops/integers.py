"""Number theory on whole numbers, on the host."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.errors import DTypeError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ops.table import NO_GRADIENT, Arg, Op, Sample, no_lowering, require_same_dtype

np = LazyModule("numpy")


def _infer(a: Any, b: Any) -> tuple[Shape, DType]:
    dtype = require_same_dtype("gcd", a, b)
    if dtype.kind not in "iu":
        raise DTypeError(f"gcd: expected integers, got {dtype.name}")
    return sh.broadcast(a.shape, b.shape), dtype


GCD: Final = Op(
    name="gcd", kind="host", attr_names=(), infer=_infer, vjp=NO_GRADIENT, lower=no_lowering,
    ref=lambda a, b: np.gcd(a, b),
    samples=(Sample((Arg((3, 5), dt.int64, -20, 20), Arg((5,), dt.int64, -20, 20))),),
    doc="the greatest common divisor, 0 of two zeros",
)  # fmt: skip
