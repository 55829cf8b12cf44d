"""The functions of tensors as their methods, under the same names."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Final

from treadle.tensor import (
    arithmetic,
    arrange,
    contraction,
    creation,
    elementary,
    gathering,
    inplace,
    linalg,
    linear_algebra,
    movement,
    ordering,
    placing,
    random,
    reduction,
    softmax_family,
    special,
    statistics,
)
from treadle.tensor.keywords import accepting

_METHODS: Final[dict[ModuleType, str]] = {
    arithmetic: "add sub mul div floor_divide remainder fmod pow maximum minimum atan2 clamp "
    "lerp addcmul addcdiv eq ne lt le gt ge bitwise_and bitwise_or bitwise_xor bitwise_not "
    "bitwise_left_shift bitwise_right_shift logical_and logical_or logical_xor logical_not isclose "
    "exp exp2 expm1 log log2 log1p log10 sqrt rsqrt reciprocal sin cos tan tanh sigmoid erf floor "
    "ceil round trunc neg abs sign isnan isinf isfinite square relu",
    elementary: "sinh cosh asin acos atan asinh acosh atanh hypot logaddexp logaddexp2 xlogy "
    "copysign heaviside float_power ldexp fmax fmin frac signbit isposinf isneginf isreal deg2rad "
    "rad2deg sinc logit gcd lcm positive erfc erfinv lgamma digamma cross "
    "dist clamp_min clamp_max "
    f"{elementary.OTHER_NAMES}",
    movement: "reshape permute transpose t movedim flatten unflatten unsqueeze squeeze expand "
    "expand_as broadcast_to repeat flip narrow split chunk unbind",
    arrange: "ravel select swapaxes swapdims moveaxis fliplr flipud roll tile rot90 unfold "
    "diagonal diag diag_embed diagflat trace tensor_split hsplit vsplit dsplit",
    reduction: "sum mean var std prod amax amin any all argmax argmin max min logsumexp norm "
    "count_nonzero equal allclose",
    statistics: "cumsum cumprod logcumsumexp cummax cummin diff median nanmedian quantile "
    "nanquantile nan_to_num nansum nanmean aminmax cov corrcoef",
    placing: "select_scatter slice_scatter diagonal_scatter index_reduce put renorm "
    "split_with_sizes sum_to_size",
    special: "i0 mvlgamma",
    ordering: "sort argsort msort topk kthvalue mode unique unique_consecutive bincount histc "
    "histogram",
    gathering: "gather take_along_dim take index_select scatter scatter_add scatter_reduce "
    "index_add index_copy index_fill index_put masked_fill masked_select masked_scatter nonzero "
    "argwhere repeat_interleave",
    linear_algebra: "matmul mm bmm mv dot outer addmm addmv addr baddbmm addbmm ger vdot",
    contraction: "kron inner",
    linalg: "inv det slogdet logdet pinv cholesky cholesky_solve cholesky_inverse qr matrix_power",
    softmax_family: "softmax log_softmax",
    creation: "tril triu",
    random: "multinomial bernoulli",
}


def attach(cls: type) -> None:
    """Gives a class its methods."""
    for module, names in _METHODS.items():
        for name in names.split():
            setattr(cls, name, accepting(name, getattr(module, name)))
    cls.inverse = linalg.inv  # type: ignore[attr-defined]
    cls.svd = linalg.svd_of_columns  # type: ignore[attr-defined]
    cls.pinverse = linalg.pinv  # type: ignore[attr-defined]
    cls.polygamma = _polygamma  # type: ignore[attr-defined]
    for name, method in inplace.methods().items():
        setattr(cls, name, method)


def _polygamma(self: Any, n: int) -> Any:
    """`treadle.special.polygamma(n, self)`: the derivative number n of `digamma`."""
    return elementary.polygamma(n, self)
