"""What all schedules share: they count epochs and set the learning rates of an optimiser."""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

from treadle.optim.optimizer import Optimizer

LATE = (
    "Detected call of `lr_scheduler.step()` before `optimizer.step()`. You should call them in the "
    "opposite order: `optimizer.step()` before `lr_scheduler.step()`. Failure to do this will "
    "result in skipping the first value of the learning rate schedule."
)


class LRScheduler:
    """The base of all schedules: a subclass defines `get_lr`.

    Args:
        optimizer: whose learning rates are set.
        last_epoch: the epoch to go on from; -1 starts anew.

    Attributes:
        base_lrs: the learning rates that the groups started with.
    """

    optimizer: Optimizer
    last_epoch: int
    base_lrs: list[Any]
    _is_initial = False
    _last_lr: list[Any]
    _step_count = 0

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming "
                    f"scheduler with last_epoch >= 0; hint: load the optimizer's state first"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def _current(self) -> list[Any]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def get_last_lr(self) -> list[Any]:
        """The learning rates of the groups as they were last set."""
        return self._last_lr

    def get_lr(self) -> list[Any]:
        """The learning rates of the groups in this epoch."""
        raise NotImplementedError(f"{type(self).__name__} does not define get_lr()")

    def step(self, epoch: int | None = None) -> None:
        """Goes on to the next epoch; call it after the optimiser's `step()`."""
        if self._step_count == 1 and not self.optimizer._opt_called:
            warnings.warn(LATE, UserWarning, stacklevel=2)
        self._step_count += 1
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        if epoch is None:
            self.last_epoch += 1
            values = self.get_lr()
        else:
            self.last_epoch = epoch
            closed = getattr(self, "_get_closed_form_lr", None)
            values = self.get_lr() if closed is None else closed()
        for group, lr in zip(self.optimizer.param_groups, values, strict=True):
            group["lr"] = lr
        self._last_lr = self._current()

    def _scaled(self, factor: float) -> list[Any]:
        return [lr * factor for lr in self._current()]

    def state_dict(self) -> dict[str, Any]:
        """All that the schedule keeps, but the optimiser."""
        return {k: v for k, v in self.__dict__.items() if k not in ("optimizer", "_is_initial")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.__dict__.update(state_dict)


def saved_function(function: Callable[..., Any]) -> dict[str, Any] | None:
    """What is saved of a function that a user gave: the state of an object, nothing of a plain
    function."""
    return None if isinstance(function, types.FunctionType) else function.__dict__.copy()


def each_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """A value for each group: one for all, or a sequence of them."""
    n = len(optimizer.param_groups)
    if not isinstance(value, (list, tuple)):
        return [value] * n
    if len(value) != n:
        raise ValueError(f"{name} must have the same length as optimizer.param_groups: expected "
                         f"{n}, but got {len(value)}")  # fmt: skip
    return list(value)


def start_momentum(optimizer: Optimizer, base: Any, most: Any, fresh: bool) -> bool:
    """Gives the groups the bounds of a momentum that follows the rate; whether it is `betas[0]`."""
    defaults = optimizer.defaults
    if "momentum" not in defaults and "betas" not in defaults:
        raise ValueError(
            "optimizer must support momentum or beta1 with `cycle_momentum` option enabled"
        )
    is_beta = "betas" in defaults
    if fresh:
        low, high = (
            each_group("base_momentum", optimizer, base),
            each_group("max_momentum", optimizer, most),
        )
        for group, bottom, top in zip(optimizer.param_groups, low, high, strict=True):
            set_momentum(group, top, is_beta)
            group["max_momentum"], group["base_momentum"] = top, bottom
    return is_beta


def set_momentum(group: dict[str, Any], value: float, is_beta: bool) -> None:
    """Sets the momentum of a group."""
    if is_beta:
        group["betas"] = (value, *group["betas"][1:])
    else:
        group["momentum"] = value
