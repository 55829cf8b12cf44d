"""Rprop and averaged SGD."""

from __future__ import annotations

from typing import Any

from treadle.optim.adam import require
from treadle.optim.optimizer import Group, Optimizer, filled_for, number
from treadle.tensor import primitive as pr


class Rprop(Optimizer):
    """Steps by the sign of the gradient, of a size that grows while the sign stays.

    Source: Riedmiller and Braun, ICNN 1993.

    Args:
        params: parameters, or groups of them.
        lr: the first step size.
        etas: by what a step shrinks and grows.
        step_sizes: the smallest and the largest step.
        maximize: go up the gradient, not down.
        capturable, foreach, differentiable: accepted; a group is always updated as a whole.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-2, etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50), *, capturable: bool = False,
        foreach: bool | None = None, maximize: bool = False, differentiable: bool = False,
    ) -> None:  # fmt: skip
        require(lr, 0.0, 0.0)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        super().__init__(params, {
            "lr": lr, "etas": etas, "step_sizes": step_sizes, "foreach": foreach,
            "maximize": maximize, "differentiable": differentiable, "capturable": capturable,
        })  # fmt: skip

    def _update(self, group: Group, params: list[Any]) -> None:
        names = ("prev", "step_size")
        for p in params:
            if "step_size" not in self.state[p]:
                self.state[p]["step_size"] = filled_for(p, number(group["lr"]))
                self._keep([p], names)
                self.state[p]["step"] = 0
        self._advance(params, names)
        numbers = (*group["etas"], *group["step_sizes"])
        self._record(_rprop, params, names, numbers, (group["maximize"],))


def _rprop(p: Any, g: Any, before: Any, size: Any, shrink: Any, grow: Any, least: Any, most: Any,
           maximize: bool) -> tuple[Any, ...]:  # fmt: skip
    g = -g if maximize else g
    zero, one = pr.constant(0, p._node.dtype), pr.constant(1, p._node.dtype)
    same = g * before
    turned = same < zero
    factor = pr.select(same > zero, grow, pr.select(turned, shrink, one))
    size = (size * factor).maximum(least).minimum(most)
    g = pr.select(turned, zero, g)
    return p - g.sign() * size, g, size


class ASGD(Optimizer):
    """SGD with a falling rate, and the mean of the parameters in `state[p]["ax"]`.

    Source: Polyak and Juditsky, SIAM J. Control Optim. 30, 1992.

    Args:
        params: parameters, or groups of them.
        lr: the first learning rate.
        lambd: how fast parameters decay and the rate falls.
        alpha: the power by which the rate falls.
        t0: the step at which averaging starts.
        weight_decay: `weight_decay * p` is added to the gradient.
        maximize: go up the gradient, not down.
        foreach, differentiable, capturable: accepted; a group is always updated as a whole.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-2, lambd: float = 1e-4, alpha: float = 0.75,
        t0: float = 1e6, weight_decay: float = 0, foreach: bool | None = None,
        maximize: bool = False, differentiable: bool = False, capturable: bool = False,
    ) -> None:  # fmt: skip
        require(lr, 0.0, weight_decay)
        super().__init__(params, {
            "lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0, "weight_decay": weight_decay,
            "foreach": foreach, "maximize": maximize, "differentiable": differentiable,
            "capturable": capturable,
        })  # fmt: skip

    def _update(self, group: Group, params: list[Any]) -> None:
        lr, decay, lambd = number(group["lr"]), number(group["weight_decay"]), group["lambd"]
        for part in self._advance(params, ("ax",)):
            states = [self.state[p] for p in part]
            eta, mu = states[0].get("eta", lr), states[0].get("mu", 1.0)
            flags = (decay != 0, group["maximize"])
            self._record(_asgd, part, ("ax",), (eta, mu, 1 - lambd * eta, decay), flags)
            step = states[0]["step"]
            for state in states:
                state["eta"] = lr / (1 + lambd * lr * step) ** group["alpha"]
                state["mu"] = 1 / max(1, step - group["t0"])


def _asgd(p: Any, g: Any, mean: Any, eta: Any, mu: Any, shrink: Any, decay: Any,
          has_decay: bool, maximize: bool) -> tuple[Any, ...]:  # fmt: skip
    g = -g if maximize else g
    g = g + p * decay if has_decay else g
    p = p * shrink - g * eta
    return p, mean + (p - mean) * mu
