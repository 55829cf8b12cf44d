"""Relatives of Adam: with look-ahead, with rectified variance, with the maximum norm."""

from __future__ import annotations

from typing import Any

from treadle.optim.adam import require, require_betas
from treadle.optim.optimizer import Group, Optimizer, number

Numbers = tuple[float, ...]


def _decayed(p: Any, g: Any, decay: int, shrink: Any, maximize: bool) -> tuple[Any, Any]:
    """Parameter and gradient with weight decay: 1 adds to the gradient, 2 shrinks the parameter."""
    g = -g if maximize else g
    if decay == 1:
        g = g + p * shrink
    elif decay == 2:
        p = p * shrink
    return p, g


def _decay(group: Group) -> int:
    if group["weight_decay"] == 0:
        return 0
    return 2 if group.get("decoupled_weight_decay") else 1


def _shrink(group: Group) -> float:
    decay = number(group["weight_decay"])
    return 1 - number(group["lr"]) * decay if group.get("decoupled_weight_decay") else decay


class NAdam(Optimizer):
    """Adam with Nesterov momentum.

    Source: Dozat, "Incorporating Nesterov momentum into Adam", 2016.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate.
        betas: how much of the running means of the gradient and of its square is kept.
        eps: added to the root.
        weight_decay: `weight_decay * p` is added to the gradient.
        momentum_decay: how fast the momentum reaches its full size.
        decoupled_weight_decay: shrink the parameters instead.
        maximize: go up the gradient, not down.
        foreach, capturable, differentiable: accepted; a group is always updated as a whole.
    """

    def __init__(
        self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False, *, foreach: bool | None = None,
        maximize: bool = False, capturable: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        require(lr, eps, weight_decay)
        require_betas(betas)
        if momentum_decay < 0.0:
            raise ValueError(f"Invalid momentum_decay value: {momentum_decay}")
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "momentum_decay": momentum_decay, "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "differentiable": differentiable,
        })  # fmt: skip

    def _update(self, group: Group, params: list[Any]) -> None:
        names = ("exp_avg", "exp_avg_sq")
        for part in self._advance(params, names):
            states = [self.state[p] for p in part]
            for state in states:
                state["mu_product"] = state.get("mu_product", 1.0) * _mu(group, state["step"])
            flags = (_decay(group), group["maximize"])
            self._record(_nadam, part, names, _nadam_numbers(group, states[0]), flags)


def _mu(group: Group, step: int) -> float:
    return number(group["betas"][0]) * (1.0 - 0.5 * 0.96 ** (step * group["momentum_decay"]))


def _nadam_numbers(group: Group, state: dict[str, Any]) -> Numbers:
    beta1, beta2 = map(number, group["betas"])
    lr, step, product = number(group["lr"]), state["step"], state["mu_product"]
    mu, following = _mu(group, step), _mu(group, step + 1)
    return (
        lr * (1 - mu) / (1 - product), lr * following / (1 - product * following),
        1 - beta2**step, group["eps"], 1 - beta1, beta2, 1 - beta2, _shrink(group),
    )  # fmt: skip


def _nadam(p: Any, g: Any, m: Any, v: Any, by_gradient: Any, by_mean: Any, correction: Any,
           eps: Any, share1: Any, beta2: Any, share2: Any, shrink: Any, decay: int,
           maximize: bool) -> tuple[Any, ...]:  # fmt: skip
    p, g = _decayed(p, g, decay, shrink, maximize)
    m = m + (g - m) * share1
    v = v * beta2 + g * g * share2
    root = (v / correction).sqrt() + eps
    return p - g * by_gradient / root - m * by_mean / root, m, v


class RAdam(Optimizer):
    """Adam with a rectified variance.

    Source: Liu et al., "On the variance of the adaptive learning rate and beyond", ICLR 2020. The
    arguments are those of `Adam`.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, decoupled_weight_decay: bool = False, *,
        foreach: bool | None = None, maximize: bool = False, capturable: bool = False,
        differentiable: bool = False,
    ) -> None:  # fmt: skip
        require(lr, eps, weight_decay)
        require_betas(betas)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "maximize": maximize, "foreach": foreach, "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay, "differentiable": differentiable,
        })  # fmt: skip

    def _update(self, group: Group, params: list[Any]) -> None:
        names = ("exp_avg", "exp_avg_sq")
        for part in self._advance(params, names):
            numbers = _radam_numbers(group, self.state[part[0]])
            self._record(_radam, part, names, numbers, (_decay(group), group["maximize"]))


def _radam_numbers(group: Group, state: dict[str, Any]) -> Numbers:
    beta1, beta2 = map(number, group["betas"])
    step = state["step"]
    correction = 1 - beta2**step
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * step * beta2**step / correction
    rate = number(group["lr"]) / (1 - beta1**step)
    plain, adaptive = rate, 0.0
    if length > 5.0:
        rectified = (length - 4) * (length - 2) * longest
        scale = (longest - 4) * (longest - 2) * length
        plain, adaptive = 0.0, rate * (rectified / scale * correction) ** 0.5
    return plain, adaptive, group["eps"], 1 - beta1, beta2, 1 - beta2, _shrink(group)


def _radam(p: Any, g: Any, m: Any, v: Any, plain: Any, adaptive: Any, eps: Any, share1: Any,
           beta2: Any, share2: Any, shrink: Any, decay: int,
           maximize: bool) -> tuple[Any, ...]:  # fmt: skip
    p, g = _decayed(p, g, decay, shrink, maximize)
    m = m + (g - m) * share1
    v = v * beta2 + g * g * share2
    return p - m * (plain + adaptive / (v.sqrt() + eps)), m, v


class Adamax(Optimizer):
    """Adam with the maximum norm in the place of the square.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization", ICLR 2015, section 7. The
    arguments are those of `Adam`.
    """

    def __init__(
        self, params: Any, lr: Any = 2e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        require(lr, eps, weight_decay)
        require_betas(betas)
        super().__init__(params, {
            "lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable,
        })  # fmt: skip

    def _update(self, group: Group, params: list[Any]) -> None:
        names = ("exp_avg", "exp_inf")
        for part in self._advance(params, names):
            numbers = _adamax_numbers(group, self.state[part[0]])
            self._record(_adamax, part, names, numbers, (_decay(group), group["maximize"]))


def _adamax_numbers(group: Group, state: dict[str, Any]) -> Numbers:
    beta1, beta2 = map(number, group["betas"])
    rate = number(group["lr"]) / (1 - beta1 ** state["step"])
    return rate, group["eps"], 1 - beta1, beta2, _shrink(group)


def _adamax(p: Any, g: Any, m: Any, u: Any, rate: Any, eps: Any, share1: Any, beta2: Any,
            shrink: Any, decay: int, maximize: bool) -> tuple[Any, ...]:  # fmt: skip
    p, g = _decayed(p, g, decay, shrink, maximize)
    m = m + (g - m) * share1
    u = (u * beta2).maximum(g.abs() + eps)
    return p - rate * m / u, m, u
