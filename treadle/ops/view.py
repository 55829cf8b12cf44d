"""Views: the same elements under another index. They cost nothing where they can be fused."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.errors import ShapeError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape, same
from treadle.ir.loop import Binary, Const, Expr, Select
from treadle.ir.node import Node
from treadle.ops.table import (
    NO_GRADIENT,
    TABLE,
    Arg,
    Index,
    Op,
    Read,
    Sample,
    broadcast_index,
    integer,
    make,
    per_input,
)

np = LazyModule("numpy")


def _mul(a: Expr, b: int) -> Expr:
    return a if b == 1 else Binary("mul", a, integer(b))


def _add(a: Expr, b: Expr) -> Expr:
    if isinstance(a, Const) and a.value == 0:
        return b
    return a if isinstance(b, Const) and b.value == 0 else Binary("add", a, b)


# --- reshape ---------------------------------------------------------------------------------


def _reshape_infer(x: Any, shape: Shape) -> tuple[Shape, DType]:
    if sh.count(shape) != sh.count(x.shape):
        raise ShapeError(
            f"shape '{list(shape)}' is invalid for input of size {sh.count(x.shape)} "
            f"(shape {list(x.shape)})"
        )
    return shape, x.dtype


def regroup(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of adjacent source and target axes that hold the same elements."""
    if 0 in source or 0 in target:
        return [(list(range(len(source))), list(range(len(target))))]
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(source) or j < len(target):
        left, right = [], []
        m = n = 1
        if i < len(source):
            left.append(i)
            m = source[i]
            i += 1
        if j < len(target):
            right.append(j)
            n = target[j]
            j += 1
        while m != n:
            if (m < n and i < len(source)) or j >= len(target):
                left.append(i)
                m *= source[i]
                i += 1
            else:
                right.append(j)
                n *= target[j]
                j += 1
        groups.append((left, right))
    return groups


def _reshape_lower(node: Node, index: Index, read: Read) -> Expr:
    source, target = node.inputs[0].shape, node.shape
    if 0 in source:
        return read(0, tuple(integer(0) for _ in source))
    out: list[Expr] = [integer(0)] * len(source)
    for left, right in regroup(source, target):
        flat: Expr = integer(0)
        for j in right:
            flat = _add(_mul(flat, target[j]) if flat_is_set(flat) else flat, index[j])
        for i in reversed(left[1:]):
            if source[i] != 1:
                out[i] = Binary("mod", flat, integer(source[i]))
                flat = Binary("floordiv", flat, integer(source[i]))
        if left:
            out[left[0]] = flat
    return read(0, tuple(out))


def flat_is_set(flat: Expr) -> bool:
    """Whether an index sum has a term yet."""
    return not (isinstance(flat, Const) and flat.value == 0)


RESHAPE: Final = Op(
    name="reshape", kind="view", attr_names=("shape",), infer=_reshape_infer,
    vjp=per_input(lambda n, g: reshape(g, n.inputs[0].shape)), lower=_reshape_lower,
    ref=lambda x, shape: x.reshape(shape),
    samples=(
        Sample((Arg((3, 4)),), ((12,),)), Sample((Arg((2, 6)),), ((3, 4),)),
        Sample((Arg((4, 1, 3)),), ((2, 2, 3, 1),)), Sample((Arg(()),), ((1, 1),)),
        Sample((Arg((0, 3)),), ((3, 0, 2),)),
    ),
    doc="the elements in row-major order under another shape",
)  # fmt: skip


# --- permute, expand -------------------------------------------------------------------------


def _permute_infer(x: Any, axes: tuple[int, ...]) -> tuple[Shape, DType]:
    return tuple(x.shape[a] for a in axes), x.dtype


def _permute_lower(node: Node, index: Index, read: Read) -> Expr:
    out: list[Expr] = [integer(0)] * len(index)
    for i, axis in zip(index, node.attrs[0], strict=True):
        out[axis] = i
    return read(0, tuple(out))


