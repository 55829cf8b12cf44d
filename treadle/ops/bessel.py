"""Modified Bessel functions of the first kind, on the host."""

from __future__ import annotations

import math
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.lazy import LazyModule
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops.table import Arg, Op, Sample, make, no_lowering, per_input, require_float

np = LazyModule("numpy")

_FAR: Final = 30.0
"""From here on the asymptotic series is exact to the last bits, below the power series is."""
_NEAR_TERMS, _FAR_TERMS = 90, 20


def _bessel(x: Any, order: int, scaled: bool) -> Any:
    """Abramowitz and Stegun, Handbook of Mathematical Functions (1964), 9.6.10 and 9.7.1."""
    size = np.abs(np.asarray(x, np.float64))
    near = np.minimum(size, _FAR)
    term = (near / 2) ** order / math.factorial(order)
    total = term.copy()
    for k in range(1, _NEAR_TERMS):
        term = term * (near / 2) ** 2 / (k * (k + order))
        total += term
    far = np.maximum(size, _FAR)
    term = np.ones_like(far)
    series = term.copy()
    for k in range(1, _FAR_TERMS):
        term = term * ((2 * k - 1) ** 2 - 4 * order**2) / (8 * k * far)
        series += term
    with np.errstate(over="ignore"):
        below = total * np.exp(-near) if scaled else total
        grown = np.exp((0.0 if scaled else far) - 0.5 * np.log(2 * np.pi * far))
        out = np.where(size < _FAR, below, grown * series)
        out = np.where(np.isnan(size), size, out)
        return (np.copysign(out, x) if order % 2 else out).astype(x.dtype)


def _gradient(node: Node, g: Node) -> Node:
    """`I_0' = I_1` and `I_1' = I_0 - I_1 / x`, of which the scaled ones lose `sign(x)` times
    themselves."""
    x = node.inputs[0]
    order, scaled = node.attrs
    other = make(BESSEL, (x,), (1 - order, scaled))
    slope = other
    if order:
        nothing = pw.eq(x, pw.like(0, x))
        over = pw.div(node, pw.where(nothing, pw.like(1, x), x))
        slope = pw.sub(other, pw.where(nothing, pw.like(0.5, x), over))
    if scaled:
        slope = pw.sub(slope, pw.mul(pw.sign(x), node))
    return pw.mul(g, slope)


BESSEL: Final[Op] = Op(
    name="bessel_i", kind="host", attr_names=("order", "scaled"),
    infer=lambda x, order, scaled: (x.shape, require_float("bessel_i", x)),
    vjp=per_input(_gradient), lower=no_lowering, ref=_bessel,
    samples=tuple(
        Sample((Arg((3, 5), d, -9.0, 40.0),), (order, scaled))
        for d in (dt.float32, dt.float64) for order in (0, 1) for scaled in (True,)
    ) + tuple(Sample((Arg((3, 5), dt.float64),), (order, False)) for order in (0, 1)),
    doc="the modified Bessel function of order 0 or 1, times exp(-|x|) where scaled",
)  # fmt: skip
