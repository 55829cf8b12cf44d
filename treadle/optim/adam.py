"""Adam and its variants."""

from __future__ import annotations

from typing import Any

from treadle.optim.optimizer import Group, Optimizer, number


def require_betas(betas: tuple[Any, Any]) -> None:
    """Raises `ValueError` unless both are in [0, 1)."""
    for i, beta in enumerate(betas):
        if not 0.0 <= number(beta) < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")


def require(lr: Any, eps: float, weight_decay: float) -> None:
    """Raises `ValueError` where an option is negative."""
    if number(lr) < 0.0:
        raise ValueError(f"Invalid learning rate: {lr}")
    if eps < 0.0:
        raise ValueError(f"Invalid epsilon value: {eps}")
    if weight_decay < 0.0:
        raise ValueError(f"Invalid weight_decay value: {weight_decay}")


class Adam(Optimizer):
    """Adam: `p -= lr m' / (sqrt(v') + eps)` with running means m of the gradient and v of its
    square, corrected for their start at zero.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate.
        betas: how much of the two running means is kept.
        eps: added to the root.
        weight_decay: `weight_decay * p` is added to the gradient.
        amsgrad: divide by the largest v so far (Reddi et al., ICLR 2018).
        maximize: go up the gradient, not down.
        decoupled_weight_decay: shrink the parameters instead, as `AdamW`.
        foreach, capturable, differentiable, fused: accepted; a group is always updated as a whole.

    Raises:
        ValueError: an option is out of its range.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:  # fmt: skip
        require(lr, eps, weight_decay)
        require_betas(betas)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "amsgrad": amsgrad, "maximize": maximize, "foreach": foreach,
            "capturable": capturable, "differentiable": differentiable, "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        })  # fmt: skip

    def _update(self, group: Group, params: list[Any]) -> None:
        beta1, beta2 = map(number, group["betas"])
        lr, decay = number(group["lr"]), number(group["weight_decay"])
        amsgrad, decoupled = group["amsgrad"], group["decoupled_weight_decay"]
        names = _AMSGRAD if amsgrad else _PLAIN
        flags = (amsgrad, 0 if decay == 0 else 2 if decoupled else 1, group["maximize"])
        shrink = 1 - lr * decay if decoupled else decay
        for part in self._advance(params, names):
            step = self.state[part[0]]["step"]
            rate, root = lr / (1 - beta1**step), (1 - beta2**step) ** 0.5
            numbers = (rate, root, group["eps"], 1 - beta1, beta2, 1 - beta2, shrink)
            self._record(_adam, part, names, numbers, flags)


_PLAIN = ("exp_avg", "exp_avg_sq")
_AMSGRAD = (*_PLAIN, "max_exp_avg_sq")


def _adam(p: Any, g: Any, m: Any, v: Any, *rest: Any) -> tuple[Any, ...]:
    *numbers, amsgrad, decay, maximize = rest
    largest = numbers.pop(0) if amsgrad else None
    rate, root, eps, share1, beta2, share2, shrink = numbers
    g = -g if maximize else g
    if decay == 1:
        g = g + p * shrink
    elif decay == 2:
        p = p * shrink
    m = m + (g - m) * share1
    v = v * beta2 + g * g * share2
    if largest is None:
        return p - rate * m / (v.sqrt() / root + eps), m, v
    largest = largest.maximum(v)
    return p - rate * m / (largest.sqrt() / root + eps), m, v, largest


class AdamW(Adam):
    """Adam that shrinks the parameters by `lr * weight_decay` apart from the gradient.

    Source: Loshchilov and Hutter, "Decoupled weight decay regularization", ICLR 2019. The arguments
    are those of `Adam`.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
        maximize: bool = False, foreach: bool | None = None, capturable: bool = False,
        differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize,
            capturable=capturable, differentiable=differentiable, fused=fused,
            decoupled_weight_decay=True,
        )  # fmt: skip
