"""The same expression in treadle and in PyTorch: values, dtypes, shapes and gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

import treadle


def listed(text: str) -> list[str]:
    """The expressions of a table, which stand two spaces or a line apart."""
    return [e for line in text.strip().splitlines() for e in line.strip().split("  ")]


def tensors(module: Any, arrays: Sequence[Any], gradients: bool) -> list[Any]:
    """The arrays as tensors of a library, floating-point ones as leaves that take gradients."""
    out = []
    for array in arrays:
        t = module.tensor(array.tolist(), dtype=getattr(module, _name(array.dtype)))
        t = t.reshape(array.shape)
        out.append(t.requires_grad_() if gradients and array.dtype.kind == "f" else t)
    return out


def _name(dtype: Any) -> str:
    return "bool" if dtype == np.bool_ else str(dtype)


def flat(value: Any) -> list[Any]:
    """The tensors of a result, which may be nested."""
    if isinstance(value, (tuple, list)):
        return [t for part in value for t in flat(part)]
    return [value]


def array(t: Any) -> Any:
    """The elements of a tensor of either library, or what is no tensor as it is."""
    if not hasattr(t, "detach"):
        return t
    t = t.detach()
    if str(t.dtype).endswith("bfloat16"):
        t = t.float()
    return np.asarray(t.numpy())


def agree(
    torch: Any,
    expression: str,
    arrays: Sequence[Any],
    gradients: bool = True,
    rtol: float = 1e-6,
    atol: float = 1e-7,
) -> None:
    """Fails unless an expression in `t` (the library) and `a, b, c` gives the same in both."""
    results, leaves = [], []
    for module in (treadle, torch):
        inputs = tensors(module, arrays, gradients)
        names = dict(zip("abc", inputs, strict=False))
        results.append(flat(eval(expression, {"t": module, **names})))
        leaves.append(inputs)
    mine, theirs = results
    assert len(mine) == len(theirs)
    for x, y in zip(mine, theirs, strict=True):
        _same(x, y, rtol, atol)
    if gradients:
        for found, inputs in zip(results, leaves, strict=True):
            _differentiate(found, inputs)
        for x, y in zip(*leaves, strict=True):
            assert (x.grad is None) == (y.grad is None), "one has a gradient, the other has none"
            if x.grad is not None:
                _same(x.grad, y.grad, rtol, atol)


def _differentiate(found: list[Any], inputs: list[Any]) -> None:
    """Weighs every element of the results differently, so that no gradient hides."""
    total: Any = None
    for t in found:
        if getattr(t, "requires_grad", False) and t.numel():
            weight = type(inputs[0])(np.cos(np.arange(t.numel())).tolist())
            part = (t.reshape(-1) * weight.to(t.dtype)).sum()
            total = part if total is None else total + part
    if total is not None:
        total.backward()


def _same(x: Any, y: Any, rtol: float, atol: float) -> None:
    if hasattr(y, "dtype"):
        assert str(x.dtype).split(".")[-1] == str(y.dtype).split(".")[-1]
        assert tuple(x.shape) == tuple(y.shape)
        assert x.requires_grad == y.requires_grad
    np.testing.assert_allclose(array(x), array(y), rtol=rtol, atol=atol)
