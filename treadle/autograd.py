"""`treadle.autograd`: gradients by hand, functions with a gradient of their own, checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle.tensor import function, functional
from treadle.tensor.autograd import backward as _backward
from treadle.tensor.autograd import grad
from treadle.tensor.function import Function
from treadle.tensor.grad_mode import enable_grad, inference_mode, no_grad, set_grad_enabled
from treadle.tensor.gradcheck import GradcheckError, gradcheck, gradgradcheck
from treadle.tensor.tensor_class import Tensor

__all__ = [
    "Function",
    "GradcheckError",
    "backward",
    "enable_grad",
    "function",
    "functional",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "no_grad",
    "set_grad_enabled",
]


def backward(
    tensors: Tensor | Sequence[Tensor],
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Any = None,
) -> None:
    """Adds the gradients of several tensors to `.grad` of the leaves that they depend on.

    Args:
        tensors: a tensor or a sequence of them.
        grad_tensors: for each the weight of its elements; `None` for a scalar is 1.
        retain_graph: keep what the pass needs (default: as `create_graph`).
        create_graph: record the gradients with history.
        inputs: collect gradients at these tensors only.

    Raises:
        GradientError: a tensor has no history, or needs a weight.
    """
    roots = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    given = [grad_tensors] if isinstance(grad_tensors, Tensor) else grad_tensors
    weights = list(given) if given is not None else [None] * len(roots)
    ends = [inputs] if isinstance(inputs, Tensor) else inputs
    keep = create_graph if retain_graph is None else retain_graph
    _backward(roots, weights, keep, create_graph, ends)
