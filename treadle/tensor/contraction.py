"""Einstein summation of any number of operands: pairs are contracted one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import shape as sh
from treadle.base.errors import ShapeError
from treadle.ops.contract import CONTRACT
from treadle.ops.reduce import SUM
from treadle.ops.view import EXPAND
from treadle.tensor import arithmetic as ar
from treadle.tensor import movement as mv
from treadle.tensor import reduction as red
from treadle.tensor.arrange import diagonal
from treadle.tensor.promote import as_dtype
from treadle.tensor.record import record

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

Labels = tuple[int, ...]
_ELLIPSIS = 1000
"""The labels of the axes under an ellipsis count down from here: the last axis is 999."""


class _Term:
    """An operand and the label of each of its axes."""

    def __init__(self, tensor: Any, labels: Labels) -> None:
        self.tensor = tensor
        self.labels = labels

    def extents(self) -> dict[int, int]:
        return dict(zip(self.labels, self.tensor._node.shape, strict=True))


def _labels(text: str, rank: int | None, equation: str) -> Labels:
    """The labels that a part of an equation stands for; `rank` is that of its operand."""
    text = text.replace(" ", "")
    before, dots, after = text.partition("...")
    for letter in before + after:
        if not letter.isalpha():
            raise ValueError(f"einsum(): invalid subscript {letter!r} in {equation!r}")
    if rank is not None:
        hidden = rank - len(before) - len(after)
        if hidden < 0 or (hidden and not dots):
            raise ShapeError(
                f"einsum(): the subscript {text!r} of {equation!r} has {len(before + after)} "
                f"labels, its operand {rank} dimensions"
            )
    else:
        hidden = 0
    middle = tuple(range(_ELLIPSIS - hidden, _ELLIPSIS))
    return (*map(ord, before), *middle, *map(ord, after))


def _parse(equation: str, ranks: Sequence[int]) -> tuple[list[Labels], Labels]:
    left, arrow, right = equation.partition("->")
    parts = left.split(",")
    if len(parts) != len(ranks):
        raise ValueError(
            f"einsum(): {equation!r} has {len(parts)} subscripts, but {len(ranks)} operands came"
        )
    inputs = [_labels(p, r, equation) for p, r in zip(parts, ranks, strict=True)]
    seen = [label for labels in inputs for label in labels]
    hidden = sorted({label for label in seen if 900 < label < _ELLIPSIS})
    if arrow:
        before, dots, after = right.replace(" ", "").partition("...")
        named = (_labels(before, None, equation), _labels(after, None, equation))
        output = (*named[0], *(hidden if dots else ()), *named[1])
    else:
        once = sorted(label for label in set(seen) if seen.count(label) == 1 and label < 900)
        output = (*hidden, *once)
    unknown = [chr(label) for label in output if label not in seen]
    if unknown or len(set(output)) != len(output):
        raise ValueError(f"einsum(): the output of {equation!r} repeats or invents a subscript")
    return inputs, tuple(output)


def _with_diagonals(term: _Term) -> _Term:
    """Without repeated labels: they select a diagonal."""
    tensor, labels = term.tensor, list(term.labels)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            if tensor._node.shape[i] != tensor._node.shape[j]:
                raise ShapeError(
                    f"einsum(): subscript {chr(label)!r} is repeated for dimensions of "
                    f"{tensor._node.shape[i]} and {tensor._node.shape[j]}"
                )
            tensor = diagonal(tensor, 0, i, j)
            labels = [x for k, x in enumerate(labels) if k not in (i, j)] + [label]
    return _Term(tensor, tuple(labels))


def _common(terms: list[_Term]) -> dict[int, int]:
    """The extent of each label; an extent of 1 broadcasts."""
    out: dict[int, int] = {}
    for term in terms:
        for label, n in term.extents().items():
            known = out.setdefault(label, n)
            if known == 1:
                out[label] = n
            elif n not in (1, known):
                name = chr(label) if label < 900 else "..."
                raise ShapeError(
                    f"einsum(): subscript {name!r} stands for {known} in one operand and {n} in "
                    f"another"
                )
    return out


def _spread(term: _Term, extents: dict[int, int], shared: set[int]) -> _Term:
    """With the extents of 1 of labels that others have in full expanded."""
    shape = tuple(
        extents[label] if label in shared else n
        for label, n in zip(term.labels, term.tensor._node.shape, strict=True)
    )
    if shape == tuple(term.tensor._node.shape):
        return term
    return _Term(record(EXPAND, (term.tensor,), (shape,)), term.labels)


def _pair(a: _Term, b: _Term, kept: set[int]) -> _Term:
    """Two operands contracted: labels that nobody else has are summed over."""
    labels = list(dict.fromkeys((*a.labels, *b.labels)))
    out = tuple(label for label in labels if label in kept)
    number = {label: i for i, label in enumerate(labels)}

    def code(some: Labels) -> Labels:
        return tuple(number[label] for label in some)

    value = record(CONTRACT, (a.tensor, b.tensor), (code(a.labels), code(b.labels), code(out)))
    return _Term(value, out)


def _cheapest(terms: list[_Term], output: Labels) -> tuple[int, int]:
    """The pair whose result has the fewest elements: the greedy order of opt_einsum."""
    best: tuple[int, int, int] | None = None
    for i in range(len(terms)):
        for j in range(i + 1, len(terms)):
            kept = _needed(terms, output, (i, j))
            extents = {**terms[i].extents(), **terms[j].extents()}
            before = sum(sh.count(terms[k].tensor._node.shape) for k in (i, j))
            size = sh.count([n for label, n in extents.items() if label in kept])
            if best is None or size - before < best[0]:
                best = (size - before, i, j)
    assert best is not None
    return best[1], best[2]


def _needed(terms: list[_Term], output: Labels, without: tuple[int, ...]) -> set[int]:
    others = (t.labels for k, t in enumerate(terms) if k not in without)
    return set(output).union(*others)


def einsum(equation: str, *operands: Any) -> Tensor:
    """The sum over the subscripts that the output lacks of the product of the operands.

    `einsum("ij,jk->ik", a, b)` is `a @ b`. Repeated subscripts of an operand select a diagonal,
    `...` stands for axes that broadcast, and without `->` the output has every subscript that
    occurs once, in alphabetical order.

    Args:
        equation: the subscripts of the operands, and those of the output.
        operands: tensors, or one sequence of them.

    Raises:
        ValueError: the equation is malformed.
        ShapeError: an operand does not fit its subscripts.

    Example:
        >>> import treadle
        >>> treadle.einsum("ii", treadle.eye(3))
        tensor(3.)
    """
    many = len(operands) == 1 and isinstance(operands[0], (list, tuple))
    tensors: list[Any] = list(operands[0]) if many else list(operands)
    inputs, output = _parse(equation, [len(t._node.shape) for t in tensors])
    dtype = mv.common_dtype(tensors)
    terms = [
        _with_diagonals(_Term(as_dtype(t, dtype), labels))
        for t, labels in zip(tensors, inputs, strict=True)
    ]
    extents = _common(terms)
    while len(terms) > 1:
        i, j = _cheapest(terms, output)
        shared = set(terms[i].labels) & set(terms[j].labels)
        kept = _needed(terms, output, (i, j))
        a, b = (_summed(_spread(terms[k], extents, shared), shared | kept) for k in (i, j))
        joined = _pair(a, b, kept)
        terms = [t for k, t in enumerate(terms) if k not in (i, j)] + [joined]
    return _arranged(_summed(terms[0], set(output)), output)


def _summed(term: _Term, kept: set[int]) -> _Term:
    axes = tuple(i for i, label in enumerate(term.labels) if label not in kept)
    if not axes:
        return term
    total = record(SUM, (term.tensor,), (axes,))
    return _Term(mv.squeeze(total, axes), tuple(x for x in term.labels if x in kept))


def _arranged(term: _Term, output: Labels) -> Any:
    return mv.permute(term.tensor, [term.labels.index(label) for label in output])


def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """The sum of products over pairs of axes.

    Args:
        dims: how many of the last axes of `a` meet the first of `b`, or the axes of each.
    """
    if isinstance(dims, int):
        left = list(range(len(a._node.shape) - dims, len(a._node.shape)))
        right = list(range(dims))
    else:
        left, right = ([d] if isinstance(d, int) else list(d) for d in dims)
    left = [sh.axis(d, len(a._node.shape)) for d in left]
    right = [sh.axis(d, len(b._node.shape)) for d in right]
    pairs = list(zip(left, right, strict=True))
    for i, j in pairs:
        # An extent of 1 stands for all of the other's: its sum.
        if a._node.shape[i] == 1 != b._node.shape[j]:
            b = red.sum(b, j, True)
        elif b._node.shape[j] == 1 != a._node.shape[i]:
            a = red.sum(a, i, True)
        if a._node.shape[i] != b._node.shape[j]:
            raise ShapeError(
                f"tensordot: contracted dimensions need to match, but first has size "
                f"{a._node.shape[i]} in dim {i} and second has size {b._node.shape[j]} in dim {j}"
            )
    first = list(range(len(a._node.shape)))
    second = [len(first) + i for i in range(len(b._node.shape))]
    for i, j in pairs:
        second[j] = first[i]
    out = [x for x in first if x not in second] + [x for x in second if x not in first]
    return record(CONTRACT, (a, b), (tuple(first), tuple(second), tuple(out)))


def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: each element of the first times the whole second."""
    rank = max(len(input._node.shape), len(other._node.shape))

    def padded(x: Any) -> tuple[int, ...]:
        shape = tuple(x._node.shape)
        return (1,) * (rank - len(shape)) + shape

    a, b = padded(input), padded(other)
    column = mv.reshape(input, [n for extent in a for n in (extent, 1)])
    row = mv.reshape(other, [n for extent in b for n in (1, extent)])
    return mv.reshape(ar.mul(column, row), [m * n for m, n in zip(a, b, strict=True)])


def inner(input: Tensor, other: Tensor) -> Tensor:
    """The sum of products over the last axes of both."""
    if not input._node.shape or not other._node.shape:
        return ar.mul(input, other)
    return tensordot(input, other, ([-1], [-1]))


def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices, in the order that costs least memory."""
    letters = [chr(ord("a") + i) for i in range(len(matrices) + 1)]
    parts = ",".join(letters[i] + letters[i + 1] for i in range(len(matrices)))
    return einsum(f"{parts}->{letters[0]}{letters[-1]}", *matrices)
