"""Helpers around modules: clipping gradients, parameters as one vector."""

from treadle.nn.utils import parametrizations, parametrize, rnn
from treadle.nn.utils.clip_grad import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from treadle.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval, skip_init
from treadle.nn.utils.stateless import functional_call
from treadle.nn.utils.vector import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "functional_call",
    "fuse_conv_bn_eval", "fuse_linear_bn_eval", "get_total_norm", "parameters_to_vector",
    "parametrizations", "parametrize", "rnn", "skip_init", "vector_to_parameters",
]  # fmt: skip
