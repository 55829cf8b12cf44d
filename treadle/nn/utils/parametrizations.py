"""Parametrisations that are used often: weights by norm and direction, or of spectral norm 1."""

from __future__ import annotations

from typing import Any

from treadle.nn.functional.common import length
from treadle.nn.functional.linear import normalize
from treadle.nn.module import Module
from treadle.nn.utils.parametrize import register_parametrization
from treadle.tensor import no_grad, randn


def _other_axes(x: Any, dim: int | None) -> tuple[int, ...]:
    rank = x.ndim
    return tuple(a for a in range(rank) if dim is None or dim == -1 or a != dim % rank)


class _WeightNorm(Module):
    """`g v / |v|` with the norm over all axes but one."""

    def __init__(self, dim: int | None = 0) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, size: Any, direction: Any) -> Any:
        """The weight of a size and a direction."""
        return direction * (size / length(direction, 2, _other_axes(direction, self.dim), True))

    def right_inverse(self, weight: Any) -> tuple[Any, Any]:
        """The size and the direction of a weight."""
        return length(weight, 2, _other_axes(weight, self.dim), True), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Learns the norm of a weight apart from its direction.

    Source: Salimans and Kingma, "Weight normalization", NeurIPS 2016.

    Args:
        module: the owner of the weight.
        name: of the weight.
        dim: the axis along which norms are apart; `None` for one norm of all.
    """
    return register_parametrization(module, name, _WeightNorm(dim), unsafe=True)


class _SpectralNorm(Module):
    """A weight over its largest singular value, which power iteration follows."""

    def __init__(self, weight: Any, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__()
        self.dim, self.n_power_iterations, self.eps = (
            dim % max(weight.ndim, 1),
            n_power_iterations,
            eps,
        )
        matrix = self._matrix(weight)
        self.register_buffer("_u", normalize(randn(matrix.shape[0]), dim=0, eps=eps))
        self.register_buffer("_v", normalize(randn(matrix.shape[1]), dim=0, eps=eps))
        self._iterate(matrix, 15)

    def _matrix(self, weight: Any) -> Any:
        return weight.movedim(self.dim, 0).reshape(weight.shape[self.dim], -1)

    def _iterate(self, matrix: Any, n: int) -> None:
        with no_grad():
            u, v = self._u, self._v
            for _ in range(n):
                u = normalize(matrix @ v, dim=0, eps=self.eps)
                v = normalize(matrix.transpose(0, 1) @ u, dim=0, eps=self.eps)
            self._u.copy_(u)
            self._v.copy_(v)

    def forward(self, weight: Any) -> Any:
        """The weight of spectral norm 1."""
        matrix = self._matrix(weight)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        u, v = self._u.clone(), self._v.clone()
        return weight / u.dot(matrix @ v)

    def right_inverse(self, value: Any) -> Any:
        """The weight itself."""
        return value


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12,
    dim: int | None = None,
) -> Module:  # fmt: skip
    """Divides a weight by its largest singular value.

    Source: Miyato et al., "Spectral normalization", ICLR 2018.

    Args:
        module: the owner of the weight.
        name: of the weight.
        n_power_iterations: steps of power iteration in each forward pass of training.
        eps: the least norm that is divided by.
        dim: the axis of the outputs (default 0, and 1 for transposed convolutions).
    """
    weight = getattr(module, name)
    if dim is None:
        dim = 1 if type(module).__name__.startswith("ConvTranspose") else 0
    function = _SpectralNorm(weight.detach(), n_power_iterations, dim, eps)
    return register_parametrization(module, name, function)
