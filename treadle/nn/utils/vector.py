"""Parameters as one vector, and back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from treadle.tensor import cat


def parameters_to_vector(parameters: Iterable[Any]) -> Any:
    """All elements of some parameters, one after another."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Any, parameters: Iterable[Any]) -> None:
    """Gives parameters the elements of a vector."""
    start = 0
    for p in parameters:
        n = p.numel()
        p.data = vec[start : start + n].reshape(p.shape)
        start += n
