"""The tables in which a module keeps its parameters, buffers and submodules."""

from __future__ import annotations

from typing import Any


class Registry(dict[str, Any]):
    """A table of named members of a module, each of which is an attribute of the module as well.

    Every write to the table is mirrored to the `__dict__` of its module, so that reading
    `module.weight` is a plain attribute access and costs no call of `__getattr__`.
    """

    __slots__ = ("home",)

    def __init__(self, home: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.home = {} if home is None else home

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        self.home[name] = value

    def __delitem__(self, name: str) -> None:
        super().__delitem__(name)
        self.home.pop(name, None)

    def pop(self, name: str, *default: Any) -> Any:
        """Takes a member out and returns it."""
        if name in self:
            value = self[name]
            del self[name]
            return value
        return super().pop(name, *default)

    def popitem(self) -> tuple[str, Any]:
        """Takes the last member out."""
        name = next(reversed(self))
        return name, self.pop(name)

    def clear(self) -> None:
        """Takes all members out."""
        for name in list(self):
            del self[name]

    def update(self, *others: Any, **named: Any) -> None:
        """Adds or replaces members."""
        for name, value in dict(*others, **named).items():
            self[name] = value

    def setdefault(self, name: str, default: Any = None) -> Any:
        """The member, which is added if there is none."""
        if name not in self:
            self[name] = default
        return self[name]

    def copy(self) -> dict[str, Any]:
        """The members as a plain table."""
        return dict(self)

    def __reduce__(self) -> Any:
        # A copy belongs to no module yet: `Module.__setstate__` gives it its home.
        return _rebuild, (dict(self),)


def _rebuild(members: dict[str, Any]) -> Registry:
    """A table out of a pickle."""
    out = Registry()
    out.update(members)
    return out
