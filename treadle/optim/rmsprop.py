"""RMSprop."""

from __future__ import annotations

from typing import Any

from treadle.optim.adam import require
from treadle.optim.optimizer import Group, Optimizer, number


class RMSprop(Optimizer):
    """`p -= lr g / (sqrt(v) + eps)` with a running mean v of the squared gradient.

    Source: Tieleman and Hinton, Coursera lecture 6.5, 2012; centred: Graves, arXiv:1308.0850.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate.
        alpha: how much of the running mean is kept.
        eps: added to the root.
        weight_decay: `weight_decay * p` is added to the gradient.
        momentum: how much of the last step is kept.
        centered: divide by the standard deviation, not by the root of the mean square.
        maximize: go up the gradient, not down.
        capturable, foreach, differentiable: accepted; a group is always updated as a whole.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0, momentum: float = 0, centered: bool = False,
        capturable: bool = False, foreach: bool | None = None, maximize: bool = False,
        differentiable: bool = False,
    ) -> None:  # fmt: skip
        require(lr, eps, weight_decay)
        if momentum < 0.0:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if alpha < 0.0:
            raise ValueError(f"Invalid alpha value: {alpha}")
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps, "centered": centered,
            "weight_decay": weight_decay, "capturable": capturable, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable,
        })  # fmt: skip

    def _update(self, group: Group, params: list[Any]) -> None:
        moves, centered = group["momentum"] > 0, group["centered"]
        names = (
            "square_avg", *(("momentum_buffer",) if moves else ()),
            *(("grad_avg",) if centered else ()),
        )  # fmt: skip
        alpha = group["alpha"]
        numbers = (
            number(group["lr"]), alpha, 1 - alpha, group["eps"], group["momentum"],
            number(group["weight_decay"]),
        )  # fmt: skip
        self._advance(params, names)
        flags = (moves, centered, group["weight_decay"] != 0, group["maximize"])
        self._record(_rmsprop, params, names, numbers, flags)


def _rmsprop(p: Any, g: Any, v: Any, *rest: Any) -> tuple[Any, ...]:
    *values, moves, centered, has_decay, maximize = rest
    b = values.pop(0) if moves else None
    mean = values.pop(0) if centered else None
    lr, alpha, share, eps, momentum, decay = values
    g = -g if maximize else g
    g = g + p * decay if has_decay else g
    v = v * alpha + g * g * share
    variance = v
    if mean is not None:
        mean = mean + (g - mean) * share
        variance = v - mean * mean
    step = g / (variance.sqrt() + eps)
    if b is not None:
        step = b = b * momentum + step
    kept = tuple(t for t in (b, mean) if t is not None)
    return (p - step * lr, v, *kept)
