"""Padding as layers."""

from __future__ import annotations

from typing import Any

from treadle.nn import functional as F
from treadle.nn.functional.common import repeated
from treadle.nn.module import Module


class _Pad(Module):
    """Elements added at the ends of the last axes.

    Args:
        padding: one number, or `(before, after)` of the last axis, then of the last but one, ...
    """

    rank: int
    mode: str

    def __init__(self, padding: Any) -> None:
        super().__init__()
        self.padding = repeated(padding, 2 * self.rank, "padding")

    def forward(self, input: Any) -> Any:
        """The padded input."""
        return F.pad(input, self.padding, self.mode)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return str(self.padding)


class _ConstantPad(_Pad):
    """A value added at the ends of the last axes."""

    mode = "constant"

    def __init__(self, padding: Any, value: float) -> None:
        super().__init__(padding)
        self.value = value

    def forward(self, input: Any) -> Any:
        """The padded input."""
        return F.pad(input, self.padding, self.mode, self.value)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return f"padding={self.padding}, value={self.value}"


class _ZeroPad(_ConstantPad):
    """Zeros added at the ends of the last axes."""

    def __init__(self, padding: Any) -> None:
        super().__init__(padding, 0.0)

    def extra_repr(self) -> str:
        """The arguments of the layer."""
        return str(self.padding)


def _layer(base: type[_Pad], rank: int, name: str, mode: str, doc: str) -> type[_Pad]:
    members = {"rank": rank, "mode": mode, "__doc__": doc, "__module__": __name__}
    return type(f"{name}{rank}d", (base,), members)


def _layers(base: type[_Pad], name: str, mode: str, what: str) -> tuple[type[_Pad], ...]:
    axes = ("last axis", "last two axes", "last three axes")
    return tuple(
        _layer(base, rank, name, mode, f"{what} at both ends of the {axes[rank - 1]}.")
        for rank in (1, 2, 3)
    )


ConstantPad1d, ConstantPad2d, ConstantPad3d = _layers(
    _ConstantPad, "ConstantPad", "constant", "Adds a value"
)
ZeroPad1d, ZeroPad2d, ZeroPad3d = _layers(_ZeroPad, "ZeroPad", "constant", "Adds zeros")
ReflectionPad1d, ReflectionPad2d, ReflectionPad3d = _layers(
    _Pad, "ReflectionPad", "reflect", "Mirrors the elements"
)
ReplicationPad1d, ReplicationPad2d, ReplicationPad3d = _layers(
    _Pad, "ReplicationPad", "replicate", "Repeats the outermost elements"
)
CircularPad1d, CircularPad2d, CircularPad3d = _layers(
    _Pad, "CircularPad", "circular", "Adds the elements of the other end"
)
