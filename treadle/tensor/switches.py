"""PyTorch's global switches that stand in one position here: what they would choose is given."""

from __future__ import annotations

from typing import Any

from treadle.base.device import Device, device_of


def set_float32_matmul_precision(precision: str) -> None:
    """Accepts `"highest"`, `"high"` and `"medium"`: products of float32 are always full ones."""
    if precision not in ("highest", "high", "medium"):
        raise ValueError(f"the precision is 'highest', 'high' or 'medium', not {precision!r}")


def get_float32_matmul_precision() -> str:
    """`"highest"`."""
    return "highest"


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Accepts both: the same program always gives the same bits."""


def are_deterministic_algorithms_enabled() -> bool:
    """True."""
    return True


def set_default_device(device: Any) -> None:
    """Accepts the processor, on which everything is.

    Raises:
        RuntimeError: another device is asked for.
    """
    device_of(device)


def get_default_device() -> Device:
    """The processor."""
    return device_of(None)


def typename(obj: Any) -> str:
    """The name of the type of an object, of a tensor `treadle.FloatTensor` and the like."""
    return str(obj.type()) if hasattr(obj, "_node") else type(obj).__qualname__
