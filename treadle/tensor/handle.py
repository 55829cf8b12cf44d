"""What registering a hook gives back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class RemovableHandle:
    """Takes a hook away again."""

    def __init__(self, remove: Callable[[], Any]) -> None:
        self._remove: Callable[[], Any] | None = remove

    def remove(self) -> None:
        """Takes the hook away; a second call does nothing."""
        if self._remove is not None:
            self._remove()
        self._remove = None

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()
