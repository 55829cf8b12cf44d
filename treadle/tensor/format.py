"""How tensors print."""

from __future__ import annotations

from typing import Any

from treadle.base.lazy import LazyModule

np = LazyModule("numpy")


def format_tensor(t: Any) -> str:
    """A tensor as text."""
    return f"tensor({np.array2string(np.asarray(t._array()), separator=', ', prefix='tensor(')})"
