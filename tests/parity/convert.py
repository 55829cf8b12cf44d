"""Values of PyTorch as values of treadle, and both as NumPy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

import treadle
import treadle.nn


class Untranslatable(Exception):
    """A value that treadle has no counterpart of, on purpose."""


DTYPES = {
    getattr(torch, name): getattr(treadle, name)
    for name in (
        "bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32",
        "float64",
    )
}  # fmt: skip


def dtype_name(dtype: Any) -> str:
    """The name of a dtype of either library, without the library's."""
    return str(dtype).split(".")[-1]


def translated(value: Any, gradients: bool = False, known: dict[int, Any] | None = None) -> Any:
    """A value, or nested values, of PyTorch as the same of treadle.

    With `gradients`, what requires grad there requires it here. A tensor that occurs twice
    stays one (`known` remembers them).
    """
    known = {} if known is None else known
    if isinstance(value, torch.Tensor):
        if id(value) not in known:
            known[id(value)] = _tensor(value, gradients)
        return known[id(value)]
    if isinstance(value, torch.Size):
        return tuple(value)
    if isinstance(value, (list, tuple)):
        parts = [translated(v, gradients, known) for v in value]
        named = hasattr(value, "_fields")
        return type(value)(*parts) if named else type(value)(parts)
    if isinstance(value, dict):
        return {k: translated(v, gradients, known) for k, v in value.items()}
    if isinstance(value, torch.dtype):
        if value not in DTYPES:
            raise Untranslatable(f"dtype {dtype_name(value)}")
        return DTYPES[value]
    if isinstance(value, torch.nn.Module) and hasattr(treadle.nn, type(value).__name__):
        made = getattr(treadle.nn, type(value).__name__)()
        made.__dict__.update({k: v for k, v in vars(value).items() if not k.startswith("_")})
        return made
    if isinstance(value, torch.device):
        return str(value)
    if isinstance(value, (torch.layout, torch.memory_format, complex, torch.Generator)):
        raise Untranslatable(type(value).__name__)
    return value


def _tensor(value: torch.Tensor, gradients: bool) -> Any:
    if value.layout is not torch.strided or value.is_quantized:
        raise Untranslatable("layout")
    if value.dtype not in DTYPES:
        raise Untranslatable(f"dtype {dtype_name(value.dtype)}")
    out = treadle.from_numpy(array(value).copy(order="C")).to(DTYPES[value.dtype])
    return out.requires_grad_() if gradients and value.requires_grad else out


def array(value: Any) -> Any:
    """The elements of a tensor of either library; bfloat16 as float32."""
    value = value.detach()
    if dtype_name(value.dtype) == "bfloat16":
        value = value.float()
    theirs = isinstance(value, torch.Tensor)
    return np.asarray(value.numpy(force=True) if theirs else value.numpy())


def leaves(value: Any) -> list[Any]:
    """The tensors among nested values that require grad, in order; of either library."""
    if isinstance(value, (list, tuple)):
        return [t for part in value for t in leaves(part)]
    if isinstance(value, dict):
        return [t for part in value.values() for t in leaves(part)]
    return [value] if getattr(value, "requires_grad", False) else []


def results(value: Any) -> list[Any]:
    """What a call gave as a flat list: tensors, numbers, truth values."""
    if isinstance(value, (list, tuple)) and not isinstance(value, (torch.Size, treadle.Size)):
        return [t for part in value for t in results(part)]
    if isinstance(value, dict):
        return [t for part in value.values() for t in results(part)]
    return [tuple(value) if isinstance(value, (torch.Size, treadle.Size)) else value]
