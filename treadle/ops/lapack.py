"""Decompositions and solutions of linear systems, on the host through LAPACK.

A decomposition has one result: its factors packed one after another in rows (`unpack` cuts them).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.errors import ShapeError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ir.node import Node
from treadle.ops import pointwise as pw
from treadle.ops import source, view
from treadle.ops.contract import contract
from treadle.ops.table import Arg, Op, Sample, make, no_lowering, per_input, require_float

np = LazyModule("numpy")


# --- small matrix algebra on nodes -------------------------------------------------------------


def product(a: Node, b: Node) -> Node:
    """The matrix product of the last two axes; the others are the same batch."""
    batch = tuple(range(3, 1 + len(a.shape)))
    return contract(a, b, (*batch, 0, 2), (*batch, 2, 1), (*batch, 0, 1))


def transposed(x: Node) -> Node:
    """The last two axes exchanged."""
    rank = len(x.shape)
    return view.permute(x, (*range(rank - 2), rank - 1, rank - 2))


def _triangle(x: Node, lower: bool, strict: bool = False) -> Node:
    """The elements on one side of the diagonal, zeros elsewhere."""
    shape = x.shape[-2:]
    row, column = source.iota(shape, 0), source.iota(shape, 1)
    a, b = (row, column) if lower else (column, row)
    return pw.where(pw.gt(a, b) if strict else pw.ge(a, b), x, pw.like(0, x))


def _eye(x: Node) -> Node:
    shape = x.shape[-2:]
    return pw.cast(pw.eq(source.iota(shape, 0), source.iota(shape, 1)), x.dtype)


def _columns(v: Node) -> Node:
    """A vector as a column factor: `(.., n)` to `(.., n, 1)`."""
    return view.reshape(v, (*v.shape, 1))


def _rows(v: Node) -> Node:
    return view.reshape(v, (*v.shape[:-1], 1, v.shape[-1]))


def _square(name: str, x: Any) -> DType:
    dtype = require_float(name, x)
    if len(x.shape) < 2 or x.shape[-1] != x.shape[-2]:
        raise ShapeError(
            f"linalg.{name}: the input must be batches of square matrices, got {tuple(x.shape)}"
        )
    return dtype


def _in_double(function: Callable[..., Any]) -> Callable[..., Any]:
    """LAPACK knows single and double precision; half precision is computed in single."""

    def run(*args: Any) -> Any:
        dtype = args[0].dtype
        if dtype.itemsize < 4:
            args = tuple(a.astype(np.float32) if hasattr(a, "dtype") else a for a in args)
        try:
            return function(*args).astype(dtype)
        except np.linalg.LinAlgError as error:
            raise RuntimeError(f"linalg: {error}; hint: the matrix is singular or nearly so, or "
                               f"not positive definite") from error  # fmt: skip

    return run


def _pack(parts: Sequence[Any]) -> Any:
    batch = parts[0].shape[: parts[0].ndim - 2] if parts[0].ndim >= 2 else ()
    return np.concatenate([np.reshape(p, (*batch, -1)) for p in parts], -1)


def cut(packed: Node, shapes: Sequence[Shape]) -> list[Node]:
    """The factors of a packed decomposition, given their shapes without the batch."""
    batch = packed.shape[:-1]
    out, start = [], 0
    for shape in shapes:
        n = sh.count(shape)
        starts = (*(0,) * len(batch), start)
        part = view.slice_(packed, starts, (*batch, start + n), (1,) * len(starts))
        out.append(view.reshape(part, (*batch, *shape)))
        start += n
    return out


# --- inverse, solution, determinant ------------------------------------------------------------


def _inverse_gradient(node: Node, g: Node) -> Node:
    t = transposed(node)
    return pw.neg(product(product(t, g), t))


_SQUARE: Final = (Sample((Arg((3, 3), dt.float64),)), Sample((Arg((2, 3, 3), dt.float64),)))

INVERSE: Final = Op(
    name="inverse", kind="host", attr_names=(), infer=lambda x: (x.shape, _square("inv", x)),
    vjp=per_input(_inverse_gradient), lower=no_lowering,
    ref=_in_double(lambda x: np.linalg.inv(x)), samples=_SQUARE, doc="the inverse of matrices",
)  # fmt: skip


def _solve_infer(a: Any, b: Any) -> tuple[Shape, DType]:
    dtype = _square("solve", a)
    if b.shape[:-1] != a.shape[:-1] or b.dtype is not dtype:
        raise ShapeError(
            f"linalg.solve: matrices {tuple(a.shape)} and right sides {tuple(b.shape)} do not fit"
        )
    return b.shape, dtype


def _solve_gradient(node: Node, g: Node, i: int) -> Node:
    right = make(SOLVE, (transposed(node.inputs[0]), g))
    return right if i == 1 else pw.neg(product(right, transposed(node)))


SOLVE: Final[Op] = Op(
    name="solve", kind="host", attr_names=(), infer=_solve_infer, vjp=_solve_gradient,
    lower=no_lowering, ref=_in_double(lambda a, b: np.linalg.solve(a, b)),
    samples=(
        Sample((Arg((3, 3), dt.float64), Arg((3, 2), dt.float64))),
        Sample((Arg((2, 3, 3), dt.float64), Arg((2, 3, 1), dt.float64))),
    ),
    doc="the x of a @ x = b",
)  # fmt: skip


def _det_gradient(node: Node, g: Node) -> Node:
    t = transposed(make(INVERSE, node.inputs))
    return pw.mul(_columns(_columns(pw.mul(g, node))), t)


DET: Final = Op(
    name="det", kind="host", attr_names=(), infer=lambda x: (x.shape[:-2], _square("det", x)),
    vjp=per_input(_det_gradient), lower=no_lowering,
    ref=_in_double(lambda x: np.linalg.det(x)), samples=_SQUARE, doc="the determinant of matrices",
)  # fmt: skip


def _logdet_gradient(node: Node, g: Node) -> Node:
    return pw.mul(_columns(_columns(g)), transposed(make(INVERSE, node.inputs)))


LOGDET: Final = Op(
    name="logabsdet", kind="host", attr_names=(),
    infer=lambda x: (x.shape[:-2], _square("slogdet", x)), vjp=per_input(_logdet_gradient),
    lower=no_lowering, ref=_in_double(lambda x: np.linalg.slogdet(x)[1]), samples=_SQUARE,
    doc="the logarithm of the absolute value of the determinant",
)  # fmt: skip
SIGN_DET: Final = Op(
    name="sign_det", kind="host", attr_names=(),
    infer=lambda x: (x.shape[:-2], _square("slogdet", x)),
    vjp=per_input(lambda n, g: source.full(n.inputs[0].shape, 0, n.dtype)), lower=no_lowering,
    ref=_in_double(lambda x: np.linalg.slogdet(x)[0]), samples=_SQUARE,
    doc="the sign of the determinant",
)  # fmt: skip


# --- factors -----------------------------------------------------------------------------------


def _cholesky_gradient(node: Node, g: Node) -> Node:
    """Murray, "Differentiation of the Cholesky decomposition" (arXiv:1602.07527), eq. 9."""
    inner = _triangle(product(transposed(node), g), lower=True)
    half = pw.sub(inner, pw.mul(pw.mul(inner, _eye(node)), pw.like(0.5, node)))
    inverse = make(INVERSE, (node,))
    s = product(product(transposed(inverse), half), inverse)
    return pw.mul(pw.add(s, transposed(s)), pw.like(0.5, node))


def _cholesky_ref(x: Any) -> Any:
    return np.linalg.cholesky(x)


CHOLESKY: Final = Op(
    name="cholesky", kind="host", attr_names=(),
    infer=lambda x: (x.shape, _square("cholesky", x)), vjp=per_input(_cholesky_gradient),
    lower=no_lowering, ref=_in_double(_cholesky_ref), samples=(),
    doc="the lower triangular l with l @ l.T the given positive definite matrix",
)  # fmt: skip


def qr_shapes(shape: Shape) -> list[Shape]:
    """The factors of a reduced QR decomposition."""
    m, n = shape[-2:]
    return [(m, min(m, n)), (min(m, n), n)]


def svd_shapes(shape: Shape) -> list[Shape]:
    """The factors u, s and vh of a reduced singular value decomposition."""
    m, n = shape[-2:]
    k = min(m, n)
    return [(m, k), (k,), (k, n)]


def eigh_shapes(shape: Shape) -> list[Shape]:
    """The eigenvalues and eigenvectors of a symmetric matrix."""
    n = shape[-1]
    return [(n,), (n, n)]


def _packed(name: str, shapes: Callable[[Shape], list[Shape]]) -> Callable[[Any], Any]:
    def infer(x: Any) -> tuple[Shape, DType]:
        dtype = require_float(name, x) if name != "eigh" else _square(name, x)
        if len(x.shape) < 2:
            raise ShapeError(f"linalg.{name}: expected matrices, got {tuple(x.shape)}")
        return (*x.shape[:-2], sum(map(sh.count, shapes(x.shape)))), dtype

    return infer


def _qr_gradient(node: Node, g: Node) -> Node:
    """Walter and Lehmann, "Algorithmic differentiation of the QR decomposition" (2018); for wide
    matrices the columns past the square part follow from Q alone."""
    x = node.inputs[0]
    m, n = x.shape[-2:]
    shapes = qr_shapes(x.shape)
    q, r = cut(node, shapes)
    gq, gr = cut(g, shapes)
    if m < n:
        left, right = _split(x, m)
        _, r1 = q, _split(r, m)[0]
        g1, g2 = _split(gr, m)
        gq = pw.add(gq, product(right, transposed(g2)))
        first = _qr_tall(q, r1, gq, g1)
        return _beside(first, product(q, g2), left.shape[-1])
    return _qr_tall(q, r, gq, gr)


def _qr_tall(q: Node, r: Node, gq: Node, gr: Node) -> Node:
    m = pw.sub(product(r, transposed(gr)), product(transposed(gq), q))
    lower = _triangle(m, lower=True, strict=True)
    sym = pw.add(_triangle(m, lower=True), transposed(lower))
    inner = pw.add(gq, product(q, sym))
    return transposed(make(SOLVE, (r, transposed(inner))))


def _split(x: Node, at: int) -> tuple[Node, Node]:
    rank = len(x.shape)
    ones, zeros = (1,) * rank, (0,) * rank
    left = view.slice_(x, zeros, (*x.shape[:-1], at), ones)
    return left, view.slice_(x, (*zeros[:-1], at), x.shape, ones)


def _beside(a: Node, b: Node, at: int) -> Node:
    shape = (*a.shape[:-1], at + b.shape[-1])
    ones, zeros = (1,) * len(shape), (0,) * len(shape)
    return pw.add(
        view.unslice(a, shape, zeros, ones), view.unslice(b, shape, (*zeros[:-1], at), ones)
    )


QR: Final = Op(
    name="qr", kind="host", attr_names=(), infer=_packed("qr", qr_shapes),
    vjp=per_input(_qr_gradient), lower=no_lowering,
    ref=_in_double(lambda x: _pack(np.linalg.qr(x))),
    samples=tuple(Sample((Arg(s, dt.float64),)) for s in ((4, 3), (3, 3), (3, 5), (2, 3, 2))),
    doc="the reduced QR decomposition, q and r packed",
)  # fmt: skip


def _gaps(values: Node, eye: Node) -> Node:
    """`1 / (v_j - v_i)` off the diagonal, 0 on it."""
    gap = pw.add(pw.sub(_rows(values), _columns(values)), eye)
    return pw.div(pw.sub(pw.like(1, eye), eye), gap)


def _eigh_gradient(node: Node, g: Node) -> Node:
    shapes = eigh_shapes(node.inputs[0].shape)
    w, v = cut(node, shapes)
    gw, gv = cut(g, shapes)
    eye = _eye(v)
    inner = pw.mul(product(transposed(v), gv), _gaps(w, eye))
    inner = pw.add(inner, pw.mul(eye, _columns(gw)))
    out = product(product(v, inner), transposed(v))
    # Only the lower triangle is read, and stands for both: the gradient is symmetric.
    return pw.mul(pw.add(out, transposed(out)), pw.like(0.5, out))


def _eigh_ref(x: Any) -> Any:
    w, v = np.linalg.eigh(x)
    return np.concatenate([w, v.reshape(*v.shape[:-2], -1)], -1)


EIGH: Final = Op(
    name="eigh", kind="host", attr_names=(), infer=_packed("eigh", eigh_shapes),
    vjp=per_input(_eigh_gradient), lower=no_lowering, ref=_in_double(_eigh_ref), samples=(),
    doc="eigenvalues (ascending) and eigenvectors of symmetric matrices, packed",
)  # fmt: skip


def _svd_gradient(node: Node, g: Node) -> Node:
    """Giles, "An extended collection of matrix derivative results" (2008), section 3.2."""
    shapes = svd_shapes(node.inputs[0].shape)
    u, s, vh = cut(node, shapes)
    gu, gs, gvh = cut(g, shapes)
    eye = source_eye(s)
    f = _gaps(pw.mul(s, s), eye)
    left = pw.mul(f, _skew(product(transposed(u), gu)))
    right = pw.mul(f, _skew(product(vh, transposed(gvh))))
    core = pw.add(pw.mul(left, _rows(s)), pw.mul(_columns(s), right))
    core = pw.add(core, pw.mul(eye, _columns(gs)))
    out = product(product(u, core), vh)
    return pw.add(out, _svd_outside(u, s, vh, gu, gvh))


def source_eye(s: Node) -> Node:
    """The identity of the size of a vector."""
    n = s.shape[-1]
    same = pw.eq(source.iota((n, n), 0), source.iota((n, n), 1))
    return pw.cast(same, s.dtype)


def _skew(x: Node) -> Node:
    return pw.sub(x, transposed(x))


def _svd_outside(u: Node, s: Node, vh: Node, gu: Node, gvh: Node) -> Node:
    """What the gradients of u and v say outside of the spaces that these span."""
    a = product(pw.div(gu, _rows(s)), vh)
    a = pw.sub(a, product(u, product(transposed(u), a)))
    b = product(u, pw.div(gvh, _columns(s)))
    return pw.add(a, pw.sub(b, product(product(b, transposed(vh)), vh)))


SVD: Final = Op(
    name="svd", kind="host", attr_names=(), infer=_packed("svd", svd_shapes),
    vjp=per_input(_svd_gradient), lower=no_lowering,
    ref=_in_double(lambda x: _svd_pack(*np.linalg.svd(x, full_matrices=False))),
    samples=tuple(Sample((Arg(s, dt.float64),)) for s in ((4, 3), (3, 3), (3, 5), (2, 3, 2))),
    doc="the reduced singular value decomposition: u, s and vh packed",
)  # fmt: skip


def _svd_pack(u: Any, s: Any, vh: Any) -> Any:
    batch = s.shape[:-1]
    return np.concatenate([u.reshape(*batch, -1), s, vh.reshape(*batch, -1)], -1)
