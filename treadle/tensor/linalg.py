"""`treadle.linalg`: norms, inverses, systems of equations and decompositions of matrices."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from treadle.base import shape as sh
from treadle.base.errors import ShapeError
from treadle.ops import lapack as ops
from treadle.ops.view import EXPAND
from treadle.tensor import arithmetic as ar
from treadle.tensor import movement as mv
from treadle.tensor import reduction as red
from treadle.tensor.contraction import chain_matmul as multi_dot_chain
from treadle.tensor.creation import eye
from treadle.tensor.linear_algebra import matmul
from treadle.tensor.record import record
from treadle.tensor.reduction import Dims

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor


class Eigen(NamedTuple):
    """What `eigh` gives."""

    eigenvalues: Any
    eigenvectors: Any


class Orthogonal(NamedTuple):
    """What `qr` gives."""

    Q: Any
    R: Any


class Columns(NamedTuple):
    """What `treadle.svd` gives."""

    U: Any
    S: Any
    V: Any


class Singular(NamedTuple):
    """What `svd` gives."""

    U: Any
    S: Any
    Vh: Any


class LogDeterminant(NamedTuple):
    """What `slogdet` gives."""

    sign: Any
    logabsdet: Any


class LeastSquares(NamedTuple):
    """What `lstsq` gives."""

    solution: Any
    residuals: Any


# --- norms -------------------------------------------------------------------------------------


def vector_norm(x: Tensor, ord: float = 2, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """The p-norm of all elements, or along `dim`: `sum(|x|^p)^(1/p)`."""
    return red.norm(x, ord, dim, keepdim)


def matrix_norm(
    A: Tensor, ord: float | str = "fro", dim: tuple[int, int] = (-2, -1), keepdim: bool = False
) -> Tensor:
    """A norm of matrices.

    Args:
        ord: `"fro"`, `"nuc"`, 2 or -2 (singular values), 1, -1 (columns), inf or -inf (rows).
    """
    rank = len(A._node.shape)
    row, column = (sh.axis(d, rank) for d in dim)
    if ord == "fro":
        return red.norm(A, 2, (row, column), keepdim)
    if ord in ("nuc", 2, -2):
        values = svdvals(mv.movedim(A, (row, column), (-2, -1)))
        reduce: Callable[..., Any] = red.sum if ord == "nuc" else red.amax if ord == 2 else red.amin
        out = reduce(values, -1)
        return (
            mv.unsqueeze(mv.unsqueeze(out, min(row, column)), max(row, column)) if keepdim else out
        )
    if ord not in (1, -1, float("inf"), float("-inf")):
        raise ValueError(f"linalg.matrix_norm: order {ord!r} is not supported")
    first, second = (row, column) if abs(float(ord)) == 1 else (column, row)
    sums = red.sum(ar.abs(A), first, True)
    out = red.amax(sums, second, True) if float(ord) > 0 else red.amin(sums, second, True)
    return out if keepdim else mv.squeeze(out, (row, column))


def norm(A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False) -> Tensor:
    """A vector norm, or a matrix norm where `dim` names two axes or a matrix has an `ord`."""
    if ord is None:
        return red.norm(A, 2, dim, keepdim)
    if isinstance(dim, (tuple, list)) and len(dim) == 2:
        return matrix_norm(A, ord, (dim[0], dim[1]), keepdim)
    if dim is None and len(A._node.shape) == 2:
        return matrix_norm(A, ord, keepdim=keepdim)
    return vector_norm(A, ord, dim, keepdim)


# --- systems -----------------------------------------------------------------------------------


def inv(A: Tensor) -> Tensor:
    """The inverse of square matrices.

    Raises:
        ShapeError: they are not square.
        RuntimeError: when it runs, one is singular.
    """
    return record(ops.INVERSE, (A,))


def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """The `X` of `A @ X = B`, or of `X @ A = B` for `left=False`; `B` may be a vector."""
    if not left:
        return mv.transpose(solve(mv.transpose(A, -2, -1), mv.transpose(B, -2, -1)), -2, -1)
    shape = tuple(A._node.shape)
    vector = len(B._node.shape) == 1 or tuple(B._node.shape) == shape[:-1]
    right = mv.unsqueeze(B, -1) if vector else B
    batch = sh.broadcast(shape[:-2], right._node.shape[:-2])
    a = record(EXPAND, (A,), ((*batch, *shape[-2:]),))
    b = record(EXPAND, (right,), ((*batch, *right._node.shape[-2:]),))
    out = record(ops.SOLVE, (a, b))
    return mv.squeeze(out, -1) if vector else out


def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """`solve` with one triangle of `A`, whose diagonal counts as 1 if `unitriangular`."""
    part: Any = A.triu() if upper else A.tril()
    if unitriangular:
        one = eye(A._node.shape[-1], dtype=A._node.dtype)
        part = ar.where(ar.ne(one, 0), one, part)
    return solve(part, B, left=left)


def det(A: Tensor) -> Tensor:
    """The determinant of square matrices."""
    return record(ops.DET, (A,))


def slogdet(A: Tensor) -> LogDeterminant:
    """The sign and the logarithm of the absolute value of the determinant."""
    return LogDeterminant(record(ops.SIGN_DET, (A,)), record(ops.LOGDET, (A,)))


def logdet(A: Tensor) -> Tensor:
    """The logarithm of the determinant, NaN where that is negative."""
    sign, size = slogdet(A)
    nan = ar.mul(size, float("nan"))
    return ar.where(ar.lt(sign, 0), nan, size)


def pinv(A: Tensor, rcond: float = 1e-15) -> Tensor:
    """The Moore-Penrose inverse; singular values below `rcond` times the largest count as 0."""
    u, s, vh = svd(A, full_matrices=False)
    least = ar.mul(red.amax(s, -1, True), rcond).detach()
    inverse = ar.where(ar.gt(s, least), ar.reciprocal(s), ar.mul(s, 0))
    scaled = ar.mul(mv.transpose(vh, -2, -1), mv.unsqueeze(inverse, -2))
    return matmul(scaled, mv.transpose(u, -2, -1))


def lstsq(A: Tensor, B: Tensor) -> LeastSquares:
    """The `X` of full rank problems that makes `|A @ X - B|` smallest, and its squares."""
    right = mv.unsqueeze(B, -1) if len(B._node.shape) == len(A._node.shape) - 1 else B
    m, n = A._node.shape[-2:]
    if m >= n:
        q, r = qr(A)
        solution = solve(r, matmul(mv.transpose(q, -2, -1), right))
    else:
        q, r = qr(mv.transpose(A, -2, -1))
        solution = matmul(q, solve(mv.transpose(r, -2, -1), right))
    rest: Any = ar.sub(matmul(A, solution), right)
    residuals = red.sum(ar.mul(rest, rest), -2)
    vector = right is not B
    return LeastSquares(mv.squeeze(solution, -1) if vector else solution, residuals)


# --- decompositions ----------------------------------------------------------------------------


def _factors(packed: Any, shapes: Sequence[tuple[int, ...]]) -> list[Any]:
    batch = tuple(packed._node.shape[:-1])
    parts = mv.split(packed, [sh.count(s) for s in shapes], -1)
    return [mv.reshape(p, (*batch, *s)) for p, s in zip(parts, shapes, strict=True)]


def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower (or upper) triangular `L` with `L @ L.mT = A`, of positive definite matrices.

    Raises:
        RuntimeError: when it runs, a matrix is not positive definite.
    """
    out = record(ops.CHOLESKY, (A,))
    return mv.transpose(out, -2, -1) if upper else out


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """The `X` of `A @ X = B`, given the Cholesky factor of `A`."""
    low = mv.transpose(L, -2, -1) if upper else L
    return solve(mv.transpose(low, -2, -1), solve(low, B))


