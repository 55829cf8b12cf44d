"""Elementary functions in lanes, as polynomials: LLVM has no portable vector library.

Bounds on the error, in units in the last place of the result, over the whole range of the type,
denormals included (`tests/test_codegen_vector_math.py` measures them):

    function                            float32   float64
    exp exp2 expm1 log log2 log1p          2         2
    sigmoid tanh erf                       2         3
    sin cos                                2         2
    tan pow atan2                          1         3
    erfc erfinv                            1         5
    lgamma digamma, away from zeros        1         8

A lane's result does not depend on the other lanes, nor on how many there are: a scalar is computed
by the same operations. On the portable target, which has no fused multiply-add, the last bit may
differ from the other targets, within the same bounds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from treadle.codegen.math_complement import erfc, erfinv
from treadle.codegen.math_error import erf
from treadle.codegen.math_exp import exp, exp2, expm1, sigmoid, tanh
from treadle.codegen.math_gamma import digamma, lgamma
from treadle.codegen.math_log import log, log1p, log2
from treadle.codegen.math_power import power
from treadle.codegen.math_trig import atan2, cos, sin, tan
from treadle.codegen.value import Value

UNARY: Final[dict[str, Callable[[Value], Value]]] = {
    "exp": exp,
    "exp2": exp2,
    "expm1": expm1,
    "log": log,
    "log2": log2,
    "log1p": log1p,
    "sin": sin,
    "cos": cos,
    "tan": tan,
    "tanh": tanh,
    "sigmoid": sigmoid,
    "erf": erf,
    "erfc": erfc,
    "erfinv": erfinv,
    "lgamma": lgamma,
    "digamma": digamma,
}

__all__ = ["UNARY", "atan2", "power"]
