"""What a tensor's `grad_fn` is called: PyTorch's name of the operation that made it."""

from __future__ import annotations

from typing import Final

from treadle.graph.capture import State
from treadle.ir.node import Node

_NAMES: Final = {
    "alias": "Clone", "cast": "ToCopy", "conv": "Convolution", "join": "Cat", "max": "Maximum",
    "min": "Minimum", "max_first": "Max", "min_first": "Min", "mod": "Remainder", "rem": "Fmod",
    "scatter_add": "IndexAdd", "scatter_along": "ScatterAdd", "skew": "Unfold", "take": "Index",
    "take_along": "Gather", "unslice": "ConstantPadNd",
}  # fmt: skip
_VECTOR, _MATRIX, _BATCH = 1, 2, 3


# The bodies of composites by name.
_COMPOSITES: Final = {
    "_absolute": "MeanBackward0", "_avg_pool": "AvgPool2DBackward0",
    "_batch_body": "NativeBatchNormBackward0", "_binary": "BinaryCrossEntropyBackward0",
    "_binary_logits": "BinaryCrossEntropyWithLogitsBackward0", "_conv": "ConvolutionBackward0",
    "_cross_entropy": "NllLossBackward0", "_deviation": "StdBackward0", "_drop": "MulBackward0",
    "_elu": "EluBackward0", "_embedding": "EmbeddingBackward0",
    "_euclidean": "LinalgVectorNormBackward0", "_gelu": "GeluBackward0",
    "_gelu_tanh": "GeluBackward0", "_glu": "GluBackward0",
    "_group_body": "NativeGroupNormBackward0", "_hardtanh": "HardtanhBackward0",
    "_huber": "HuberLossBackward0", "_layer_body": "NativeLayerNormBackward0",
    "_leaky": "LeakyReluBackward0", "_log_softmax": "LogSoftmaxBackward0",
    "_logsigmoid": "LogSigmoidBackward0", "_logsumexp": "LogsumexpBackward0",
    "_max_pool": "MaxPool2DWithIndicesBackward0", "_mish": "MishBackward0",
    "_nll": "NllLossBackward0", "_pad": "ConstantPadNdBackward0",
    "_silu": "SiluBackward0", "_smooth": "SmoothL1LossBackward0", "_softmax": "SoftmaxBackward0",
    "_softplus": "SoftplusBackward0", "_stack": "StackBackward0", "_squared": "MseLossBackward0",
    "_transposed": "ConvolutionBackward0", "_variance": "VarBackward0",
    "adaptive_avg": "AdaptiveAvgPool2DBackward0",
}  # fmt: skip


class GradientFunction:
    """Names the operation that computed a tensor."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        """The name as PyTorch writes it: `MulBackward0`."""
        return self._name

    def __repr__(self) -> str:
        return f"<{self._name}>"


def gradient_name(state: State) -> str:
    """The name of a backward operation, such as `MulBackward0`: by the composite that made the
    value, else by the last nodes of it."""
    node = state.node
    assert node is not None
    maker = getattr(state.maker, "__name__", "")
    if maker in _COMPOSITES:
        return _COMPOSITES[maker]
    if maker == "_linear" and len(node.shape) != _MATRIX:
        return "ViewBackward0"
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
