"""Tensors as windows on flat storages, the way PyTorch's format describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from treadle.base.dtype import DType
from treadle.base.lazy import LazyModule
from treadle.base.shape import count, strides
from treadle.tensor import Tensor, broadcast_to, from_numpy, permute, reshape

_numpy = LazyModule("numpy")


class Window(NamedTuple):
    """Where the elements of a tensor lie in a storage; counts and strides are in elements."""

    key: str
    dtype: DType
    total: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def fault(self) -> str | None:
        """What is wrong with the window, or `None`."""
        numbers = (self.offset, *self.shape, *self.strides)
        if any(type(n) is not int or not 0 <= n < 2**63 for n in numbers):
            return "its offset, shape and strides are not all non-negative integers"
        if len(self.shape) != len(self.strides):
            return f"its shape {self.shape} and its strides {self.strides} differ in length"
        if len(self.shape) > _RANK:
            return f"it has {len(self.shape)} dimensions, more than {_RANK}"
        if count(self.shape) >= 2**63:
            return f"its shape {self.shape} has more elements than can be counted"
        if 0 in self.shape:
            return None
        last = self.offset + sum((n - 1) * s for n, s in self._axes())
        if last >= self.total:
            return f"it reaches element {last:,} of a storage of {self.total:,}"
        if distinct(self.shape, self.strides) > self.total:
            return "its elements overlap in memory; save a contiguous copy of it"
        return None

    def _axes(self) -> list[tuple[int, int]]:
        return list(zip(self.shape, self.strides, strict=True))

    @property
    def is_packed(self) -> bool:
        """Whether the elements lie without gaps in row-major order."""
        return 0 in self.shape or all(
            n == 1 or s == t
            for n, s, t in zip(self.shape, self.strides, strides(self.shape), strict=True)
        )

    @property
    def is_whole(self) -> bool:
        """Whether the elements are those of the storage, in order."""
        return self.is_packed and count(self.shape) == self.total

    def view(self, root: Tensor) -> Tensor | None:
        """The view of `root`, which holds the storage, that this window is.

        `None` where no chain of slices, reshapes and permutations leads to it.
        """
        if self.is_whole and tuple(root.shape) == self.shape:
            return root.detach()
        flat = reshape(root.detach(), self.total)
        if self.is_packed:
            start = min(self.offset, self.total)
            return reshape(flat[start : start + count(self.shape)], self.shape)
        lead = self._axis_order()
        found = self._rows(flat, [self._axes()[axis] for axis in lead])
        if found is None:
            return None
        found = permute(found, [lead.index(axis) for axis in sorted(lead)])
        return self._spread(found)

    def copy(self, array: Any) -> Tensor:
        """The elements of the window, read from the storage `array` and packed."""
        steps = [s * array.itemsize for s in self.strides]
        core = [n if s else 1 for n, s in self._axes()]
        found = _numpy.lib.stride_tricks.as_strided(array[self.offset :], core, steps)
        return self._spread(from_numpy(_numpy.ascontiguousarray(found)))

    def _axis_order(self) -> list[int]:
        """The axes that move through the storage, the widest step first."""
        moving = [axis for axis, (n, s) in enumerate(self._axes()) if n > 1 and s > 0]
        return sorted(moving, key=lambda axis: -self.strides[axis])

    def _rows(self, found: Tensor, axes: list[tuple[int, int]]) -> Tensor | None:
        """Splits the storage into rows, each row into shorter rows, and so on to one element."""
        extent, offset = self.total, self.offset
        lead: list[int] = []
        for n, stride in axes:
            start = min(offset, extent - n * stride)
            if start < 0:
                return None
            found = reshape(found[..., start : start + n * stride], (*lead, n, stride))
            lead.append(n)
            extent, offset = stride, offset - start
        if offset >= extent:
            return None
        return reshape(found[..., offset : offset + 1], lead)

    def _spread(self, core: Tensor) -> Tensor:
        """Puts back the axes of one element and the broadcast ones."""
        shape = [n if s else 1 for n, s in self._axes()]
        core = reshape(core, shape)
        return core if tuple(shape) == self.shape else broadcast_to(core, self.shape)


_RANK: Final = 64


def distinct(shape: Sequence[int], steps: Sequence[int]) -> int:
    """The number of elements, where a broadcast dimension (stride 0) counts once."""
    return count([min(n, 1) if s == 0 else n for n, s in zip(shape, steps, strict=True)])