def inverse(axes: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes a permutation."""
    out = [0] * len(axes)
    for i, axis in enumerate(axes):
        out[axis] = i
    return tuple(out)


PERMUTE: Final = Op(
    name="permute", kind="view", attr_names=("axes",), infer=_permute_infer,
    vjp=per_input(lambda n, g: permute(g, inverse(n.attrs[0]))), lower=_permute_lower,
    ref=lambda x, axes: np.transpose(x, axes),
    samples=(Sample((Arg((2, 3, 4)),), ((2, 0, 1),)), Sample((Arg((3, 4)),), ((1, 0),))),
    doc="axes in another order",
)  # fmt: skip


def _expand_infer(x: Any, shape: Shape) -> tuple[Shape, DType]:
    if sh.broadcast(x.shape, shape) != shape:
        raise ShapeError(f"cannot expand shape {list(x.shape)} to {list(shape)}")
    return shape, x.dtype


def _expand_lower(node: Node, index: Index, read: Read) -> Expr:
    return read(0, broadcast_index(node.inputs[0].shape, index))


def _expand_gradient(node: Node, g: Node) -> Node:
    source = node.inputs[0].shape
    extra = len(g.shape) - len(source)
    axes = tuple(
        i for i, n in enumerate(g.shape) if i < extra or (source[i - extra] == 1 and n != 1)
    )
    # Looked up by name: reductions stand on views.
    summed = make(TABLE["sum"], (g,), (axes,)) if axes else g
    return reshape(summed, source)


EXPAND: Final = Op(
    name="expand", kind="view", attr_names=("shape",), infer=_expand_infer,
    vjp=per_input(_expand_gradient), lower=_expand_lower,
    ref=lambda x, shape: np.broadcast_to(x, shape),
    samples=(Sample((Arg((3, 1)),), ((2, 3, 4),)), Sample((Arg(()),), ((5,),))),
    doc="broadcast to a larger shape",
)  # fmt: skip


# --- slice, flip, pad ------------------------------------------------------------------------


def _slice_infer(x: Any, starts: Shape, stops: Shape, steps: Shape) -> tuple[Shape, DType]:
    return tuple(
        max(0, -(-(b - a) // s)) for a, b, s in zip(starts, stops, steps, strict=True)
    ), x.dtype


def _slice_lower(node: Node, index: Index, read: Read) -> Expr:
    starts, _, steps = node.attrs
    return read(
        0,
        tuple(_add(_mul(i, s), integer(a)) for i, a, s in zip(index, starts, steps, strict=True)),
    )


def _slice_gradient(node: Node, g: Node) -> Node:
    return unslice(g, node.inputs[0].shape, node.attrs[0], node.attrs[2])


def _slice_ref(x: Any, starts: Shape, stops: Shape, steps: Shape) -> Any:
    return x[tuple(slice(a, b, s) for a, b, s in zip(starts, stops, steps, strict=True))]


SLICE: Final = Op(
    name="slice", kind="view", attr_names=("starts", "stops", "steps"), infer=_slice_infer,
    vjp=per_input(_slice_gradient), lower=_slice_lower, ref=_slice_ref,
    samples=(
        Sample((Arg((5, 6)),), ((1, 0), (4, 6), (1, 2))),
        Sample((Arg((7,)),), ((2,), (7,), (3,))),
    ),
    doc="every step-th element from start up to stop, along each axis; steps are positive",
)  # fmt: skip


def _unslice_lower(node: Node, index: Index, read: Read) -> Expr:
    """Reads where the index falls on a slice, 0 elsewhere; the read index is kept in bounds."""
    _, starts, steps = node.attrs
    source = node.inputs[0].shape
    at: list[Expr] = []
    inside: list[Expr] = []
    for i, n, extent, start, step in zip(index, node.shape, source, starts, steps, strict=True):
        if start == 0 and step == 1 and extent == n:
            at.append(i)
            continue
        shifted = i if start == 0 else Binary("sub", i, integer(start))
        place = shifted if step == 1 else Binary("floordiv", shifted, integer(step))
        if start > 0:
            inside.append(Binary("ge", shifted, integer(0)))
        if start + extent * step < n or step > 1:
            inside.append(Binary("lt", place, integer(extent)))
        if step > 1:
            inside.append(Binary("eq", Binary("mod", shifted, integer(step)), integer(0)))
        tiles = step == 1 and extent and n % extent == 0 and start % extent == 0
        # Both are the place where it is inside; a remainder leaves a loop over tiles straight.
        at.append(Binary("mod", i, integer(extent)) if tiles else clamp(place, extent))
    return guarded(inside, read(0, tuple(at)), Const(0, node.dtype))


def clamp(i: Expr, extent: int) -> Expr:
    """An index forced into `[0, extent)`, so that a guarded read stays in bounds."""
    return Binary("max", Binary("min", i, integer(extent - 1)), integer(0))


def guarded(inside: list[Expr], value: Expr, outside: Expr) -> Expr:
    """The value where all conditions hold."""
    if not inside:
        return value
    condition = inside[0]
    for other in inside[1:]:
        condition = Binary("and", condition, other)
    return Select(condition, value, outside)


def _unslice_ref(x: Any, shape: Shape, starts: Shape, steps: Shape) -> Any:
    out = np.zeros(shape, x.dtype)
    at = (slice(a, a + n * s, s) for a, n, s in zip(starts, x.shape, steps, strict=True))
    out[tuple(at)] = x
    return out


def _unslice_gradient(node: Node, g: Node) -> Node:
    _, starts, steps = node.attrs
    stops = tuple(
        min(a + (n - 1) * s + 1, extent) if n else a
        for a, n, s, extent in zip(starts, node.inputs[0].shape, steps, node.shape, strict=True)
    )
    return slice_(g, starts, stops, steps)


UNSLICE: Final = Op(
    name="unslice", kind="view", attr_names=("shape", "starts", "steps"),
    infer=lambda x, shape, starts, steps: (shape, x.dtype), vjp=per_input(_unslice_gradient),
    lower=_unslice_lower, ref=_unslice_ref,
    samples=(
        Sample((Arg((3, 2)),), ((6, 5), (1, 0), (1, 3))), Sample((Arg((2,)),), ((4,), (2,), (1,))),
    ),
    doc="zeros of a shape with x laid on the slice from starts by steps: zero padding and dilation",
)  # fmt: skip


def _flip_lower(node: Node, index: Index, read: Read) -> Expr:
    axes = node.attrs[0]
    return read(
        0,
        tuple(
            Binary("sub", integer(n - 1), i) if a in axes else i
            for a, (i, n) in enumerate(zip(index, node.shape, strict=True))
        ),
    )


FLIP: Final[Op] = Op(
    name="flip", kind="view", attr_names=("axes",), infer=lambda x, axes: (x.shape, x.dtype),
    vjp=per_input(lambda n, g: make(FLIP, (g,), n.attrs)), lower=_flip_lower,
    ref=lambda x, axes: np.flip(x, axes), samples=(Sample((Arg((3, 4)),), ((1,),)),),
    doc="the order along some axes reversed",
)  # fmt: skip


# --- windows ---------------------------------------------------------------------------------


def _skew_lower(node: Node, index: Index, read: Read) -> Expr:
    axes, steps, dilations, _ = node.attrs
    rank = len(index)
    out = list(index)
    for j, (axis, step, dilation) in enumerate(zip(axes, steps, dilations, strict=True)):
        inner = index[rank - len(axes) + j]
        out[axis] = _add(_mul(index[axis], step), _mul(inner, dilation))
    return read(0, tuple(out))


def _skew_infer(
    x: Any, axes: Shape, steps: Shape, dilations: Shape, extents: Shape
) -> tuple[Shape, DType]:
    shape = list(x.shape)
    for j, axis in enumerate(axes):
        window = x.shape[len(x.shape) - len(axes) + j]
        last = (extents[j] - 1) * steps[j] + (window - 1) * dilations[j]
        if extents[j] and window and last >= x.shape[axis]:
            raise ShapeError(f"windows reach element {last} of an axis of {x.shape[axis]}")
        shape[axis] = extents[j]
    return tuple(shape), x.dtype


def _pairs(shape: Shape, axes: Shape, steps: Shape, dilations: Shape) -> list[Any]:
    """For each axis of a skewed shape, the index array into the axis that it was cut from."""
    grid = np.indices(shape)
    at = list(grid)
    for j, axis in enumerate(axes):
        at[axis] = grid[axis] * steps[j] + grid[len(shape) - len(axes) + j] * dilations[j]
    return at


def _skew_ref(x: Any, axes: Shape, steps: Shape, dilations: Shape, extents: Shape) -> Any:
    shape = list(x.shape)
    for axis, extent in zip(axes, extents, strict=True):
        shape[axis] = extent
    return x[tuple(_pairs(tuple(shape), axes, steps, dilations))]


def _skew_gradient(node: Node, g: Node) -> Node:
    axes, steps, dilations, _ = node.attrs
    extents = tuple(node.inputs[0].shape[a] for a in axes)
    return make(SPREAD, (g,), (axes, steps, dilations, extents))


SKEW: Final = Op(
    name="skew", kind="view", attr_names=("axes", "steps", "dilations", "extents"),
    infer=_skew_infer, vjp=per_input(_skew_gradient), lower=_skew_lower, ref=_skew_ref,
    samples=(
        Sample((Arg((2, 7, 3)),), ((1,), (2,), (1,), (3,))),
        Sample((Arg((6, 5, 2, 2)),), ((0, 1), (1, 2), (2, 1), (4, 2))),
    ),
    doc="out[.., o, .., k] = x[.., o * step + k * dilation, .., k], k the last axes in order",
)  # fmt: skip


def _spread_lower(node: Node, index: Index, read: Read) -> Expr:
    axes, steps, dilations, _ = node.attrs
    source = node.inputs[0].shape
    out = list(index)
    inside: list[Expr] = []
    for j, axis in enumerate(axes):
        inner = index[len(index) - len(axes) + j]
        shifted: Expr = Binary("sub", index[axis], _mul(inner, dilations[j]))
        place = shifted
        if steps[j] > 1:
            place = Binary("floordiv", shifted, integer(steps[j]))
            inside.append(Binary("eq", Binary("mod", shifted, integer(steps[j])), integer(0)))
        inside.append(Binary("ge", shifted, integer(0)))
        inside.append(Binary("lt", place, integer(source[axis])))
        out[axis] = clamp(place, source[axis])
    return guarded(inside, read(0, tuple(out)), Const(0, node.dtype))


def _spread_infer(
    x: Any, axes: Shape, steps: Shape, dilations: Shape, extents: Shape
) -> tuple[Shape, DType]:
    shape = list(x.shape)
    for axis, extent in zip(axes, extents, strict=True):
        shape[axis] = extent
    return tuple(shape), x.dtype


def _spread_ref(x: Any, axes: Shape, steps: Shape, dilations: Shape, extents: Shape) -> Any:
    shape, _ = _spread_infer(x, axes, steps, dilations, extents)
    out = np.zeros(shape, x.dtype)
    out[tuple(_pairs(x.shape, axes, steps, dilations))] = x
    return out


def _spread_gradient(node: Node, g: Node) -> Node:
    axes, steps, dilations, _ = node.attrs
    extents = tuple(node.inputs[0].shape[a] for a in axes)
    return make(SKEW, (g,), (axes, steps, dilations, extents))


SPREAD: Final = Op(
    name="spread", kind="view", attr_names=("axes", "steps", "dilations", "extents"),
    infer=_spread_infer, vjp=per_input(_spread_gradient), lower=_spread_lower, ref=_spread_ref,
    samples=(
        Sample((Arg((2, 3, 3)),), ((1,), (2,), (1,), (7,))),
        Sample((Arg((4, 2, 2, 2)),), ((0, 1), (1, 2), (2, 1), (6, 5))),
    ),
    doc="the adjoint of skew: lays each window element back where it was read, 0 elsewhere",
)  # fmt: skip


ALIAS: Final = Op(
    name="alias",
    kind="view",
    attr_names=(),
    infer=lambda x: (x.shape, x.dtype),
    vjp=per_input(lambda n, g: g),
    lower=lambda node, index, read: read(0, index),
    ref=lambda x: x,
    samples=(Sample((Arg((3, 4)),)),),
    doc="the same value as another one for autograd: detach, leaves, results of a Function",
)


RESULT: Final = Op(
    name="result",
    kind="gather",
    attr_names=(),
    infer=lambda x, *sources: (x.shape, x.dtype),
    vjp=NO_GRADIENT,
    lower=lambda node, index, read: read(0, index),
    ref=lambda x, *sources: x,
    samples=(),
    doc="input 0, which a custom Function computed from the other inputs: only these edges tell "
    "how gradients flow, and the Function itself differentiates",
)


# --- node constructors -----------------------------------------------------------------------


def reshape(x: Node, shape: Shape) -> Node:
    """The elements in row-major order under another shape."""
    return x if same(x.shape, shape) else make(RESHAPE, (x,), (shape,))


def permute(x: Node, axes: tuple[int, ...]) -> Node:
    """Axes in another order."""
    return x if axes == tuple(range(len(axes))) else make(PERMUTE, (x,), (axes,))


def expand(x: Node, shape: Shape) -> Node:
    """Broadcast to a larger shape."""
    return x if same(x.shape, shape) else make(EXPAND, (x,), (shape,))


def slice_(x: Node, starts: Shape, stops: Shape, steps: Shape) -> Node:
    """Every step-th element from start up to stop, along each axis."""
    whole = all(a == 0 and b == n and s == 1 for a, b, s, n in zip(
        starts, stops, steps, x.shape, strict=True))  # fmt: skip
    return x if whole else make(SLICE, (x,), (starts, stops, steps))


def unslice(x: Node, shape: Shape, starts: Shape, steps: Shape) -> Node:
    """Zeros of a shape with `x` laid on the slice from `starts` by `steps`."""
    same = x.shape == shape and all(s == 1 for s in steps)
    return x if same else make(UNSLICE, (x,), (shape, starts, steps))


def windows(x: Node, axes: Shape, sizes: Shape, steps: Shape, dilations: Shape) -> Node:
    """Sliding windows: axes shrink to the window positions, window axes are appended.

    `out[.., o, .., k] = x[.., o * step + k * dilation, ..]`.
    """
    extents = tuple(
        (x.shape[a] - (k - 1) * d - 1) // s + 1
        for a, k, s, d in zip(axes, sizes, steps, dilations, strict=True)
    )
    column = reshape(x, x.shape + (1,) * len(axes))
    wide = make(EXPAND, (column,), (x.shape + sizes,))
    return make(SKEW, (wide,), (axes, steps, dilations, extents))