def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverse of `A`, given its Cholesky factor."""
    low = mv.transpose(L, -2, -1) if upper else L
    return inv(matmul(low, mv.transpose(low, -2, -1)))


def qr(A: Tensor, mode: str = "reduced") -> Orthogonal:
    """`Q` with orthonormal columns and upper triangular `R` with `A = Q @ R`."""
    if mode != "reduced":
        raise ValueError(f"linalg.qr: mode 'reduced' is supported, not {mode!r}")
    return Orthogonal(*_factors(record(ops.QR, (A,)), ops.qr_shapes(tuple(A._node.shape))))


def svd(A: Tensor, full_matrices: bool = False) -> Singular:
    """The reduced singular value decomposition `A = U @ diag(S) @ Vh`, `S` descending.

    Raises:
        ValueError: the full one is asked for, whose additional columns mean nothing.
    """
    shape = tuple(A._node.shape)
    if full_matrices and shape[-1] != shape[-2]:
        raise ValueError("linalg.svd: only full_matrices=False is supported")
    return Singular(*_factors(record(ops.SVD, (A,)), ops.svd_shapes(shape)))


def svd_of_columns(input: Tensor, some: bool = True, compute_uv: bool = True) -> Columns:
    """`linalg.svd` as `treadle.svd` and the method give it: `A = U @ diag(S) @ V.mT`.

    Args:
        some: reduced; the full one is not supported where it differs.
        compute_uv: give U and V, zeros otherwise.
    """
    u, s, vh = svd(input, not some)
    v = mv.transpose(vh, -2, -1)
    return Columns(u, s, v) if compute_uv else Columns(ar.mul(u, 0), s, ar.mul(v, 0))


def svdvals(A: Tensor) -> Tensor:
    """The singular values, descending."""
    out: Tensor = svd(A).S
    return out


def eigh(A: Tensor, UPLO: str = "L") -> Eigen:
    """Eigenvalues, ascending, and eigenvectors (columns) of symmetric matrices.

    Args:
        UPLO: which triangle is read, `"L"` or `"U"`.
    """
    if UPLO not in ("L", "U"):
        raise ValueError(f"linalg.eigh: UPLO is 'L' or 'U', not {UPLO!r}")
    x = A if UPLO == "L" else mv.transpose(A, -2, -1)
    return Eigen(*_factors(record(ops.EIGH, (x,)), ops.eigh_shapes(tuple(A._node.shape))))


def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, ascending."""
    out: Tensor = eigh(A, UPLO).eigenvalues
    return out


