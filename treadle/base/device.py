"""The names of devices. What a device can do lives in `runtime/device/`."""

from __future__ import annotations

from typing import Final


class Device:
    """A kind of device and its number: `cpu`, `cuda:0`, `null`."""

    __slots__ = ("index", "type")

    def __init__(self, type: str, index: int | None = None) -> None:
        if ":" in type:
            type, _, number = type.partition(":")
            index = int(number)
        if type not in _TYPES:
            raise ValueError(f"unknown device {type!r}: treadle knows {', '.join(_TYPES)}")
        self.type: Final = type
        self.index: Final = index

    def __repr__(self) -> str:
        shown = f", index={self.index}" if self.index is not None else ""
        return f"device(type={self.type!r}{shown})"

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str):
            return str(self) == other
        return isinstance(other, Device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))


_TYPES: Final = ("cpu",)
CPU: Final = Device("cpu")


def device_of(value: Device | str | None) -> Device:
    """A `Device` from a name, a device or `None` (the default, `cpu`)."""
    if value is None:
        return CPU
    return value if isinstance(value, Device) else Device(value)
