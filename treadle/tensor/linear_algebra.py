"""Products of matrices and contractions of tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.base import shape as sh
from treadle.base.errors import DTypeError, ShapeError
from treadle.ops.contract import CONTRACT
from treadle.ops.view import EXPAND
from treadle.tensor import arithmetic as ar
from treadle.tensor.movement import unsqueeze
from treadle.tensor.record import block, record

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product of the last two axes; leading axes are batches and broadcast.

    `out[.., m, n] = sum_k input[.., m, k] * other[.., k, n]`; vectors lose their axis.

    Raises:
        ShapeError: inner extents differ, or an operand is a scalar.
        DTypeError: the dtypes differ.

    Example:
        >>> import treadle
        >>> (treadle.ones(2, 3) @ treadle.ones(3, 4)).shape
        treadle.Size([2, 4])
    """
    return block(_matmul, (input, other))


def _matmul(input: Any, other: Any) -> Any:
    a, b = input._node.shape, other._node.shape
    if input._node.dtype is not other._node.dtype:
        raise DTypeError(
            f"matmul: expected one dtype, got {input._node.dtype.name} and {other._node.dtype.name}"
        )
    if not a or not b:
        raise ShapeError("matmul: both arguments need to be at least 1D, but one is 0D")
    inner = b[-2] if len(b) > 1 else b[0]
    if a[-1] != inner:
        raise ShapeError(
            f"matmul: shapes {tuple(a)} and {tuple(b)} cannot be multiplied ({a[-1]} and {inner} "
            f"are summed together)"
        )
    # Labels: 0 the rows, 1 the columns, 2 the sum, 3 and up the batch.
    batch_a, batch_b = a[:-2], b[:-2]
    if batch_a and batch_b and batch_a != batch_b:
        batch = sh.broadcast(batch_a, batch_b)
        input = record(EXPAND, (input,), ((*batch, *a[-2:]),))
        other = record(EXPAND, (other,), ((*batch, *b[-2:]),))
        batch_a = batch_b = batch
    labels_a = tuple(range(3, 3 + len(batch_a)))
    labels_b = tuple(range(3, 3 + len(batch_b)))
    left = (*labels_a, 0, 2) if len(a) > 1 else (2,)
    right = (*labels_b, 2, 1) if len(b) > 1 else (2,)
    out = (*(labels_a or labels_b), *((0,) if len(a) > 1 else ()), *((1,) if len(b) > 1 else ()))
    return record(CONTRACT, (input, other), (left, right, out))


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices, without broadcasting."""
    if len(input._node.shape) != 2 or len(mat2._node.shape) != 2:
        raise ShapeError(
            f"mm expects two matrices, got {tuple(input._node.shape)} and {tuple(mat2._node.shape)}"
        )
    return matmul(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """The products of two batches of matrices `(b, m, k)` and `(b, k, n)`."""
    if len(input._node.shape) != 3 or len(mat2._node.shape) != 3:
        raise ShapeError("bmm expects two 3D tensors: batches of matrices")
    return matmul(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """The product of a matrix and a vector."""
    return matmul(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors."""
    if len(input._node.shape) != 1 or len(tensor._node.shape) != 1:
        raise ShapeError("dot: 1D tensors expected")
    return matmul(input, tensor)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The outer product of two vectors, `(m,)` and `(n,)` to `(m, n)`."""
    if len(input._node.shape) != 1 or len(vec2._node.shape) != 1:
        raise ShapeError(
            f"outer: 1D tensors expected, got {tuple(input._node.shape)} and "
            f"{tuple(vec2._node.shape)}"
        )
    return ar.mul(unsqueeze(input, 1), vec2)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """`beta * input + alpha * mat1 @ mat2`."""
    return _combined(input, matmul(mat1, mat2), beta, alpha)


def _combined(input: Any, product: Any, beta: float, alpha: float) -> Any:
    if input._node.dtype.kind in "ui":
        # As PyTorch: integers take the whole part of the factors.
        beta, alpha = int(beta), int(alpha)
    product = product if alpha == 1 else product * alpha
    # What is in an input that counts 0 times does not matter, NaN neither.
    return product if beta == 0 else (input if beta == 1 else input * beta) + product


def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """`beta * input + alpha * mat @ vec`."""
    return addmm(input, mat, vec, beta=beta, alpha=alpha)


def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: float = 1, alpha: float = 1) -> Any:
    """`beta * input + alpha * outer(vec1, vec2)`."""
    product: Any = outer(vec1, vec2)
    return _combined(input, product, beta, alpha)


def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Any:
    """`beta * input + alpha * bmm(batch1, batch2)`."""
    return _combined(input, bmm(batch1, batch2), beta, alpha)


def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: float = 1, alpha: float = 1
) -> Any:
    """`beta * input + alpha *` the sum of `bmm(batch1, batch2)` over the batch."""
    product: Any = bmm(batch1, batch2)
    return _combined(input, product.sum(0), beta, alpha)


ger = outer


def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The inner product of two vectors."""
    return dot(input, other)
