"""Custom functions: a forward and a backward of one's own as one step of autograd."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Final
from weakref import ref

from treadle.base.errors import GradientError
from treadle.graph.capture import DERIVED, LEAF
from treadle.ops.source import FULL
from treadle.ops.view import EXPAND, RESULT
from treadle.tensor.grad_mode import grad_enabled, no_grad
from treadle.tensor.promote import as_dtype
from treadle.tensor.record import Lazy, concrete, position, record, recorder


class FunctionCtx:
    """What the forward of a `Function` hands to its backward.

    Any attribute may be set on it; tensors belong into `save_for_backward`.
    """

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._saved: tuple[Any, ...] | None = ()
        self._not_differentiable: tuple[Any, ...] = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Any) -> None:
        """Keeps tensors (or `None`) for the backward."""
        self._saved = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        """What was saved.

        Raises:
            GradientError: a backward pass has freed it.
        """
        if self._saved is None:
            raise GradientError(
                "Trying to backward through the graph a second time: what a Function saved was "
                "freed by the first; hint: pass retain_graph=True to the first backward()"
            )
        return self._saved

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Says which outputs take no gradient."""
        self._not_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether a missing gradient of an output is given as zeros (default) or as `None`."""
        self._materialize = value


class _Call:
    """One application of a Function, as the walk of the backward pass sees it.

    `outputs` are the positions of its results and `inputs` those of its arguments, `None` for what
    takes no gradient or is no tensor; `first` is the result that the others hang on.
    """

    def __init__(
        self, function: type[Function], ctx: FunctionCtx, arguments: Sequence[Any]
    ) -> None:
        self.name = f"{function.__name__}Backward"
        self.first = -1
        self.outputs: list[int | None] = []
        self.inputs: list[int | None] = []
        self._types: list[tuple[tuple[int, ...], Any]] = []
        self._function = function
        self._ctx = ctx
        self._arguments = [
            (tuple(a._node.shape), a._node.dtype) if isinstance(a, Lazy) else None
            for a in arguments
        ]

    def result(self, t: Any) -> None:
        """Notes one more output."""
        self.outputs.append(t._pos if t._needs else None)
        if self.first < 0 and t._needs:
            self.first = t._pos
        self._types.append((tuple(t._node.shape), t._node.dtype))

    def free(self) -> None:
        """Gives up what was saved."""
        self._ctx._saved = None

    def backward(self, gradients: list[Any]) -> list[Any]:
        """The gradients of the arguments, given those of the outputs."""
        if self._ctx._materialize:
            gradients = [
                record(FULL, (), (shape, 0, dtype)) if g is None else g
                for g, (shape, dtype) in zip(gradients, self._types, strict=True)
            ]
        given = self._function.backward(self._ctx, *gradients)
        found = list(given) if isinstance(given, (tuple, list)) else [given]
        while len(found) > len(self._arguments) and found[-1] is None:
            found.pop()
        if len(found) != len(self._arguments):
            raise GradientError(
                f"function {self.name} returned an incorrect number of gradients (expected "
                f"{len(self._arguments)}, got {len(found)})"
            )
        return [self._fitted(g, i) for i, g in enumerate(found)]

    def _fitted(self, g: Any, i: int) -> Any:
        expected = self._arguments[i]
        if g is None or expected is None:
            return None
        shape, dtype = expected
        if not isinstance(g, Lazy):
            raise GradientError(
                f"function {self.name} returned a {type(g).__name__} as gradient {i}, not a tensor"
            )
        if tuple(g._node.shape) != shape:
            if len(g._node.shape) > len(shape):
                raise GradientError(
                    f"function {self.name} returned an invalid gradient at index {i} - got "
                    f"{list(g._node.shape)} but expected shape compatible with {list(shape)}"
                )
            g = record(EXPAND, (g,), (shape,))
        return as_dtype(g, dtype)


class Function:
    """A differentiable operation of one's own.

    A subclass has a static `forward(ctx, *args)`, which computes a tensor or a tuple of them with
    gradients off, and a static `backward(ctx, *grads)`, which takes the gradient of each output and
    gives that of each argument, `None` for what has none. Instead of taking `ctx`, `forward` may be
    followed by a static `setup_context(ctx, inputs, output)`. It is used by `apply`.

    Example:
        >>> import treadle
        >>> class Square(treadle.autograd.Function):
        ...     @staticmethod
        ...     def forward(ctx, x):
        ...         ctx.save_for_backward(x)
        ...         return x * x
        ...     @staticmethod
        ...     def backward(ctx, g):
        ...         (x,) = ctx.saved_tensors
        ...         return 2 * x * g
        >>> x = treadle.tensor(3.0, requires_grad=True)
        >>> Square.apply(x).backward()
        >>> x.grad
        tensor(6.)
    """

    setup_context: Callable[..., None] | None = None

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Computes the outputs; subclasses say how."""
        raise NotImplementedError("a Function needs a static forward(ctx, *args)")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Computes the gradients of the arguments; subclasses say how."""
        raise NotImplementedError("a Function needs a static backward(ctx, *grads)")

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """The outputs of `forward`, which `backward` differentiates."""
        ctx = FunctionCtx(tuple(isinstance(a, Lazy) and bool(a._needs) for a in args))
        with no_grad():
            if cls.setup_context is None:
                given = cls.forward(ctx, *args, **kwargs)
            else:
                given = cls.forward(*args, **kwargs)
                cls.setup_context(ctx, args, given)
        if not grad_enabled() or not any(ctx.needs_input_grad):
            return given
        many = isinstance(given, (tuple, list))
        outputs = _recorded(cls, ctx, args, list(given) if many else [given])
        return tuple(outputs) if many else outputs[0]


def _recorded(
    function: type[Function], ctx: FunctionCtx, args: tuple[Any, ...], outputs: list[Any]
) -> list[Any]:
    """The outputs as values that the arguments lead to, and the call noted in the trace."""
    call = _Call(function, ctx, args)
    state = recorder()
    constant = {id(t) for t in ctx._not_differentiable}
    lead: list[Any] = [a for a in args if isinstance(a, Lazy)]
    results: list[Any] = []
    limit, state.limit = state.limit, _NEVER
    try:
        for out in outputs:
            t = out
            if isinstance(out, Lazy):
                if out._node.dtype.kind == "f" and id(out) not in constant:
                    t = record(RESULT, (out, *lead), (), DERIVED)
                    # The others hang on the first: whatever reaches one of them reaches it.
                    lead = [t] if call.first < 0 else lead
                call.result(t)
            results.append(t)
        trace = state.trace
        call.inputs = [position(trace, a) if isinstance(a, Lazy) else None for a in args]
    finally:
        state.limit = limit
    trace.functions.update((pos, call) for pos in call.outputs if pos is not None)
    made = {id(out): t for out, t in zip(outputs, results, strict=True)}
    ctx._saved = tuple(_snapshot(made.get(id(t), t)) for t in ctx.saved_tensors)
    return results


_NEVER: Final = 2**62


def _snapshot(t: Any) -> Any:
    """The same value in a tensor that later writes do not reach; a leaf stays itself."""
    if t is None or t._needs == LEAF:
        return t
    if t._base is not None:
        position(recorder().trace, t)
    copy = concrete(t._buffer, t._node, t._needs)
    copy._trace, copy._pos = t._trace, t._pos
    if t._buffer is None:
        t._trace.handles.append(ref(copy))
    return copy


def once_differentiable(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Says of a `backward` that it cannot be differentiated itself.

    It runs with gradients off, and a second differentiation through it raises `GradientError`.
    """

    @functools.wraps(backward)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        with no_grad():
            given = backward(ctx, *grads)
        if not grad_enabled():
            return given
        many = isinstance(given, (tuple, list))
        sources = [g for g in grads if isinstance(g, Lazy)]
        sources += [t for t in ctx.saved_tensors if isinstance(t, Lazy)]
        fenced = [_Fence.apply(g, *sources) for g in (given if many else [given])]
        return tuple(fenced) if many else fenced[0]

    return wrapped


class _Fence(Function):
    """A value that must not be differentiated."""

    @staticmethod
    def forward(ctx: Any, value: Any, *sources: Any) -> Any:
        return value

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise GradientError(
            "trying to differentiate twice a function that was marked with @once_differentiable"
        )
