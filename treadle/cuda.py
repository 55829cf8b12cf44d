"""What programs ask about CUDA devices. This version of treadle computes on the CPU only."""

from __future__ import annotations


def is_available() -> bool:
    """Whether tensors can live on a CUDA device: no."""
    return False


def device_count() -> int:
    """The number of CUDA devices that treadle computes on."""
    return 0
