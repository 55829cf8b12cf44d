"""Adafactor: second moments of a matrix from those of its rows and columns."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from treadle.optim.adam import require
from treadle.optim.optimizer import Group, Optimizer, number
from treadle.tensor import finfo
from treadle.tensor import primitive as pr


class Adafactor(Optimizer):
    """`p -= a u / max(1, rms(u) / d)` with `u = g / sqrt(v)` and `v` of a matrix from the running
    means of the squares of its rows and of its columns, so that state is small.

    The step is relative: `a = max(eps2, rms(p)) min(lr, 1 / sqrt(t))`.

    Source: Shazeer and Stern, "Adafactor" (arXiv:1804.04235).

    Args:
        params: parameters, or groups of them.
        lr: the largest learning rate.
        beta2_decay: the running means take `t ** beta2_decay` of step t.
        eps: the least of a square root of `v` (that of the dtype if None), and of `rms(p)`.
        d: the largest root mean square of an update.
        weight_decay: `p` shrinks by `lr * weight_decay` of itself.
        foreach: accepted; a group is always updated as a whole.
        maximize: go up the gradient, not down.
    """

    def __init__(
        self, params: Any, lr: Any = 1e-2, beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3), d: float = 1.0,
        weight_decay: float = 0.0, *, foreach: bool | None = None, maximize: bool = False,
    ) -> None:  # fmt: skip
        require(lr, 0.0 if eps[0] is None else eps[0], weight_decay)
        if beta2_decay > 0.0:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[1] < 0.0:
            raise ValueError(f"epsilon2 should be >= 0 but is: {eps[1]}")
        if d < 1.0:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        super().__init__(params, {
            "lr": lr, "beta2_decay": beta2_decay, "eps": eps, "d": d,
            "weight_decay": weight_decay, "foreach": foreach, "maximize": maximize,
        })  # fmt: skip

    def _update(self, group: Group, params: list[Any]) -> None:
        lr, (least, smallest) = number(group["lr"]), group["eps"]
        flags = (least, smallest, group["d"], group["maximize"])
        for part in self._advance(params, ()):
            step = self.state[part[0]]["step"]
            numbers = (step ** group["beta2_decay"], min(lr, 1 / math.sqrt(step)),
                       lr * number(group["weight_decay"]))  # fmt: skip
            for names, rule in ((("row_var", "col_var"), _factored), (("variance",), _whole)):
                fit = [p for p in part if (len(p._node.shape) > 1) == (rule is _factored)]
                for name in names:
                    self._keep(fit, (name,), partial(_zeros, name))
                if fit:
                    self._record(rule, fit, names, numbers, flags)


def _zeros(name: str, p: Any) -> Any:
    shape = p._node.shape
    if name == "row_var":
        shape = (*shape[:-1], 1)
    elif name == "col_var":
        shape = (*shape[:-2], 1, shape[-1])
    return pr.in_memory(shape, 0.0, p._node.dtype)


def _factored(p: Any, g: Any, row: Any, column: Any, share: Any, rate: Any, decay: Any,
              least: float | None, *flags: Any) -> tuple[Any, ...]:  # fmt: skip
    rank = len(p._node.shape)
    square = g * g
    row = row + (pr.average(square, (rank - 1,)) - row) * share
    column = column + (pr.average(square, (rank - 2,)) - column) * share
    v = row * column / pr.average(row, (rank - 2,)).maximum(_least(p, least))
    return _stepped(p, g, v, rate, decay, least, *flags), row, column


def _whole(p: Any, g: Any, v: Any, share: Any, rate: Any, decay: Any, least: float | None,
           *flags: Any) -> tuple[Any, ...]:  # fmt: skip
    v = v + (g * g - v) * share
    return _stepped(p, g, v, rate, decay, least, *flags), v


def _stepped(p: Any, g: Any, v: Any, rate: Any, decay: Any, least: float | None,
             smallest: float, d: float, maximize: bool) -> Any:  # fmt: skip
    e = _least(p, least)
    u = g * v.maximum(e * e).rsqrt()
    over = (_mean_square(u).sqrt() / d).maximum(pr.constant(1, p._node.dtype))
    a = _mean_square(p).sqrt().maximum(pr.constant(smallest, p._node.dtype)) * rate
    change = u * (a / over)
    kept = p - p * decay
    return kept + change if maximize else kept - change


def _least(p: Any, given: float | None) -> Any:
    dtype = p._node.dtype
    return pr.constant(finfo(dtype).eps if given is None else given, dtype)


def _mean_square(x: Any) -> Any:
    return pr.average(x * x, tuple(range(len(x._node.shape))))
