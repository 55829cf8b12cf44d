"""Muon: momentum whose matrices are made orthogonal."""

from __future__ import annotations

import math
from typing import Any

from treadle.base import dtype as dt
from treadle.optim.optimizer import Group, Optimizer, number
from treadle.tensor import primitive as pr

Coefficients = tuple[float, float, float]


class Muon(Optimizer):
    """`p -= lr * s * orthogonal(m)` for matrices, with the momentum `m` of the gradients.

    The nearest orthogonal matrix is found by steps of `X <- a X + (b X X^T + c (X X^T)^2) X` in
    bfloat16, as PyTorch does it.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024).

    Args:
        params: matrices, or groups of them.
        lr: the learning rate.
        weight_decay: `p` shrinks by `lr * weight_decay` of itself.
        momentum: how much of the running mean is kept.
        nesterov: look one step of the momentum ahead.
        ns_coefficients: `(a, b, c)`.
        eps: the least norm that a matrix is divided by.
        ns_steps: how many steps, fewer than 100.
        adjust_lr_fn: the factor `s`: `"original"` (or None) is `sqrt(max(1, rows / columns))`,
            `"match_rms_adamw"` is `0.2 sqrt(max(rows, columns))`.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-3, weight_decay: float = 0.1, momentum: float = 0.95,
        nesterov: bool = True, ns_coefficients: Coefficients = (3.4445, -4.775, 2.0315),
        eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None,
    ) -> None:  # fmt: skip
        for name, value in (("Learning rate", lr), ("momentum", momentum),
                            ("weight decay", weight_decay)):  # fmt: skip
            if number(value) < 0.0:
                raise ValueError(f"{name} should be >= 0 but is: {value}")
        if adjust_lr_fn not in (None, "original", "match_rms_adamw"):
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        if ns_steps >= 100:
            raise ValueError("Number of steps must be less than 100 for computational efficiency")
        super().__init__(params, {
            "lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov,
            "ns_coefficients": ns_coefficients, "eps": eps, "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        })  # fmt: skip
        for p in (p for group in self.param_groups for p in group["params"]):
            if len(p.shape) != 2:
                raise ValueError(
                    f"Muon only supports 2D parameters whereas we found a parameter with size: "
                    f"{p.shape}"
                )

    def _update(self, group: Group, params: list[Any]) -> None:
        names = ("momentum_buffer",)
        self._keep(params, names)
        lr = number(group["lr"])
        numbers = (lr, lr * number(group["weight_decay"]), group["momentum"])
        flags = (
            group["nesterov"], tuple(group["ns_coefficients"]), group["eps"], group["ns_steps"],
            group["adjust_lr_fn"] == "match_rms_adamw",
        )  # fmt: skip
        self._record(_muon, params, names, numbers, flags)


def _muon(
    p: Any, g: Any, m: Any, lr: Any, decay: Any, momentum: Any, nesterov: bool,
    coefficients: Coefficients, eps: float, steps: int, as_adam: bool,
) -> tuple[Any, ...]:  # fmt: skip
    m = m + (g - m) * (1 - momentum)
    ahead = g + (m - g) * momentum if nesterov else m
    rows, columns = p._node.shape
    size = 0.2 * math.sqrt(max(rows, columns)) if as_adam else math.sqrt(max(1.0, rows / columns))
    change = pr.cast(orthogonal(ahead, coefficients, eps, steps), p._node.dtype)
    return p - p * decay - change * (lr * size), m


def orthogonal(x: Any, coefficients: Coefficients, eps: float, steps: int) -> Any:
    """A matrix with its singular values moved close to 1, in bfloat16."""
    a, b, c = coefficients
    rows, columns = x._node.shape
    x = pr.cast(x, dt.bfloat16)
    x = pr.ordered(x, (1, 0)) if rows > columns else x
    wide = pr.cast(x, dt.float32)
    norm = pr.cast(pr.total(wide * wide, (0, 1)).sqrt(), dt.bfloat16)
    x = x / norm.maximum(pr.constant(eps, dt.bfloat16))
    for _ in range(steps):
        gram = x @ pr.ordered(x, (1, 0))
        x = _combined(x, a, _combined(gram, b, gram, c, gram), 1.0, x)
    return pr.ordered(x, (1, 0)) if rows > columns else x


def _combined(x: Any, beta: float, left: Any, alpha: float, right: Any) -> Any:
    """`beta x + alpha left @ right`, rounded once."""
    x, left, right = (pr.cast(v, dt.float32) for v in (x, left, right))
    return pr.cast(x * beta + (left @ right) * alpha, dt.bfloat16)
