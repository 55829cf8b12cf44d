"""The shape of a tensor, as users see it."""

from __future__ import annotations

from treadle.base.shape import count


class Size(tuple[int, ...]):
    """A tuple of extents that prints as PyTorch's does and counts its elements."""

    __slots__ = ()

    def numel(self) -> int:
        """The number of elements."""
        return count(self)

    def __repr__(self) -> str:
        return f"treadle.Size([{', '.join(map(str, self))}])"
