"""In-place operations: a tensor, and every alias of it, takes another value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from weakref import ref

from treadle.base import dtype as dt
from treadle.base.errors import DTypeError, GradientError, ShapeError
from treadle.graph.capture import LEAF
from treadle.ops import view as ops
from treadle.ops.source import FULL, IOTA
from treadle.ops.table import Op
from treadle.tensor import arithmetic as ar
from treadle.tensor import random
from treadle.tensor.movement import expand
from treadle.tensor.promote import as_dtype
from treadle.tensor.record import Lazy, position, rebind, record, recorder, refresh


def hold_again(t: Any) -> None:
    """Notes that a tensor holds another value of its trace."""
    if t._trace is not None:
        t._trace.handles.append(ref(t))


def write(t: Any, value: Any) -> Any:
    """Gives a tensor, its base and thereby all views of that a new value; returns the tensor.

    Raises:
        GradientError: the tensor is a leaf that requires grad, and gradients are recorded.
        ShapeError, DTypeError: the value does not fit.
    """
    base = t._base if t._base is not None else t
    if recorder().grad and (t._needs == LEAF or base._needs == LEAF):
        raise GradientError(
            "a leaf Variable that requires grad is being used in an in-place operation; hint: "
            "do it under treadle.no_grad()"
        )
    if tuple(value._node.shape) != tuple(t._node.shape):
        raise ShapeError(
            f"output with shape {list(t._node.shape)} doesn't match the broadcast shape "
            f"{list(value._node.shape)}"
        )
    fitted = _in_dtype(t, value)
    if t._base is None:
        rebind(t, fitted)
        return t
    position(recorder().trace, t)
    rebind(base, _through_views(base, t._steps, fitted))
    refresh(t)
    t._version += 1
    return t


def _in_dtype(t: Any, value: Any) -> Any:
    target, source = t._node.dtype, value._node.dtype
    order = "buif"
    if target is not source and order.index(source.kind) > max(order.index(target.kind), 2 * (
        target.kind == "u")):  # fmt: skip
        raise DTypeError(
            f"result type {source.name} can't be cast to the desired output type {target.name}"
        )
    return as_dtype(value, target)


def _through_views(base: Any, steps: tuple[tuple[Op, tuple[Any, ...]], ...], value: Any) -> Any:
    """The base with the part that the views lead to replaced by a value."""
    values = [base]
    for op, attrs in steps[:-1]:
        values.append(record(op, (values[-1],), attrs))
    for whole, (op, attrs) in zip(reversed(values), reversed(steps), strict=True):
        value = _undo(op, attrs, whole, value)
    return value


def _undo(op: Op, attrs: tuple[Any, ...], whole: Any, part: Any) -> Any:
    shape = tuple(whole._node.shape)
    if op is ops.ALIAS:
        return part
    if op is ops.RESHAPE:
        return record(ops.RESHAPE, (part,), (shape,))
    if op is ops.PERMUTE:
        return record(ops.PERMUTE, (part,), (ops.inverse(attrs[0]),))
    if op is ops.FLIP:
        return record(ops.FLIP, (part,), attrs)
    if op is ops.SLICE:
        starts, _, steps = attrs
        laid = record(ops.UNSLICE, (part,), (shape, starts, steps))
        inside = _inside(shape, starts, steps, tuple(part._node.shape))
        return laid if inside is None else ar.where(inside, laid, whole)
    raise ShapeError(
        f"unsupported operation: more than one element of the written-to tensor refers to a single "
        f"memory location ({op.name}); hint: clone() the tensor before writing to it"
    )


def _inside(
    shape: tuple[int, ...], starts: tuple[int, ...], steps: tuple[int, ...], part: tuple[int, ...]
) -> Any:
    """Which elements a slice covers; `None` where it covers all."""
    found: Any = None
    for axis, (n, start, step, k) in enumerate(zip(shape, starts, steps, part, strict=True)):
        if k == n and step == 1:
            continue
        i: Any = record(IOTA, (), (shape, axis, _INT64))
        test = ar.logical_and(ar.ge(i, start), ar.lt(i, start + k * step))
        if step > 1:
            test = ar.logical_and(test, ar.eq(ar.remainder(ar.sub(i, start), step), 0))
        found = test if found is None else ar.logical_and(found, test)
    return found


_INT64 = dt.int64


def replace(t: Any, value: Any) -> None:
    """`t.data = value`: other memory, and perhaps another shape, for the same tensor."""
    source = value.detach()
    position(recorder().trace, source)
    needs = t._needs
    t._base = None
    t._needs = 0
    rebind(t, source)
    if needs == LEAF:
        t.requires_grad_()


def copy_(self: Any, source: Any, non_blocking: bool = False) -> Any:
    """The elements of another tensor, broadcast and converted."""
    value = source if isinstance(source, Lazy) else as_dtype(source, self._node.dtype)
    fitted = as_dtype(value, self._node.dtype)
    return write(self, expand(fitted, self._node.shape))


def fill_(self: Any, value: Any) -> Any:
    """One value everywhere."""
    return copy_(self, value)


def zero_(self: Any) -> Any:
    """Zeros everywhere."""
    return write(self, record(FULL, (), (tuple(self._node.shape), 0, self._node.dtype)))


def uniform_(self: Any, a: float = 0.0, b: float = 1.0, *, generator: Any = None) -> Any:
    """Uniform random numbers on [a, b)."""
    u = random.rand(*self._node.shape, generator=generator, dtype=self._node.dtype)
    return write(self, ar.add(ar.mul(u, b - a), a))


def normal_(self: Any, mean: float = 0.0, std: float = 1.0, *, generator: Any = None) -> Any:
    """Normal random numbers."""
    z = random.randn(*self._node.shape, generator=generator, dtype=self._node.dtype)
    return write(self, ar.add(ar.mul(z, std), mean))


def bernoulli_(self: Any, p: float = 0.5, *, generator: Any = None) -> Any:
    """1 with probability p, else 0."""
    u = random.rand(*self._node.shape, generator=generator)
    return write(self, as_dtype(ar.lt(u, p), self._node.dtype))


def masked_fill(input: Any, mask: Any, value: Any) -> Any:
    """The value where the mask is true."""
    return ar.where(mask, as_dtype(value, input._node.dtype), input)


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        return write(self, function(self, *args, **kwargs))

    method.__name__ = f"{function.__name__}_"
    method.__doc__ = f"In place: {function.__doc__}"
    return method


def _operator(function: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        return write(self, function(self, other))

    method.__doc__ = f"In place: {function.__doc__}"
    return method


def methods() -> dict[str, Callable[..., Any]]:
    """The in-place methods of a tensor by name."""
    named = (
        "add sub mul div floor_divide remainder pow clamp lerp addcmul addcdiv exp log sqrt rsqrt "
        "reciprocal sin cos tanh sigmoid floor ceil round trunc neg abs sign square relu"
    )
    out = {f"{name}_": _in_place(getattr(ar, name)) for name in named.split()}
    for symbol, name in (
        ("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "div"),
        ("floordiv", "floor_divide"), ("mod", "remainder"), ("pow", "pow"),
        ("and", "bitwise_and"), ("or", "bitwise_or"), ("xor", "bitwise_xor"),
    ):  # fmt: skip
        out[f"__i{symbol}__"] = _operator(getattr(ar, name))
    direct = (copy_, fill_, zero_, uniform_, normal_, bernoulli_, masked_fill)
    out.update({f.__name__: f for f in direct})
    out["masked_fill_"] = _in_place(masked_fill)
    return out
