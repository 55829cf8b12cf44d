"""Adagrad and Adadelta: learning rates from the history of each element."""

from __future__ import annotations

from typing import Any

from treadle.optim.adam import require
from treadle.optim.optimizer import Group, Optimizer, filled_for, number


class Adagrad(Optimizer):
    """`p -= lr g / (sqrt(s) + eps)` with the sum s of all squared gradients.

    Source: Duchi, Hazan and Singer, JMLR 12, 2011.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate.
        lr_decay: the rate of step t is `lr / (1 + (t - 1) lr_decay)`.
        weight_decay: `weight_decay * p` is added to the gradient.
        initial_accumulator_value: what the sum starts with.
        eps: added to the root.
        maximize: go up the gradient, not down.
        foreach, differentiable, fused: accepted; a group is always updated as a whole.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-2, lr_decay: float = 0, weight_decay: float = 0,
        initial_accumulator_value: float = 0, eps: float = 1e-10, foreach: bool | None = None, *,
        maximize: bool = False, differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        require(lr, eps, weight_decay)
        if lr_decay < 0.0:
            raise ValueError(f"Invalid lr_decay value: {lr_decay}")
        if initial_accumulator_value < 0.0:
            raise ValueError(
                f"Invalid initial_accumulator_value value: {initial_accumulator_value}"
            )
        super().__init__(params, {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "fused": fused,
        })  # fmt: skip
        for group in self.param_groups:
            for p in group["params"]:
                start = group["initial_accumulator_value"]
                self.state[p] = {"step": 0, "sum": filled_for(p, start)}

    def _update(self, group: Group, params: list[Any]) -> None:
        start = group["initial_accumulator_value"]
        for part in self._advance(params, ("sum",), lambda p: filled_for(p, start)):
            step = self.state[part[0]]["step"]
            rate = number(group["lr"]) / (1 + (step - 1) * group["lr_decay"])
            numbers = (rate, group["eps"], number(group["weight_decay"]))
            flags = (group["weight_decay"] != 0, group["maximize"])
            self._record(_adagrad, part, ("sum",), numbers, flags)


def _adagrad(p: Any, g: Any, s: Any, rate: Any, eps: Any, decay: Any, has_decay: bool,
             maximize: bool) -> tuple[Any, ...]:  # fmt: skip
    g = -g if maximize else g
    g = g + p * decay if has_decay else g
    s = s + g * g
    return p - g * rate / (s.sqrt() + eps), s


class Adadelta(Optimizer):
    """`p -= lr g sqrt(d + eps) / sqrt(v + eps)` with running means v of the squared gradient and
    d of the squared change.

    Source: Zeiler, arXiv:1212.5701.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate.
        rho: how much of the running means is kept.
        eps: added under the roots.
        weight_decay: `weight_decay * p` is added to the gradient.
        maximize: go up the gradient, not down.
        foreach, capturable, differentiable: accepted; a group is always updated as a whole.
    """

    def __init__(
        self, params: Any, lr: Any = 1.0, rho: float = 0.9, eps: float = 1e-6,
        weight_decay: float = 0, foreach: bool | None = None, *, capturable: bool = False,
        maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        require(lr, eps, weight_decay)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        super().__init__(params, {
            "lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay, "maximize": maximize,
            "capturable": capturable, "foreach": foreach, "differentiable": differentiable,
        })  # fmt: skip

    def _update(self, group: Group, params: list[Any]) -> None:
        names = ("square_avg", "acc_delta")
        rho = group["rho"]
        numbers = (number(group["lr"]), rho, 1 - rho, group["eps"], number(group["weight_decay"]))
        self._advance(params, names)
        flags = (group["weight_decay"] != 0, group["maximize"])
        self._record(_adadelta, params, names, numbers, flags)


def _adadelta(p: Any, g: Any, v: Any, d: Any, lr: Any, rho: Any, share: Any, eps: Any,
              decay: Any, has_decay: bool, maximize: bool) -> tuple[Any, ...]:  # fmt: skip
    g = -g if maximize else g
    g = g + p * decay if has_decay else g
    v = v * rho + g * g * share
    change = (d + eps).sqrt() / (v + eps).sqrt() * g
    return p - change * lr, v, d * rho + change * change * share
