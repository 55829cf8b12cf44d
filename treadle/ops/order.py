"""Sorting and searching, on the host: they give positions, so they have no gradient."""

from __future__ import annotations

from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import IndexBoundsError, ShapeError
from treadle.base.lazy import LazyModule
from treadle.base.shape import Shape
from treadle.ops.host import by_rows
from treadle.ops.rank import positions
from treadle.ops.table import NO_GRADIENT, Arg, Op, Sample, no_lowering

np = LazyModule("numpy")


def comparable(x: Any) -> Any:
    """An array that NumPy can order: bfloat16, which it does not know, as float32."""
    return x.astype(np.float32) if x.dtype.kind == "V" else x


def _same_shape(x: Any, *attrs: Any) -> tuple[Shape, DType]:
    return x.shape, dt.int64


def _argsort_ref(x: Any, axis: int, descending: bool) -> Any:
    return positions(comparable(x), axis, 0, x.shape[axis], descending)


ARGSORT: Final = Op(
    name="argsort", kind="host", attr_names=("axis", "descending"), infer=_same_shape,
    vjp=NO_GRADIENT, lower=no_lowering, ref=_argsort_ref,
    samples=(
        Sample((Arg((3, 5)),), (1, False)), Sample((Arg((3, 5)),), (0, True)),
        Sample((Arg((6,), dt.int64),), (0, True)),
    ),
    doc="the positions of the elements in order along an axis; equal ones keep theirs, NaN is last",
)  # fmt: skip


def _ranked_infer(
    x: Any, axis: int, start: int, stop: int, descending: bool
) -> tuple[Shape, DType]:
    return tuple(stop - start if d == axis else n for d, n in enumerate(x.shape)), dt.int64


RANKED: Final = Op(
    name="ranked", kind="host", attr_names=("axis", "start", "stop", "descending"),
    infer=_ranked_infer, vjp=NO_GRADIENT, lower=no_lowering,
    ref=lambda x, *attrs: positions(comparable(x), *attrs),
    samples=(
        Sample((Arg((3, 5)),), (1, 0, 2, False)), Sample((Arg((3, 5)),), (0, 1, 3, True)),
        Sample((Arg((6,), dt.int64),), (0, 2, 3, True)),
    ),
    doc="the positions of the elements of some ranks along an axis, as argsort gives them",
)  # fmt: skip


def _search_infer(edges: Any, x: Any, right: bool) -> tuple[Shape, DType]:
    if len(edges.shape) > 1 and edges.shape[:-1] != x.shape[:-1]:
        raise ShapeError(
            f"searchsorted: the first dimensions of the boundaries {tuple(edges.shape)} and the "
            f"values {tuple(x.shape)} must agree"
        )
    return x.shape, dt.int64


def _search_ref(edges: Any, x: Any, right: bool) -> Any:
    side = "right" if right else "left"
    if edges.ndim == 1:
        found = by_rows(lambda part: np.searchsorted(edges, part, side), x.reshape(-1))
        return found.reshape(x.shape)
    rows, points = edges.reshape(-1, edges.shape[-1]), x.reshape(-1, x.shape[-1])
    found = [np.searchsorted(e, p, side) for e, p in zip(rows, points, strict=True)]
    return np.array(found, np.int64).reshape(x.shape)


SEARCH: Final = Op(
    name="searchsorted", kind="host", attr_names=("right",), infer=_search_infer, vjp=NO_GRADIENT,
    lower=no_lowering, ref=_search_ref,
    samples=(
        Sample((Arg((5,), dt.float64, 0.0, 0.0), Arg((2, 3), dt.float64)), (False,)),
        Sample((Arg((2, 5), dt.float64, 0.0, 0.0), Arg((2, 3), dt.float64)), (True,)),
    ),
    doc="how many of the sorted boundaries are below each value, or not above it",
)  # fmt: skip


def _write_ref(index: Any, axis: int, shape: Shape) -> Any:
    extent = shape[axis]
    wrapped = np.where(index < 0, index + extent, index)
    if ((wrapped < 0) | (wrapped >= extent)).any():
        raise IndexBoundsError(f"index out of range for a dimension of size {extent}")
    out = np.full(shape, -1, np.int64)
    at = list(np.indices(index.shape))
    at[axis] = wrapped
    out[tuple(at)] = np.arange(index.size).reshape(index.shape)
    return out


LAST_WRITE: Final = Op(
    name="last_write", kind="host", attr_names=("axis", "shape"),
    infer=lambda index, axis, shape: (shape, dt.int64), vjp=NO_GRADIENT, lower=no_lowering,
    ref=_write_ref,
    samples=(
        Sample((Arg((4,), dt.int64, 0, 5),), (0, (5,))),
        Sample((Arg((2, 3), dt.int64, 0, 4),), (1, (3, 4))),
    ),
    doc="for each element of a shape the row-major position of the last index that writes to it "
    "along an axis, -1 where none does",
)  # fmt: skip
