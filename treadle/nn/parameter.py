"""Parameters: the tensors that a module owns and an optimiser changes."""

from __future__ import annotations

from typing import Any

from treadle.tensor import Tensor, zeros
from treadle.tensor.inplace import hold_again


def _taken_over(cls: type, data: Any) -> Any:
    """A tensor of a class that holds the value of another, without its history."""
    value = data if data._buffer is not None and data._base is None else data.detach()
    self: Any = object.__new__(cls)
    self._trace = None if value._buffer is not None else value._trace
    self._pos, self._node, self._buffer = value._pos, value._node, value._buffer
    self._needs = self._version = 0
    self._base = self._grad = self._extra = None
    hold_again(self)
    return self


class Parameter(Tensor):
    """A tensor that becomes a parameter of the module that it is assigned to.

    Args:
        data: its value.
        requires_grad: whether gradients are collected at it.

    Example:
        >>> import treadle
        >>> treadle.nn.Parameter(treadle.ones(2)).requires_grad
        True
    """

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Parameter:
        """A parameter that holds the value of a tensor."""
        self: Parameter = _taken_over(cls, zeros(0) if data is None else data)
        if requires_grad:
            self.requires_grad_()
        return self

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        out = type(self)(self.detach().clone(), self.requires_grad)
        memo[id(self)] = out
        return out

    def __reduce_ex__(self, protocol: Any) -> Any:
        return type(self), (self.detach().clone(), self.requires_grad)


class Buffer(Tensor):
    """A tensor that becomes a buffer of the module that it is assigned to.

    Args:
        data: its value.
        persistent: whether it is part of the module's `state_dict`.
    """

    persistent: bool

    def __new__(cls, data: Any = None, *, persistent: bool = True) -> Buffer:
        """A buffer that holds the value of a tensor."""
        self: Buffer = _taken_over(cls, zeros(0) if data is None else data)
        self.persistent = persistent
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Buffer:
        out = type(self)(self.detach().clone(), persistent=self.persistent)
        memo[id(self)] = out
        return out

    def __reduce_ex__(self, protocol: Any) -> Any:
        return _rebuild_buffer, (self.detach().clone(), self.persistent)


def _rebuild_buffer(data: Any, persistent: bool) -> Buffer:
    """A buffer out of a pickle."""
    return Buffer(data, persistent=persistent)
