"""Simplification: equal nodes become one, and algebra that is exact in floating point.

Nothing here changes a bit of any result: `x + 0` stays (it turns -0 into +0), `x - 0` goes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from treadle.base import dtype as dt
from treadle.base.lazy import LazyModule
from treadle.base.symbolic import Real, Symbolic, fixed
from treadle.ir.node import Node, topological
from treadle.ops.gather import JOIN
from treadle.ops.pointwise import (
    ADD,
    AND,
    CAST,
    DIV,
    FLOORDIV,
    MAX,
    MIN,
    MOD,
    MUL,
    NEG,
    NOT,
    SHR,
    SUB,
    WHERE,
    cast,
)
from treadle.ops.reduce import combine_of, initial
from treadle.ops.source import FULL, full
from treadle.ops.table import make
from treadle.ops.view import (
    EXPAND,
    FLIP,
    PERMUTE,
    RESHAPE,
    SLICE,
    SPREAD,
    UNSLICE,
    expand,
    permute,
    reshape,
    unslice,
)

np = LazyModule("numpy")

Rule = Callable[[Node], Node | None]


def simplify(outputs: Sequence[Node]) -> list[Node]:
    """The same outputs from fewer nodes."""
    return rewrite(outputs, simpler)


def rewrite(outputs: Sequence[Node], rule: Rule) -> list[Node]:
    """Applies a rule to every node, inputs first, and merges equal nodes."""
    seen: dict[Any, Node] = {}
    new: dict[Node, Node] = {}
    for node in topological(outputs):
        inputs = tuple([new[i] for i in node.inputs])
        built = node.with_inputs(inputs) if inputs else node
        replacement = rule(built)
        while replacement is not None:
            built = replacement
            replacement = rule(built)
        new[node] = _unique(built, seen)
    return [new[o] for o in outputs]


def _unique(node: Node, seen: dict[Any, Node]) -> Node:
    """The first node seen that is equal to this one."""
    if node.op.kind == "input" or node.op.kind == "host":
        return node
    key = node_key(node)
    return seen.setdefault(key, node)


def node_key(node: Node) -> Any:
    """What makes two nodes equal: op, inputs and attributes."""
    if node.op is FULL:
        shape, value, dtype = node.attrs
        # 0.0 == -0.0 == False: the text tells them apart.
        return node.op, shape, repr(value), dtype
    return node.op, node.inputs, node.attrs


def simpler(node: Node) -> Node | None:
    """A simpler node of the same value, or `None`."""
    if node.op.compose is not None:
        return node.op.compose(node)
    rule = _RULES.get(node.op.name)
    found = _of_nothing(node) if any(0 in i.shape for i in node.inputs) else None
    if found is None and rule is not None:
        found = rule(node)
    if found is None and node.op.kind == "pointwise":
        found = _fold(node)
    if found is None and node.op.kind == "reduce":
        found = _trivial_reduce(node)
    return found if found is not node else None


def number(node: Node) -> Any:
    """The value of a constant node, else `None`; views of constants count."""
    while node.op is EXPAND or node.op is RESHAPE:
        node = node.inputs[0]
    return node.attrs[1] if node.op is FULL else None


def is_number(node: Node, value: float) -> bool:
    """Whether a node is this constant everywhere (with its sign, where it is zero)."""
    found = number(node)
    if found is None or found != value:
        return False
    return value != 0 or math.copysign(1, found) == math.copysign(1, value)


def _as(x: Node, node: Node) -> Node | None:
    """`x` in the place of a node that broadcasts it."""
    return expand(x, node.shape) if x.dtype is node.dtype else None


def _add(node: Node) -> Node | None:
    a, b = node.inputs
    if b.op is NEG and node.dtype.is_floating_point:
        return make(SUB, (a, b.inputs[0]))
    if a.op is NEG and node.dtype.is_floating_point:
        return make(SUB, (b, a.inputs[0]))
    if not node.dtype.is_floating_point and node.dtype is not dt.bool_:
        if is_number(b, 0):
            return _as(a, node)
        if is_number(a, 0):
            return _as(b, node)
    return None


def _sub(node: Node) -> Node | None:
    a, b = node.inputs
    if is_number(b, 0):
        return _as(a, node)
    if b.op is NEG and node.dtype.is_floating_point:
        return make(ADD, (a, b.inputs[0]))
    return None


def _mul(node: Node) -> Node | None:
    a, b = node.inputs
    if is_number(b, 1):
        return _as(a, node)
    if is_number(a, 1):
        return _as(b, node)
    if node.dtype.is_floating_point:
        if is_number(b, -1):
            return expand(make(NEG, (a,)), node.shape)
        if is_number(a, -1):
            return expand(make(NEG, (b,)), node.shape)
    return None


def _div(node: Node) -> Node | None:
    a, b = node.inputs
    if is_number(b, 1):
        return _as(a, node)
    value = number(b)
    if isinstance(value, int):
        value = fixed(value)
    if (
        isinstance(value, float | int)
        and type(value) is not Real
        and value
        and math.isfinite(value)
    ):
        mantissa, exponent = math.frexp(abs(value))
        # The reciprocal of a power of two is exact, and a product is cheaper.
        if mantissa == 0.5 and abs(exponent) < 14:
            return make(MUL, (a, full((), 1 / value, node.dtype)))
    return None


def _power_of_two(node: Node) -> int | None:
    """The exponent of an integer divisor that is a power of two."""
    value = number(node.inputs[1])
    if node.dtype.kind not in "ui" or not isinstance(value, int) or value < 2:
        return None
    if isinstance(value, Symbolic):
        # A size is one by chance.
        return None
    return value.bit_length() - 1 if value & (value - 1) == 0 else None


def _floordiv(node: Node) -> Node | None:
    shift = _power_of_two(node)
    return None if shift is None else make(SHR, (node.inputs[0], full((), shift, node.dtype)))


def _mod(node: Node) -> Node | None:
    shift = _power_of_two(node)
    return (
        None if shift is None else make(AND, (node.inputs[0], full((), 2**shift - 1, node.dtype)))
    )


def _twice(node: Node) -> Node | None:
    """-(-x) and not(not x)"""
    x = node.inputs[0]
    return x.inputs[0] if x.op is node.op else None


def _where(node: Node) -> Node | None:
    c, a, b = node.inputs
    value = number(c)
    if value is not None:
        return _as(a if value else b, node)
    return _as(a, node) if a is b else None


def _extremum(node: Node) -> Node | None:
    a, b = node.inputs
    return a if a is b else None


def widens(a: dt.DType, b: dt.DType) -> bool:
    """Whether every value of `a` is a value of `b`."""
    if a is b or a is dt.bool_:
        return True
    if b is dt.bool_:
        return False
    if a.is_floating_point:
        return b.is_floating_point and b.bits > a.bits
    if b.is_floating_point:
        exact = {dt.float16: 11, dt.bfloat16: 8, dt.float32: 24, dt.float64: 53}[b]
        return a.bits - (a.kind == "i") <= exact
    return b.bits > a.bits and (b.kind == "i" or a.kind == "u")


def _cast(node: Node) -> Node | None:
    x = node.inputs[0]
    if x.dtype is node.dtype:
        return x
    if x.op is CAST and widens(x.inputs[0].dtype, x.dtype):
        return cast(x.inputs[0], node.dtype)
    return None


def _reshape(node: Node) -> Node | None:
    x = node.inputs[0]
    if x.shape == node.shape:
        return x
    if x.op is RESHAPE:
        return reshape(x.inputs[0], node.shape)
    if x.op is FULL:
        return full(node.shape, x.attrs[1], x.dtype)
    if x.op is EXPAND and _squeezed(x.shape) == _squeezed(node.shape):
        # Only extents of 1 come or go: expand to the new shape at once.
        return _expand_reshaped(x, node)
    return None


def _squeezed(shape: Sequence[int]) -> list[int]:
    return [n for n in shape if n != 1]


def _expand_reshaped(x: Node, node: Node) -> Node | None:
    source = x.inputs[0]
    padded = (1,) * (len(x.shape) - len(source.shape)) + source.shape
    kept = iter([p for p, n in zip(padded, x.shape, strict=True) if n != 1])
    column = tuple([1 if n == 1 else next(kept) for n in node.shape])
    return expand(reshape(source, column), node.shape)


def _permute(node: Node) -> Node | None:
    (axes,) = node.attrs
    x = node.inputs[0]
    if axes == tuple(range(len(axes))):
        return x
    if x.op is PERMUTE:
        inner = x.attrs[0]
        return permute(x.inputs[0], tuple([inner[a] for a in axes]))
    if x.op is FULL:
        return full(node.shape, x.attrs[1], x.dtype)
    moved = [a for a in axes if x.shape[a] != 1]
    if moved == sorted(moved):
        return reshape(x, node.shape)
    return None


def _expand(node: Node) -> Node | None:
    x = node.inputs[0]
    if x.shape == node.shape:
        return x
    if x.op is EXPAND:
        return expand(x.inputs[0], node.shape)
    if x.op is FULL:
        return full(node.shape, x.attrs[1], x.dtype)
    return None


def _slice(node: Node) -> Node | None:
    x = node.inputs[0]
    starts, stops, steps = node.attrs
    if x.shape == node.shape and all(s == 1 for s in steps):
        return x
    if x.op is FULL:
        return full(node.shape, x.attrs[1], x.dtype)
    if x.op is SLICE:
        begin, _, stride = x.attrs
        first = tuple([a + b * s for a, b, s in zip(begin, starts, stride, strict=True)])
        last = tuple([a + b * s for a, b, s in zip(begin, stops, stride, strict=True)])
        step = tuple([a * b for a, b in zip(stride, steps, strict=True)])
        return make(SLICE, (x.inputs[0],), (first, last, step))
    return _slice_of_padded(node) if x.op is UNSLICE else None


def _slice_of_padded(node: Node) -> Node | None:
    """A slice that takes nothing but what was laid out in zeros."""
    x = node.inputs[0]
    begin, end, every = node.attrs
    source, (_, starts, steps) = x.inputs[0], x.attrs
    inside = all(
        a >= s and b <= s + n for a, b, s, n in zip(begin, end, starts, source.shape, strict=True)
    )
    if not inside or any(s != 1 for s in steps):
        return None
    low = tuple([a - s for a, s in zip(begin, starts, strict=True)])
    high = tuple([b - s for b, s in zip(end, starts, strict=True)])
    return make(SLICE, (source,), (low, high, every))


def _flip(node: Node) -> Node | None:
    x = node.inputs[0]
    axes = tuple([a for a in node.attrs[0] if node.shape[a] != 1])
    if not axes:
        return x
    if x.op is FLIP:
        both = tuple(sorted(set(axes) ^ set(x.attrs[0])))
        return make(FLIP, (x.inputs[0],), (both,)) if both else x.inputs[0]
    return None


def _trivial_reduce(node: Node) -> Node | None:
    """A reduction of single elements, or of windows that were spread without overlap."""
    if "axes" not in node.op.attr_names or node.op.name == "partial":
        return None
    (axes,) = node.attrs
    x = node.inputs[0]
    wide = tuple([a for a in axes if x.shape[a] != 1])
    if not wide:
        return x
    if node.op.name == "sum" and x.op is SPREAD:
        return _gathered(node, x)
    return make(node.op, (x,), (wide,)) if wide != axes else None


def _gathered(node: Node, x: Node) -> Node | None:
    """The sum of windows laid side by side: each element lies in one window at most."""
    axes, steps, dilations, extents = x.attrs
    source = x.inputs[0]
    rank = len(source.shape)
    inner = tuple(range(rank - len(axes), rank))
    sizes = source.shape[rank - len(axes) :]
    if node.attrs[0] != inner or sizes != steps or any(d != 1 for d in dilations):
        return None
    order: list[int] = []
    merged: list[int] = []
    for d in range(rank - len(axes)):
        order.append(d)
        merged.append(source.shape[d])
        if d in axes:
            j = axes.index(d)
            order.append(inner[j])
            merged[-1] *= sizes[j]
    flat = reshape(permute(source, tuple(order)), tuple(merged))
    whole = list(merged)
    for axis, extent in zip(axes, extents, strict=True):
        whole[axis] = extent
    zeros, ones = (0,) * len(whole), (1,) * len(whole)
    return reshape(unslice(flat, tuple(whole), zeros, ones), node.shape)


def _of_nothing(node: Node) -> Node | None:
    """A result with elements from inputs without: zeros, or what a reduction starts from."""
    if 0 in node.shape or node.op.kind in ("host", "recurrence"):
        return None
    if node.op is JOIN:
        parts = tuple(x for x in node.inputs if 0 not in x.shape)
        return make(JOIN, parts, node.attrs) if len(parts) > 1 else parts[0]
    start = 0
    if node.op.kind == "reduce":
        start = initial(combine_of(node), node.dtype)
    return full(node.shape, start, node.dtype)


def _fold(node: Node) -> Node | None:
    """A pointwise operation on constants, done now."""
    for x in node.inputs:
        if x.op is not FULL or type(x.attrs[1]) is Real:
            return None
    if node.op.name == "check" or not node.inputs:
        return None
    arrays = [np.asarray(fixed(x.attrs[1]), x.dtype.numpy) for x in node.inputs]
    with np.errstate(all="ignore"):
        value = np.asarray(node.op.ref(*arrays, *node.attrs)).astype(node.dtype.numpy)
    plain: Any = float(value) if node.dtype.is_floating_point else value.item()
    return full(node.shape, plain, node.dtype)


_RULES: dict[str, Rule] = {
    ADD.name: _add, SUB.name: _sub, MUL.name: _mul, DIV.name: _div, NEG.name: _twice,
    NOT.name: _twice, WHERE.name: _where, MAX.name: _extremum, MIN.name: _extremum,
    CAST.name: _cast, RESHAPE.name: _reshape, PERMUTE.name: _permute, EXPAND.name: _expand,
    SLICE.name: _slice, FLIP.name: _flip, FLOORDIV.name: _floordiv, MOD.name: _mod,
}  # fmt: skip
