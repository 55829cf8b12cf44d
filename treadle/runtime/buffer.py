"""A buffer: some bytes of host memory, and what keeps them alive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Final

from treadle.base.device import CPU, Device
from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.base.shape import count
from treadle.runtime.allocator import SizeClass, host

_numpy = LazyModule("numpy")
_by_request = host.by_request


class Buffer:
    """Bytes at a fixed address, returned to the allocator when the last reference is gone.

    Attributes:
        address: where they are; a multiple of 64 unless the memory was adopted.
        nbytes: how many were asked for.
        owner: the object that owns adopted memory, else `None`.
    """

    __slots__ = ("_home", "address", "nbytes", "owner")
    device: ClassVar[Device] = CPU

    def __init__(
        self, address: int, nbytes: int, owner: object = None, home: SizeClass | None = None
    ) -> None:
        self.address: Final = address
        self.nbytes: Final = nbytes
        self.owner: Final = owner
        self._home: Final = home

    def __del__(self) -> None:
        home = self._home
        if home is not None:
            home.free.append(self.address)
            home.counters.used -= home.size

    def __repr__(self) -> str:
        adopted = "" if self.owner is None else f", owner={type(self.owner).__name__}"
        return f"Buffer({self.nbytes:,} bytes at {self.address:#x}{adopted})"

    @classmethod
    def adopt(cls, owner: object, address: int, nbytes: int) -> Buffer:
        """A buffer over memory that `owner` keeps valid; nothing is copied or freed."""
        return cls(address, nbytes, owner)

    def view(
        self,
        dtype: DType,
        shape: Sequence[int],
        *,
        strides: Sequence[int] | None = None,
        offset: int = 0,
        writable: bool = False,
    ) -> Any:
        """A NumPy array over these bytes, without a copy; it keeps the buffer alive.

        Args:
            dtype: element type.
            shape: extents.
            strides: in elements; row-major where left out.
            offset: of the first element, in bytes.
            writable: whether the array may be written to.

        Raises:
            ValueError: the array would reach outside of the buffer.

        Example:
            >>> from treadle.base.dtype import float32
            >>> empty(64).view(float32, (4, 4), writable=True).fill(1.0)
        """
        low, high = byte_range(dtype.itemsize, shape, strides, offset)
        if low < 0 or high > self.nbytes:
            raise ValueError(
                f"an array of shape {tuple(shape)} at byte {offset} reaches over bytes "
                f"{low}..{high} of a buffer of {self.nbytes:,} bytes"
            )
        array = _numpy.asarray(_Bytes(self, self.address + offset, dtype, shape, strides, writable))
        return array.view(dtype.numpy)


def empty(nbytes: int) -> Buffer:
    """A buffer of `nbytes` bytes with any content, at a multiple of 64.

    Raises:
        MemoryError: the system gives no more.
    """
    home = _by_request.get(nbytes) or host.class_of(nbytes)
    try:
        address = home.free.pop()
    except IndexError:
        address = host.grow(home)
    # No other thread gets to run within these updates: CPython switches at calls and jumps.
    counters = home.counters
    counters.used = used = counters.used + home.size
    if used > counters.peak:
        counters.peak = used
    return Buffer(address, nbytes, None, home)


def memory_stats() -> dict[str, int]:
    """Host memory in bytes: `allocated` to live buffers, `reserved` from the system, `cached` for
    reuse, `peak` of `allocated`; and the `count` of live buffers."""
    return host.stats()


def empty_cache() -> None:
    """Gives memory that no buffer uses back to the system."""
    host.empty_cache()


def reset_peak() -> None:
    """Lets `peak` of `memory_stats` start again from what is in use now."""
    host.reset_peak()


class _Bytes:
    """What NumPy's array keeps as its base: the buffer, described by NumPy's array interface."""

    __slots__ = ("__array_interface__", "buffer")

    def __init__(
        self,
        buffer: Buffer,
        address: int,
        dtype: DType,
        shape: Sequence[int],
        strides: Sequence[int] | None,
        writable: bool,
    ) -> None:
        size = dtype.itemsize
        self.buffer: Final = buffer
        # As raw bytes ("V"): the interface has no name for bfloat16.
        self.__array_interface__: Final = {
            "version": 3,
            "typestr": f"|V{size}",
            "shape": tuple(shape),
            "strides": None if strides is None else tuple(s * size for s in strides),
            "data": (address, not writable),
        }


def byte_range(
    itemsize: int, shape: Sequence[int], strides: Sequence[int] | None, offset: int
) -> tuple[int, int]:
    """The first byte that a strided array touches, and the one after the last."""
    if 0 in shape:
        return offset, offset
    if strides is None:
        return offset, offset + count(shape) * itemsize
    ends = [(extent - 1) * stride for extent, stride in zip(shape, strides, strict=True)]
    low = sum(e for e in ends if e < 0)
    high = sum(e for e in ends if e > 0)
    return offset + low * itemsize, offset + (high + 1) * itemsize
