"""Whether operations record their history: blocks and decorators that turn it off and on."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from typing import Any

from treadle.tensor.record import recorder


def grad_enabled() -> bool:
    """Whether operations of this thread record their history."""
    return recorder().grad


class _GradMode:
    """Sets the grad mode of this thread for a `with` block, a function or a generator."""

    mode: bool

    def __init__(self) -> None:
        self._stack: list[bool] = []

    def __enter__(self) -> None:
        state = recorder()
        self._stack.append(state.grad)
        state.grad = self.mode

    def __exit__(self, *_: object) -> None:
        recorder().grad = self._stack.pop()

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, run in this mode; a generator is in it only while it runs."""
        mode = self.mode
        if inspect.isgeneratorfunction(function):
            return _generator_in(mode, function)

        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            state = recorder()
            previous = state.grad
            state.grad = mode
            try:
                return function(*args, **kwargs)
            finally:
                recorder().grad = previous

        return wrapped


def _generator_in(mode: bool, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        resume, value = generator.send, None
        while True:
            previous = recorder().grad
            recorder().grad = mode
            try:
                item = resume(value)
            except StopIteration as stop:
                return stop.value
            finally:
                recorder().grad = previous
            try:
                resume, value = generator.send, (yield item)
            except GeneratorExit:
                generator.close()
                raise
            except BaseException as error:
                resume, value = generator.throw, error

    return wrapped


class _Plain(_GradMode):
    """A mode that may decorate a function without parentheses."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        if function is None:
            return self
        self.__init__()  # type: ignore[misc]
        return self(function)

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        super().__init__()


class no_grad(_Plain):
    """Operations in this block or function record no history.

    Example:
        >>> import treadle
        >>> x = treadle.ones(2, requires_grad=True)
        >>> with treadle.no_grad():
        ...     (x * 2).requires_grad
        False
    """

    mode = False


class enable_grad(_Plain):
    """Operations in this block or function record their history again."""

    mode = True


class inference_mode(_GradMode):
    """`no_grad()`, or nothing for `inference_mode(False)`.

    Args:
        mode: whether to record no history; a function may be given in its place.
    """

    def __new__(cls, mode: Any = True) -> Any:
        self = super().__new__(cls)
        if not callable(mode):
            return self
        self.__init__()  # type: ignore[misc]
        return self(mode)

    def __init__(self, mode: bool = True) -> None:
        super().__init__()
        self.mode = grad_enabled() and not mode


class set_grad_enabled(_GradMode):
    """Turns gradient recording on or off, at once or for a `with` block or function.

    Args:
        mode: whether operations record their history from now on.
    """

    def __init__(self, mode: bool) -> None:
        super().__init__()
        self.mode = mode
        self._before = recorder().grad
        recorder().grad = mode

    def __enter__(self) -> None:
        self._stack.append(self._before)
        recorder().grad = self.mode

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, run in this mode; the mode of now is as it was before."""
        recorder().grad = self._before
        return super().__call__(function)
