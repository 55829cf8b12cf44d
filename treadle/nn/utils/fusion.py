"""Layers for evaluation that do the work of two: a normalisation folded into what is before it."""

from __future__ import annotations

import copy
from typing import Any

from treadle.nn.parameter import Parameter
from treadle.tensor import no_grad, zeros_like


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of a convolution that also does the batch normalisation behind it.

    Args:
        conv, bn: layers in evaluation mode.
        transpose: the convolution is a transposed one.

    Raises:
        ValueError: a layer is in training mode, or the normalisation has no running statistics.
    """
    return _fused(conv, bn, 1 if transpose else 0)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A copy of a `Linear` that also does the batch normalisation behind it.

    Raises:
        ValueError: as `fuse_conv_bn_eval`, or the extents differ.
    """
    if linear.out_features != bn.num_features and bn.num_features != 1:
        raise ValueError("To fuse, linear.out_features == bn.num_features or bn.num_features == 1")
    return _fused(linear, bn, 0)


def _fused(layer: Any, bn: Any, axis: int) -> Any:
    if layer.training or bn.training or bn.running_mean is None:
        raise ValueError("Fusion only for eval, with running statistics")
    out = copy.deepcopy(layer)
    with no_grad():
        scale = (bn.running_var + bn.eps).rsqrt()
        scale = scale if bn.weight is None else scale * bn.weight
        start = zeros_like(bn.running_mean) if layer.bias is None else layer.bias
        shift = (start - bn.running_mean) * scale
        shift = shift if bn.bias is None else shift + bn.bias
        column = [1] * layer.weight.dim()
        column[axis] = -1
        out.weight = Parameter(layer.weight * scale.reshape(column), layer.weight.requires_grad)
        out.bias = Parameter(shift.clone())
    return out


def skip_init(module_cls: Any, *args: Any, **kwargs: Any) -> Any:
    """A layer `module_cls(*args, **kwargs)` whose parameters are about to be overwritten."""
    return module_cls(*args, **kwargs)
