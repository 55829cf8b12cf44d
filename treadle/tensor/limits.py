"""The ranges and the precision of element types: `finfo` and `iinfo`."""

from __future__ import annotations

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.tensor.promote import get_default_dtype

# Digits of the significand behind the point, and the largest exponent.
_FORMATS = {dt.float16: (10, 15), dt.bfloat16: (7, 127), dt.float32: (23, 127),
            dt.float64: (52, 1023)}  # fmt: skip


class finfo:
    """The limits of a floating-point type.

    Args:
        dtype: the type (default: the default dtype).

    Raises:
        TypeError: it is not floating point.

    Example:
        >>> import treadle
        >>> treadle.finfo(treadle.float32).eps
        1.1920928955078125e-07
    """

    def __init__(self, dtype: DType | None = None) -> None:
        wanted = dtype or get_default_dtype()
        if wanted not in _FORMATS:
            raise TypeError(f"finfo: expected a floating-point type, got {wanted}")
        digits, exponent = _FORMATS[wanted]
        self.bits = wanted.bits
        self.dtype = wanted.name
        self.eps = 2.0**-digits
        self.max = (2 - self.eps) * 2.0**exponent
        self.min = -self.max
        self.tiny = self.smallest_normal = 2.0 ** (1 - exponent)
        self.resolution = float(f"1e-{int(digits * 0.30103)}")

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
            f"eps={self.eps:g}, smallest_normal={self.tiny:g}, tiny={self.tiny:g}, "
            f"dtype={self.dtype})"
        )


class iinfo:
    """The limits of an integer type.

    Raises:
        TypeError: it is no integer type.
    """

    def __init__(self, dtype: DType) -> None:
        if dtype.kind not in "iu":
            raise TypeError(f"iinfo: expected an integer type, got {dtype}")
        signed = dtype.kind == "i"
        self.bits = dtype.bits
        self.dtype = dtype.name
        self.min = -(2 ** (dtype.bits - 1)) if signed else 0
        self.max = 2 ** (dtype.bits - signed) - 1

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"
