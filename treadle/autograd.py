"""Differentiation: `treadle.autograd`, under PyTorch's names."""

from treadle.tensor.autograd import backward, grad
from treadle.tensor.function import Function
from treadle.tensor.grad_mode import (
    enable_grad,
    inference_mode,
    no_grad,
    set_grad_enabled,
)
from treadle.tensor.gradcheck import gradcheck, gradgradcheck

__all__ = [
    "Function", "backward", "enable_grad", "grad", "gradcheck", "gradgradcheck", "inference_mode",
    "no_grad", "set_grad_enabled",
]  # fmt: skip