# --- the rest ----------------------------------------------------------------------------------


def matrix_rank(A: Tensor, *, rtol: float | None = None) -> Tensor:
    """How many singular values are above `rtol` times the largest."""
    s: Any = svdvals(A.detach())
    eps = {"float64": 2.220446049250313e-16}.get(A._node.dtype.name, 1.1920928955078125e-07)
    bound = rtol if rtol is not None else eps * max(A._node.shape[-2:])
    return red.sum(ar.gt(s, ar.mul(red.amax(s, -1, True), bound)), -1)


def matrix_power(A: Tensor, n: int) -> Tensor:
    """The product of `n` times the same square matrices; of the inverse for negative `n`."""
    if A._node.shape[-1] != A._node.shape[-2]:
        raise ShapeError(f"linalg.matrix_power: expected square matrices, got {tuple(A.shape)}")
    base, left = (inv(A), -n) if n < 0 else (A, n)
    if not left:
        return ar.add(ar.mul(A, 0), eye(A._node.shape[-1], dtype=A._node.dtype))
    out: Any = None
    while left:
        if left & 1:
            out = base if out is None else matmul(out, base)
        left >>= 1
        base = matmul(base, base) if left else base
    return out


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices in a good order."""
    return multi_dot_chain(*tensors)


def cond(A: Tensor) -> Tensor:
    """The largest by the smallest singular value."""
    s = svdvals(A)
    return ar.div(mv.narrow(s, -1, 0, 1), mv.narrow(s, -1, s._node.shape[-1] - 1, 1)).squeeze(-1)
