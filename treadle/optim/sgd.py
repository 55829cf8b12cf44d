"""Stochastic gradient descent."""

from __future__ import annotations

from typing import Any

from treadle.optim.optimizer import Group, Optimizer, number, zeros_for


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum `b = momentum b + (1 - dampening) g`.

    Args:
        params: parameters, or groups of them.
        lr: the learning rate.
        momentum: how much of the last step is kept.
        dampening: how much of the gradient is left out of the momentum.
        weight_decay: `weight_decay * p` is added to the gradient.
        nesterov: look ahead along the momentum.
        maximize: go up the gradient, not down.
        foreach, differentiable, fused: accepted; a group is always updated as a whole.

    Raises:
        ValueError: an option is out of its range.

    Example:
        >>> import treadle
        >>> p = treadle.nn.Parameter(treadle.ones(1))
        >>> optimizer = treadle.optim.SGD([p], lr=0.25)
        >>> (p * p).sum().backward()
        >>> optimizer.step()
        >>> p.item()
        0.5
    """

    def __init__(
        self, params: Any, lr: Any = 1e-3, momentum: float = 0, dampening: float = 0,
        weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
        foreach: bool | None = None, differentiable: bool = False, fused: bool | None = None,
    ) -> None:  # fmt: skip
        if number(lr) < 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if momentum < 0.0:
            raise ValueError(f"Invalid momentum value: {momentum}")
        if weight_decay < 0.0:
            raise ValueError(f"Invalid weight_decay value: {weight_decay}")
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, {
            "lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay,
            "nesterov": nesterov, "maximize": maximize, "foreach": foreach,
            "differentiable": differentiable, "fused": fused,
        })  # fmt: skip

    def _update(self, group: Group, params: list[Any]) -> None:
        momentum, dampening = group["momentum"], group["dampening"]
        lr, decay = number(group["lr"]), number(group["weight_decay"])
        flags = (decay != 0, group["nesterov"], group["maximize"])
        if momentum == 0:
            self._record(_plain, params, (), (lr, decay), flags)
            return
        names = ("momentum_buffer",)
        state = self.state
        # A replayed step has its state: only its numbers are asked for.
        replayed = self._numbers is not None
        fresh = [p for p in params if not replayed and state[p].get("momentum_buffer") is None]
        for p in fresh:
            state[p]["momentum_buffer"] = zeros_for(p)
        if fresh and dampening:
            # The first step takes the gradient undamped.
            self._record(_with_momentum, fresh, names, (lr, decay, momentum, 1.0), flags)
            done = set(map(id, fresh))
            params = [p for p in params if id(p) not in done]
        if params:
            keep = 1.0 - dampening
            self._record(_with_momentum, params, names, (lr, decay, momentum, keep), flags)


def _gradient(p: Any, g: Any, decay: Any, has_decay: bool, maximize: bool) -> Any:
    g = -g if maximize else g
    return g + p * decay if has_decay else g


def _plain(p: Any, g: Any, lr: Any, decay: Any, has_decay: bool, nesterov: bool,
           maximize: bool) -> tuple[Any, ...]:  # fmt: skip
    return (p - _gradient(p, g, decay, has_decay, maximize) * lr,)


def _with_momentum(p: Any, g: Any, b: Any, lr: Any, decay: Any, momentum: Any, keep: Any,
                   has_decay: bool, nesterov: bool, maximize: bool) -> tuple[Any, ...]:  # fmt: skip
    g = _gradient(p, g, decay, has_decay, maximize)
    b = b * momentum + g * keep
    return p - (g + b * momentum if nesterov else b) * lr, b
