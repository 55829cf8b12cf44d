"""In-place operations: a tensor, and every alias of it, takes another value."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final
from weakref import ref

from treadle.base import dtype as dt
from treadle.base.errors import DTypeError, GradientError, ShapeError
from treadle.graph.capture import DERIVED, LEAF
from treadle.ops import view as ops
from treadle.ops.pointwise import BITCAST
from treadle.ops.source import FULL, IOTA
from treadle.ops.table import Op
from treadle.tensor import arithmetic as ar
from treadle.tensor import creation, elementary, gathering, indexing, random, statistics
from treadle.tensor.arrange import diagonal
from treadle.tensor.function import Function
from treadle.tensor.grad_mode import enable_grad
from treadle.tensor.movement import expand
from treadle.tensor.promote import as_dtype
from treadle.tensor.record import (
    DETACHED,
    Lazy,
    position,
    rebind,
    record,
    recorder,
    refresh,
)


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
    base = t if t._base is None else t._base
    quiet = not recorder().grad or (base is not t and any(s is DETACHED for s in t._steps))
    if not quiet and (t._needs == LEAF or base._needs == LEAF):
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
    if base is not t:
        position(recorder().trace, t)
        fitted = _through_views(base, t._steps, fitted)
    if quiet and base._needs == DERIVED:
        with enable_grad():
            fitted = _Unseen.apply(base, fitted.detach())
    elif base._needs == DERIVED and not fitted._needs:
        fitted = _Overwritten.apply(base, fitted)
    rebind(base, fitted)
    if base is not t:
        refresh(t)
        t._version += 1
    return t


class _Unseen(Function):
    """A write that autograd is not told of: the value is new, its history that of the old one."""

    @staticmethod
    def forward(ctx: Any, old: Any, new: Any) -> Any:
        return new

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return grads[0], None


class _Overwritten(Function):
    """A write of constants over all of a tensor: it still has a history, and hands zeros on."""

    @staticmethod
    def forward(ctx: Any, old: Any, new: Any) -> Any:
        return new

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return creation.zeros_like(grads[0]), None


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
    if op is BITCAST:
        return record(BITCAST, (part,), (whole._node.dtype,))
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


def exponential_(self: Any, lambd: float = 1.0, *, generator: Any = None) -> Any:
    """Exponential random numbers of rate `lambd`."""
    u = random.rand(*self._node.shape, generator=generator, dtype=self._node.dtype)
    return write(self, ar.div(ar.neg(ar.log1p(ar.neg(u))), lambd))


def log_normal_(self: Any, mean: float = 1.0, std: float = 2.0, *, generator: Any = None) -> Any:
    """Random numbers whose logarithms are normal."""
    z = random.randn(*self._node.shape, generator=generator, dtype=self._node.dtype)
    return write(self, ar.exp(ar.add(ar.mul(z, std), mean)))


def geometric_(self: Any, p: float, *, generator: Any = None) -> Any:
    """How many trials of probability `p` it takes to succeed."""
    u = random.rand(*self._node.shape, generator=generator, dtype=dt.float64)
    trials = ar.ceil(ar.div(ar.log1p(ar.neg(u)), math.log1p(-p)))
    return write(self, as_dtype(ar.clamp(trials, min=1), self._node.dtype))


def cauchy_(self: Any, median: float = 0.0, sigma: float = 1.0, *, generator: Any = None) -> Any:
    """Cauchy random numbers."""
    u = random.rand(*self._node.shape, generator=generator, dtype=self._node.dtype)
    return write(self, ar.add(ar.mul(ar.tan(ar.mul(ar.sub(u, 0.5), math.pi)), sigma), median))


def random_(self: Any, low: int = 0, high: int | None = None, *, generator: Any = None) -> Any:
    """Whole random numbers from `low` up to but without `high`; one argument is `high`."""
    if high is None and low:
        low, high = 0, low
    dtype = self._node.dtype
    most = {"f": 2**24}.get(dtype.kind, 2 ** min(dtype.bits - (dtype.kind != "u"), 32))
    out = random.randint(low, most if high is None else high, self._node.shape,
                         generator=generator)  # fmt: skip
    return write(self, as_dtype(out, dtype))


def fill_diagonal_(self: Any, fill_value: float) -> Any:
    """One value on the diagonal of a matrix."""
    fill_(diagonal(self), fill_value)
    return self


def index_put_(self: Any, indices: Any, values: Any, accumulate: bool = False) -> Any:
    """`self[indices] = values`, or `+=` where repeated positions add up."""
    indexing.setitem(self, tuple(slice(None) if i is None else i for i in indices), values,
                     accumulate)  # fmt: skip
    return self


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


_IN_PLACE: Final = {
    ar: "add sub mul div floor_divide remainder fmod pow clamp lerp addcmul addcdiv exp exp2 expm1 "
    "log log2 log10 log1p sqrt rsqrt reciprocal sin cos tan tanh sigmoid erf floor ceil round "
    "trunc neg abs sign square relu eq ne lt le gt ge logical_and logical_or logical_xor "
    "logical_not bitwise_and bitwise_or bitwise_xor bitwise_not",
    elementary: "sinh cosh asin acos atan asinh acosh atanh erfc erfinv lgamma digamma frac hypot "
    "copysign xlogy clip clamp_min clamp_max absolute negative divide true_divide multiply "
    "subtract fix sgn greater greater_equal less less_equal not_equal",
    gathering: "scatter scatter_add scatter_reduce index_add index_copy index_fill "
    "masked_fill masked_scatter",
    statistics: "cumsum cumprod nan_to_num",
    creation: "tril triu",
}


def methods() -> dict[str, Callable[..., Any]]:
    """The in-place methods of a tensor by name."""
    out = {
        f"{name}_": _in_place(getattr(module, name))
        for module, names in _IN_PLACE.items()
        for name in names.split()
    }
    for symbol, name in (
        ("add", "add"), ("sub", "sub"), ("mul", "mul"), ("truediv", "div"),
        ("floordiv", "floor_divide"), ("mod", "remainder"), ("pow", "pow"),
        ("and", "bitwise_and"), ("or", "bitwise_or"), ("xor", "bitwise_xor"),
    ):  # fmt: skip
        out[f"__i{symbol}__"] = _operator(getattr(ar, name))
    direct = (
        copy_, fill_, zero_, uniform_, normal_, bernoulli_, exponential_, log_normal_, geometric_,
        cauchy_, random_, fill_diagonal_, index_put_,
    )  # fmt: skip
    out.update({f.__name__: f for f in direct})
    return out
