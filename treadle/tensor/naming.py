"""What a tensor's `grad_fn` is called: PyTorch's name of the operation that made it."""

from __future__ import annotations

from typing import Final

from treadle.ir.node import Node

_NAMES: Final = {
    "alias": "Clone", "cast": "ToCopy", "conv": "Convolution", "join": "Cat", "max": "Maximum",
    "min": "Minimum", "max_first": "Max", "min_first": "Min", "mod": "Remainder", "rem": "Fmod",
    "scatter_add": "IndexAdd", "scatter_along": "ScatterAdd", "skew": "Unfold", "take": "Index",
    "take_along": "Gather", "unslice": "ConstantPadNd",
}  # fmt: skip
_VECTOR, _MATRIX, _BATCH = 1, 2, 3


def gradient_name(node: Node | None) -> str:
    """The name of a backward operation, such as `MulBackward0`, from the last node of the forward
    one; a composite is told by its last few nodes."""
    if node is None:
        return "AccumulateGrad"
    name = node.op.name
    if name == "reshape":
        return _reshape(node)
    if name == "permute":
        return _permute(node.attrs[0])
    if name == "contract":
        return _contract(node)
    if name in ("add", "div") and (found := _tail(node)):
        return found
    if node.op.kind == "reduce":
        return _reduction(node)
    return f"{_plain(name)}Backward0"


def _plain(name: str) -> str:
    return _NAMES.get(name) or "".join(part.capitalize() for part in name.split("_"))


def _all_of(node: Node) -> bool:
    return node.op.kind == "reduce" and len(node.attrs[0]) == len(node.inputs[0].shape)


def _reduction(node: Node) -> str:
    name, whole = node.op.name, _all_of(node)
    if name in ("amax", "amin"):
        # Whole, it is what max() and min() record.
        return f"{name[1:].capitalize()}Backward1" if whole else f"{_plain(name)}Backward0"
    if name in ("max_first", "min_first"):
        return f"{_plain(name)}Backward0"
    return f"{_plain(name)}Backward{0 if whole else 1}"


def _reshape(node: Node) -> str:
    source = node.inputs[0]
    if source.op.kind == "reduce":
        return _reduction(source)
    before, after = source.shape, node.shape
    if [n for n in before if n != 1] == [n for n in after if n != 1]:
        if len(after) < len(before):
            return "SelectBackward0" if source.op.name == "slice" else "SqueezeBackward0"
        if len(after) > len(before):
            return "UnsqueezeBackward0"
    return "ViewBackward0"


def _permute(axes: tuple[int, ...]) -> str:
    if axes == (1, 0):
        return "TBackward0"
    moved = sum(i != a for i, a in enumerate(axes))
    return "TransposeBackward0" if moved == 2 else "PermuteBackward0"


def _contract(node: Node) -> str:
    ranks = tuple(len(i.shape) for i in node.inputs)
    names: dict[tuple[int, ...], str] = {
        (_VECTOR, _VECTOR): "Dot",
        (_MATRIX, _VECTOR): "Mv",
        (_MATRIX, _MATRIX): "Mm",
        (_BATCH, _BATCH): "Bmm",
    }
    return f"{names.get(ranks, 'Einsum')}Backward0"


def _tail(node: Node) -> str | None:
    """The composites that end in an addition or a division."""
    a, b = node.inputs
    if node.op.name == "add":
        linear = a.op.name == "contract" and len(a.shape) == _MATRIX and len(b.shape) == _VECTOR
        return "AddmmBackward0" if linear else None
    total = a.inputs[0] if a.op.name == "reshape" else a
    if total.op.name == "sum" and b.op.name == "input" and b.shape == ():
        return f"MeanBackward{0 if _all_of(total) else 1}"
    return None
