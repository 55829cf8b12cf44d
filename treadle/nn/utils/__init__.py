"""Helpers around modules: clipping gradients, parameters as one vector."""

from treadle.nn.utils import parametrizations, parametrize, rnn
from treadle.nn.utils.clip_grad import (
    clip_grad_norm_,
    clip_grad_value_,
    clip_grads_with_norm_,
    get_total_norm,
)
from treadle.nn.utils.stateless import functional_call
from treadle.nn.utils.vector import parameters_to_vector, vector_to_parameters

__all__ = [
    "clip_grad_norm_", "clip_grad_value_", "clip_grads_with_norm_", "functional_call",
    "get_total_norm", "parameters_to_vector", "parametrizations", "parametrize", "rnn",
    "vector_to_parameters",
]  # fmt: skip
