"""One call in both libraries: values, dtypes, shapes, first and second gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from convert import array, dtype_name, leaves, results, translated

import treadle
from treadle.ops.table import bound


class Disagreement(AssertionError):
    """Both computed something, and not the same."""


def agree(
    ours: Callable[..., Any],
    theirs: Callable[..., Any],
    args: Any,
    kwargs: dict[str, Any],
    order: int = 0,
    values: bool = True,
) -> None:
    """Fails unless a call gives the same in both libraries.

    Args:
        ours, theirs: the functions.
        args, kwargs: arguments of theirs; ours gets them translated.
        order: how many derivatives are compared: 0, 1 or 2.
        values: False compares dtypes and shapes alone, for random functions.

    Raises:
        Disagreement: in one line, what differs.
    """
    a = translated((list(args), kwargs), gradients=order > 0)
    mine, yours = results(ours(*a[0], **a[1])), results(theirs(*args, **kwargs))
    slack = slack_of(mine)
    same(mine, yours, "value", values, slack)
    if order and values:
        gradients(mine, yours, leaves(a), leaves((list(args), kwargs)), order, slack)


def gradients(
    mine: list[Any], yours: list[Any], x: list[Any], y: list[Any], order: int, slack: float
) -> None:
    """Fails unless the derivatives of results by leaves agree, up to an order."""
    for depth in range(1, order + 1):
        loss, wish = weighted(mine), weighted(yours)
        if not y or (loss is None and wish is None):
            return
        deeper = depth < order
        yours, mine = [None] * len(y), [None] * len(x)
        if wish is not None:
            try:
                yours = list(torch.autograd.grad(wish, y, create_graph=deeper, allow_unused=True))
            except RuntimeError as error:
                if "is not implemented" in str(error):
                    return
                raise
        if loss is not None:
            mine = list(treadle.autograd.grad(loss, x, create_graph=deeper, allow_unused=True))
        for i, (g, h) in enumerate(zip(mine, yours, strict=True)):
            # A gradient of zeros and none at all are the same to a user of autograd.
            if g is None and h is not None and h.count_nonzero().item():
                raise Disagreement(f"gradient {depth} of input {i} is missing")
            if g is not None and h is None and g.count_nonzero().item():
                raise Disagreement(f"gradient {depth} of input {i} should be none")
        pairs = [(g, h) for g, h in zip(mine, yours, strict=True) if None not in (g, h)]
        mine, yours = [g for g, _ in pairs], [h for _, h in pairs]
        same(mine, yours, f"gradient {depth}", True, slack * 4**depth)


def weighted(outputs: list[Any]) -> Any:
    """A sum of all elements that carry a gradient, each with a weight of its own."""
    total: Any = None
    for t in outputs:
        if not getattr(t, "requires_grad", False):
            continue
        weights = np.cos(np.arange(1, t.numel() + 1)).reshape(tuple(t.shape))
        library = torch if isinstance(t, torch.Tensor) else treadle
        w = library.from_numpy(np.asarray(weights)).to(t.dtype)
        part = (t * w).sum()
        total = part if total is None else total + part.to(total.dtype)
    return total


def slack_of(outputs: list[Any]) -> float:
    """The largest slack of an op in the graphs of some tensors."""
    seen: set[int] = set()
    stack = [t._node for t in outputs if isinstance(t, treadle.Tensor)]
    most = 1.0
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            most = max(most, node.op.slack)
            stack.extend(node.inputs)
    return most


def same(
    mine: list[Any], yours: list[Any], what: str, values: bool = True, slack: float = 1.0
) -> None:
    """Raises `Disagreement` unless two lists hold the same, within the bounds of the op table."""
    if len(mine) != len(yours):
        raise Disagreement(f"{what}: {len(mine)} results, PyTorch gives {len(yours)}")
    for x, y in zip(mine, yours, strict=True):
        if not isinstance(y, torch.Tensor):
            if values and x != y and not (x != x and y != y):
                raise Disagreement(f"{what}: {x!r}, PyTorch gives {y!r}")
            continue
        if not isinstance(x, treadle.Tensor):
            raise Disagreement(f"{what}: {type(x).__name__}, PyTorch gives a tensor")
        if dtype_name(x.dtype) != dtype_name(y.dtype):
            raise Disagreement(
                f"{what}: dtype {dtype_name(x.dtype)}, PyTorch's {dtype_name(y.dtype)}"
            )
        if tuple(x.shape) != tuple(y.shape):
            raise Disagreement(f"{what}: shape {tuple(x.shape)}, PyTorch's {tuple(y.shape)}")
        if values:
            _close(array(x), array(y), x.dtype, what, slack)


def _close(a: Any, b: Any, dtype: Any, what: str, slack: float) -> None:
    if not a.size:
        return
    if dtype.kind != "f":
        wrong = a != b
        if wrong.any():
            raise Disagreement(f"{what}: {a[wrong].flat[0]} where PyTorch has {b[wrong].flat[0]} "
                               f"({wrong.sum()} of {a.size})")  # fmt: skip
        return
    relative, absolute = bound(dtype, slack)
    a, b = a.astype(np.float64), b.astype(np.float64)
    # What cancels in a sum is measured by the largest element of the result.
    finite = np.abs(b[np.isfinite(b)])
    scale = finite.max() if finite.size else 0.0
    ok = np.isclose(a, b, rtol=relative, atol=absolute + relative * 0.05 * scale, equal_nan=True)
    if not ok.all():
        x, y = a[~ok].flat[0], b[~ok].flat[0]
        raise Disagreement(f"{what}: {x:.9g} where PyTorch has {y:.9g} ({(~ok).sum()} of {a.size})")
