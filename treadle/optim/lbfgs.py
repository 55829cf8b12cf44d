"""L-BFGS: steps from the curvature that the last gradients showed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.optim.line_search import strong_wolfe
from treadle.optim.optimizer import Optimizer, number
from treadle.tensor import cat, enable_grad, no_grad, zeros


class LBFGS(Optimizer):
    """The limited-memory method of Broyden, Fletcher, Goldfarb and Shanno.

    Each step calls the closure several times and reads the loss, so that it runs at once. One group
    of parameters only.

    Source: Nocedal and Wright, "Numerical Optimization", 2nd ed., algorithms 7.4 and 3.5.

    Args:
        params: parameters.
        lr: the learning rate, which starts a line search.
        max_iter: iterations in a step.
        max_eval: calls of the closure in a step (default: `max_iter * 1.25`).
        tolerance_grad: stop where no element of the gradient is larger.
        tolerance_change: stop where loss or parameters change less.
        history_size: gradients that are remembered.
        line_search_fn: `"strong_wolfe"`, or none.
    """

    def __init__(
        self, params: Any, lr: Any = 1, max_iter: int = 20, max_eval: int | None = None,
        tolerance_grad: float = 1e-7, tolerance_change: float = 1e-9, history_size: int = 100,
        line_search_fn: str | None = None,
    ) -> None:  # fmt: skip
        if number(lr) < 0.0:
            raise ValueError(f"Invalid learning rate: {lr}")
        if line_search_fn not in (None, "strong_wolfe"):
            raise ValueError("only 'strong_wolfe' is supported")
        super().__init__(params, {
            "lr": lr, "max_iter": max_iter,
            "max_eval": max_iter * 5 // 4 if max_eval is None else max_eval,
            "tolerance_grad": tolerance_grad, "tolerance_change": tolerance_change,
            "history_size": history_size, "line_search_fn": line_search_fn,
        })  # fmt: skip
        if len(self.param_groups) != 1:
            raise ValueError("LBFGS doesn't support per-parameter options (parameter groups)")

    @property
    def _params(self) -> list[Any]:
        params: list[Any] = self.param_groups[0]["params"]
        return params

    def _gradient(self) -> Any:
        """All gradients as one vector."""
        return cat([
            zeros(p.numel(), dtype=p.dtype) if p.grad is None else p.grad.reshape(-1)
            for p in self._params
        ])  # fmt: skip

    def _move(self, size: float, direction: Any) -> None:
        start = 0
        for p in self._params:
            n = p.numel()
            p.add_(direction[start : start + n].reshape(p.shape) * size)
            start += n

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Changes the parameters, calling the closure several times.

        Args:
            closure: computes the loss and its gradients anew.

        Returns:
            The loss before the step.
        """
        if closure is None:
            raise TypeError("LBFGS.step() needs a closure that computes the loss anew")
        with no_grad():
            return self._iterate(closure)

    def _loss(self, closure: Callable[[], Any]) -> tuple[float, Any]:
        with enable_grad():
            loss = closure()
        return float(loss), self._gradient()

    def _iterate(self, closure: Callable[[], Any]) -> Any:
        group = self.param_groups[0]
        state = self.state[self._params[0]]
        state.setdefault("func_evals", 0)
        state.setdefault("n_iter", 0)
        with enable_grad():
            first = closure()
        loss, gradient = float(first), self._gradient()
        evals = 1
        state["func_evals"] += 1
        if gradient.abs().max().item() <= group["tolerance_grad"]:
            return first
        for i in range(1, group["max_iter"] + 1):
            state["n_iter"] += 1
            direction = self._direction(state, gradient, group["history_size"])
            before, last = loss, gradient
            lr = number(group["lr"])
            size = lr
            if state["n_iter"] == 1:
                size = min(1.0, 1.0 / gradient.abs().sum().item()) * lr
            slope = gradient.dot(direction).item()
            state.update(d=direction, prev_flat_grad=last, prev_loss=before, t=size)
            if slope > -group["tolerance_change"]:
                break
            used = 0
            if group["line_search_fn"] is not None:
                loss, gradient, size, used = self._search(
                    closure, size, direction, loss, gradient, slope, group["max_eval"] - evals,
                )  # fmt: skip
                state["t"] = size
                self._move(size, direction)
            else:
                self._move(size, direction)
                if i != group["max_iter"]:
                    # Not in the last iteration: a stochastic loss will be another next time.
                    loss, gradient = self._loss(closure)
                    used = 1
            evals += used
            state["func_evals"] += used
            if self._is_over(group, i, evals, gradient, direction, size, loss - before):
                break
        return first

    def _is_over(self, group: dict[str, Any], i: int, evals: int, gradient: Any, direction: Any,
                 size: float, change: float) -> bool:  # fmt: skip
        return bool(
            i == group["max_iter"]
            or evals >= group["max_eval"]
            or gradient.abs().max().item() <= group["tolerance_grad"]
            or (direction * size).abs().max().item() <= group["tolerance_change"]
            or abs(change) < group["tolerance_change"]
        )

    def _direction(self, state: dict[str, Any], gradient: Any, history: int) -> Any:
        """Minus the approximate inverse Hessian times the gradient (the two-loop recursion)."""
        if state["n_iter"] == 1:
            state.update(old_dirs=[], old_stps=[], ro=[], H_diag=1.0)
            return -gradient
        y = gradient - state["prev_flat_grad"]
        s = state["d"] * state["t"]
        curvature = y.dot(s).item()
        changes, steps, inverse = state["old_dirs"], state["old_stps"], state["ro"]
        if curvature > 1e-10:
            if len(changes) == history:
                for kept in (changes, steps, inverse):
                    kept.pop(0)
            changes.append(y)
            steps.append(s)
            inverse.append(1.0 / curvature)
            state["H_diag"] = curvature / y.dot(y).item()
        q = -gradient
        weights = [0.0] * len(changes)
        for i in reversed(range(len(changes))):
            weights[i] = steps[i].dot(q).item() * inverse[i]
            q = q - changes[i] * weights[i]
        r = q * state["H_diag"]
        for i in range(len(changes)):
            r = r + steps[i] * (weights[i] - changes[i].dot(r).item() * inverse[i])
        return r

    def _search(
        self, closure: Callable[[], Any], size: float, direction: Any, loss: float, gradient: Any,
        slope: float, evals: int,
    ) -> tuple[float, Any, float, int]:  # fmt: skip
        start = [p.detach().clone() for p in self._params]

        def at(t: float) -> tuple[float, Any, float]:
            self._move(t, direction)
            value, g = self._loss(closure)
            for p, x in zip(self._params, start, strict=True):
                p.copy_(x)
            return value, g, g.dot(direction).item()

        largest = direction.abs().max().item()
        return strong_wolfe(at, size, largest, loss, gradient, slope, max_search=evals)
