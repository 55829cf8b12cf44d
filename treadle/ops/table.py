"""The op record, and how a node is made from one.

Every field of a record is mandatory: an op without a gradient says so with `NO_GRADIENT`. The
table itself (`TABLE`) fills as the modules of this room define their records.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import DTypeError, GradientError
from treadle.base.shape import Shape
from treadle.base.site import call_site
from treadle.ir.loop import Const, Expr
from treadle.ir.node import Node

Index = tuple[Expr, ...]
Read = Callable[[int, Index], Expr]
"""`read(i, index)` is the element of input `i` at `index`, one int64 expression a dimension."""


@dataclass(frozen=True, slots=True)
class Arg:
    """One input of a sample: its shape, dtype and the interval its values are drawn from."""

    shape: Shape
    dtype: DType = dt.float32
    low: float = -2.0
    high: float = 2.0


@dataclass(frozen=True, slots=True)
class Sample:
    """Inputs and attributes on which the property tests run an op."""

    args: tuple[Arg, ...]
    attrs: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One primitive: all that treadle knows about it, in one place.

    `kind` is `input`, `pointwise`, `view`, `source`, `gather`, `reduce`, `scan`, `contract`,
    `attention`, `conv`, `scatter`, `recurrence`, `composed` or `host`; docs/architecture.md says
    what each promises to the graph passes.
    """

    name: str
    kind: str
    attr_names: tuple[str, ...]
    infer: Callable[..., tuple[Shape, DType]]
    vjp: Callable[[Node, Node, int], Node | None]
    lower: Callable[[Node, Index, Read], Expr]
    ref: Callable[..., Any]
    samples: tuple[Sample, ...]
    doc: str
    combine: str = ""
    """Of a `reduce` or a `scan`: the `Accumulate` operator."""
    cost: int = 1
    """Of a `pointwise`: its price in additions, which decides whether recomputing it pays."""
    compose: Callable[[Node], Node] | None = None
    """Of a `composed`: the graph of other ops that the passes put in its place."""
    slack: float = 1.0
    """How many times the `bound` of its dtype a result may be off an independent oracle's."""

    def __post_init__(self) -> None:
        if self.name in TABLE:
            raise ValueError(f"the op {self.name!r} is defined twice")
        TABLE[self.name] = self

    def __repr__(self) -> str:
        return f"<op {self.name}>"


TABLE: Final[dict[str, Op]] = {}

_BOUNDS: Final = {
    dt.float16: (4e-3, 1e-3), dt.bfloat16: (3e-2, 1e-2), dt.float32: (1e-5, 1e-6),
    dt.float64: (1e-9, 1e-11),
}  # fmt: skip


def bound(dtype: DType, slack: float = 1.0) -> tuple[float, float]:
    """How far a result of a dtype may be off: the relative and the absolute bound.

    They hold for a function of a few operations on values around 1; an op that is less exact
    says so with its `slack`, which counts for all functions made of it. What is not floating
    point is exact.
    """
    relative, absolute = _BOUNDS.get(dtype, (0.0, 0.0))
    return relative * slack, absolute * slack


def make(op: Op, inputs: tuple[Node, ...], attrs: tuple[Any, ...] = ()) -> Node:
    """A new node: runs the op's shape and dtype rule, which raises on a mistake."""
    shape, dtype = op.infer(*inputs, *attrs)
    device = inputs[0].device if inputs else None
    if device is None:
        return Node(op, inputs, attrs, shape, dtype, site=call_site())
    return Node(op, inputs, attrs, shape, dtype, device, call_site())


def NO_GRADIENT(node: Node, g: Node, i: int) -> Node | None:
    """The `vjp` of an op that is constant almost everywhere: its gradient is zero."""
    return None


def not_differentiable(node: Node, g: Node, i: int) -> Node | None:
    """The `vjp` of an op whose derivative does not exist."""
    raise GradientError(f"{node.op.name} has no derivative")


def no_lowering(node: Node, index: Index, read: Read) -> Expr:
    """The `lower` of an op that the graph passes expand or schedule by themselves."""
    raise AssertionError(f"{node.op.name} is not lowered element by element")


def per_input(
    *rules: Callable[[Node, Node], Node | None],
) -> Callable[[Node, Node, int], Node | None]:
    """A `vjp` from one rule `(node, g) -> Node` for each input."""

    def vjp(node: Node, g: Node, i: int) -> Node | None:
        return rules[i](node, g)

    return vjp


def integer(value: int) -> Const:
    """An index constant."""
    return Const(value, dt.int64)


def broadcast_index(shape: Shape, index: Index) -> Index:
    """The index into an operand of `shape` for an index into what it broadcasts to."""
    offset = len(index) - len(shape)
    return tuple(integer(0) if extent == 1 else index[i + offset] for i, extent in enumerate(shape))


def require_same_dtype(name: str, *inputs: Any) -> DType:
    """The common dtype of the inputs; raises `DTypeError` where they differ."""
    dtype: DType = inputs[0].dtype
    for other in inputs[1:]:
        if other.dtype is not dtype:
            raise DTypeError(
                f"{name}: expected one dtype, got {dtype.name} and {other.dtype.name}; "
                f"hint: convert one of them with .to(...)"
            )
    return dtype


def require_float(name: str, x: Any) -> DType:
    """The dtype of a floating-point input; raises `DTypeError` for any other."""
    dtype: DType = x.dtype
    if not dtype.is_floating_point:
        raise DTypeError(f"{name}: expected floating point, got {dtype.name}")
    return dtype


def _input_infer(shape: Shape, dtype: DType) -> tuple[Shape, DType]:
    return shape, dtype


INPUT: Final = Op(
    name="input",
    kind="input",
    attr_names=(),
    infer=_input_infer,
    vjp=NO_GRADIENT,
    lower=no_lowering,
    ref=lambda: None,
    samples=(),
    doc="A value that a plan is given: a tensor in memory, a Python number or a random key.",
)


def input_node(shape: Shape, dtype: DType) -> Node:
    """A fresh input of a graph."""
    return Node(INPUT, (), (), shape, dtype)
