"""Reading and writing at positions held by tensors: gather, scatter and their relatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.errors import DTypeError, ShapeError
from treadle.base.lazy import LazyModule
from treadle.ops.gather import SCATTER_ADD, SCATTER_ALONG, TAKE, TAKE_ALONG
from treadle.ops.order import LAST_WRITE
from treadle.ops.pointwise import CHECK
from treadle.ops.scatter import SCATTER_REDUCE
from treadle.ops.source import FULL
from treadle.ops.view import ALIAS
from treadle.tensor import arithmetic as ar
from treadle.tensor import movement as mv
from treadle.tensor.creation import arange, from_numpy
from treadle.tensor.promote import as_dtype, result_type
from treadle.tensor.record import Lazy, block, record

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

np = LazyModule("numpy")


def _index(name: str, index: Any) -> Any:
    if index._node.dtype.kind not in "iu":
        raise DTypeError(f"{name}(): expected an integer index, got {index._node.dtype.name}")
    return as_dtype(index, dt.int64)


def gather(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """`out[.., i, ..] = input[.., index[.., i, ..], ..]` along `dim`; the shape of the index.

    Args:
        index: integers of the rank of the input, in other axes not larger than it.

    Raises:
        ShapeError: the ranks differ, or the index is larger than the input.
        IndexBoundsError: when it runs, an index is out of bounds.

    Example:
        >>> import treadle
        >>> treadle.gather(treadle.tensor([[1, 2], [3, 4]]), 1, treadle.tensor([[0, 0], [1, 0]]))
        tensor([[1, 1],
                [4, 3]])
    """
    if not input._node.shape:
        return mv.reshape(gather(mv.reshape(input, 1), dim, mv.reshape(index, -1)), index.shape)
    axis = sh.axis(dim, len(input._node.shape))
    return record(TAKE_ALONG, (input, _index("gather", index)), (axis,))


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """`gather` with the other axes broadcast; without `dim` of the flattened tensor."""
    if dim is None:
        return gather(mv.reshape(input, -1), 0, mv.reshape(indices, -1))
    axis = sh.axis(dim, len(input._node.shape))

    def others(x: Any) -> list[int]:
        return [1 if i == axis else n for i, n in enumerate(x._node.shape)]

    common = sh.broadcast(others(input), others(indices))

    def spread(x: Any) -> Any:
        return mv.expand(x, tuple(x._node.shape[i] if i == axis else n for i, n in
                                  enumerate(common)))  # fmt: skip

    return gather(spread(input), axis, spread(indices))


def take(input: Tensor, index: Tensor) -> Tensor:
    """The elements of the flattened tensor at an index of any shape."""
    return record(TAKE, (mv.reshape(input, -1), _index("take", index)), (0,))


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The slices along `dim` at the positions of a vector."""
    if len(index._node.shape) > 1:
        raise ShapeError(f"index_select: the index must be a vector, got {tuple(index.shape)}")
    flat = mv.reshape(_index("index_select", index), -1)
    if not input._node.shape:
        return mv.reshape(index_select(mv.reshape(input, 1), 0, flat), ())
    return record(TAKE, (input, flat), (sh.axis(dim, len(input._node.shape)),))


# --- scatter -----------------------------------------------------------------------------------


def _part(src: Any, index: Any) -> Any:
    """The part of the source that the index covers."""
    for axis, n in enumerate(index._node.shape):
        if src._node.shape[axis] < n:
            raise ShapeError(
                f"scatter: index {tuple(index.shape)} is larger than the source {tuple(src.shape)}"
            )
        src = mv.narrow(src, axis, 0, n)
    return src


def _prepared(input: Any, dim: int, index: Any, src: Any) -> tuple[int, Any, Any]:
    rank = len(input._node.shape)
    axis = sh.axis(dim, rank)
    where = _index("scatter", index)
    if len(where._node.shape) != rank:
        raise ShapeError(
            f"scatter: index {tuple(index.shape)} and input {tuple(input.shape)} differ in rank"
        )
    if not isinstance(src, Lazy):
        return axis, where, mv.expand(as_dtype(src, input._node.dtype), where._node.shape)
    if src._node.dtype is not input._node.dtype:
        raise DTypeError(
            f"scatter(): expected the source to have dtype {input._node.dtype.name}, got "
            f"{src._node.dtype.name}"
        )
    return axis, where, _part(src, where)


def scatter(
    input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None,
    reduce: str | None = None,
) -> Tensor:  # fmt: skip
    """A copy in which `out[.., index[.., i, ..], ..] = src[.., i, ..]` along `dim`.

    Where several elements go to one place the last in row-major order wins.

    Args:
        index: integers of the rank of the input.
        src: what is written, at least of the shape of the index, or a number.
        reduce: `"add"` or `"multiply"`: combined with what is there instead.

    Raises:
        IndexBoundsError: when it runs, an index is out of bounds.
    """
    if not input._node.shape:
        given: Any = src.reshape(-1) if hasattr(src, "reshape") else src
        return _lifted(scatter, input, dim, index, given, value=value, reduce=reduce)
    if reduce == "add":
        return scatter_add(input, dim, index, value if src is None else src)
    if reduce == "multiply":
        _, where, source = _prepared(input, dim, index, value if src is None else src)
        return scatter_reduce(input, dim, where, source, "prod")
    if reduce is not None:
        raise ValueError(f"scatter: reduce is None, 'add' or 'multiply', not {reduce!r}")
    axis, where, source = _prepared(input, dim, index, value if src is None else src)
    last = record(LAST_WRITE, (where,), (axis, tuple(input._node.shape)))
    return _written(input, last, source)


def _written(input: Any, last: Any, source: Any) -> Any:
    """The input with the elements of a source where `last` says which."""
    if not sh.count(source._node.shape):
        return record(ALIAS, (input,))
    picked = record(TAKE, (mv.reshape(source, -1), ar.clamp(last, min=0)), (0,))
    return ar.where(ar.ge(last, 0), picked, input)


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Any) -> Tensor:
    """A copy to which `src` is added at `index` along `dim`; repeated places add up."""
    if not input._node.shape:
        given: Any = src.reshape(-1) if hasattr(src, "reshape") else src
        return _lifted(scatter_add, input, dim, index, given)
    axis, where, source = _prepared(input, dim, index, src)
    return ar.add(input, record(SCATTER_ALONG, (source, where), (axis, tuple(input._node.shape))))


def scatter_reduce(
    input: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str, *, include_self: bool = True
) -> Tensor:
    """A copy into which `src` is combined at `index` along `dim`.

    Args:
        reduce: `"sum"`, `"prod"`, `"mean"`, `"amax"` or `"amin"`.
        include_self: whether what is there counts; places that nothing goes to keep it anyway.
    """
    if not input._node.shape:
        flat = mv.reshape(src, -1)
        return _lifted(scatter_reduce, input, dim, index, flat, reduce, include_self=include_self)
    axis, where, source = _prepared(input, dim, index, src)
    attrs = (axis, tuple(input._node.shape))
    if input._node.dtype is dt.bool_:
        whole = [as_dtype(x, dt.uint8) for x in (input, source)]
        way = {"sum": "amax", "mean": "amin", "prod": "amin"}.get(reduce, reduce)
        return as_dtype(
            scatter_reduce(whole[0], dim, where, whole[1], way, include_self=include_self), dt.bool_
        )
    if reduce in ("prod", "amax", "amin"):
        return record(SCATTER_REDUCE, (input, where, source), (axis, reduce, include_self))
    if reduce not in ("sum", "mean"):
        raise ValueError(f"scatter_reduce: reduce is sum, prod, mean, amax or amin, not {reduce!r}")
    ones = record(FULL, (), (tuple(where._node.shape), 1, input._node.dtype))
    count = record(SCATTER_ALONG, (ones, where), attrs)
    untouched = ar.eq(count, 0)
    zero = as_dtype(0, input._node.dtype)
    start = input if include_self else ar.where(untouched, input, zero)
    total = ar.add(start, record(SCATTER_ALONG, (source, where), attrs))
    if reduce == "sum":
        return total
    parts = ar.add(count, 1) if include_self else ar.clamp(count, min=1)
    if input._node.dtype.kind != "f":
        return ar.floor_divide(total, parts)
    return ar.div(total, parts)


def index_add(
    input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1
) -> Tensor:
    """A copy to whose slices at a vector of positions those of `source` are added."""
    if not input._node.shape:
        return _lifted(index_add, input, dim, index, mv.reshape(source, -1), alpha=alpha)
    index = mv.reshape(index, -1)
    axis = sh.axis(dim, len(input._node.shape))
    laid = record(
        SCATTER_ADD, (source, _index("index_add", index)), (axis, input._node.shape[axis])
    )
    return ar.add(input, laid, alpha=alpha)


def _lifted(function: Any, input: Any, dim: int, index: Any, *args: Any, **options: Any) -> Any:
    """A function of positions along an axis, of a scalar: as of a vector of one."""
    out = function(mv.reshape(input, 1), dim, mv.reshape(index, -1), *args, **options)
    return mv.reshape(out, ())


def _slices(input: Any, axis: int, index: Any) -> Any:
    """A vector of positions along an axis as the index of all elements of these slices."""
    shape = tuple(input._node.shape)
    column = tuple(-1 if i == axis else 1 for i in range(len(shape)))
    n = index._node.shape[0]
    return mv.expand(mv.reshape(index, column), (*shape[:axis], n, *shape[axis + 1 :]))


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """A copy whose slices at a vector of positions are those of `source`."""
    if not input._node.shape:
        return _lifted(index_copy, input, dim, index, mv.reshape(source, -1))
    index = mv.reshape(index, -1)
    axis = sh.axis(dim, len(input._node.shape))
    return scatter(input, axis, _slices(input, axis, _index("index_copy", index)), source)


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """A copy whose slices at a vector of positions are one value, a number or 0-d tensor."""
    if not input._node.shape:
        return _lifted(index_fill, input, dim, index, value)
    axis = sh.axis(dim, len(input._node.shape))
    where = _slices(input, axis, _index("index_fill", mv.reshape(index, -1)))
    if not isinstance(value, Lazy):
        return scatter(input, axis, where, value=value)
    return scatter(input, axis, where, mv.expand(as_dtype(value, input._node.dtype), where.shape))


def place(input: Any, flat: Any, values: Any, accumulate: bool = False) -> Any:
    """A copy of a tensor whose elements at row-major positions are others, or are added to."""
    shape = tuple(input._node.shape)
    size = sh.count(shape)
    where, source = mv.reshape(flat, -1), mv.reshape(values, -1)
    if accumulate:
        laid = record(SCATTER_ADD, (source, where), (0, size))
        return ar.add(input, mv.reshape(laid, shape))
    last = record(LAST_WRITE, (where,), (0, (size,)))
    return _written(input, mv.reshape(last, shape), source)


# --- masks and positions -----------------------------------------------------------------------


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """The value where the mask is true, broadcast."""
    return ar.where(mask, as_dtype(value, input._node.dtype), input)


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """The elements where the mask is true, as a vector; reads the mask."""
    shape = sh.broadcast(input._node.shape, mask._node.shape)
    flat = mv.reshape(mv.expand(input, shape), -1)
    places = np.flatnonzero(np.broadcast_to(mask.detach().numpy(), shape))
    return record(TAKE, (flat, from_numpy(places)), (0,))


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """A copy in which the elements under the mask, broadcast, are those of `source` in order."""
    shape = sh.broadcast(input._node.shape, mask._node.shape)
    input = mv.expand(input, shape)
    places = np.flatnonzero(np.broadcast_to(mask.detach().numpy(), shape))
    if len(places) > sh.count(source._node.shape):
        raise ShapeError(
            f"masked_scatter: the mask has {len(places)} true elements, the source only "
            f"{sh.count(source._node.shape)}"
        )
    values = mv.narrow(mv.reshape(source, -1), 0, 0, len(places))
    return place(input, from_numpy(places), values)


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The positions of the elements that are not zero, one a row `(n, rank)`; reads them.

    Args:
        as_tuple: give one vector for each axis instead.
    """
    array = input.detach().numpy()
    places = np.nonzero(array.reshape(-1) if not array.ndim else array)
    if as_tuple:
        return tuple(from_numpy(np.ascontiguousarray(p)) for p in places)
    rank = len(input._node.shape)
    return from_numpy(np.stack(places, 1) if rank else np.zeros((len(places[0]), 0), np.int64))


argwhere = nonzero


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where the condition holds, else `other`, broadcast; of a condition alone the
    positions where it holds, one vector for each axis."""
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return ar.where(condition, input, other)


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 with a 1 at the class and 0 elsewhere along a new last axis.

    Args:
        tensor: whole numbers in `[0, num_classes)`.
        num_classes: the extent of that axis; -1 reads the largest class.

    Raises:
        IndexBoundsError: when it runs, a class is out of range.
    """
    classes = _index("one_hot", tensor)
    if num_classes < 0:
        if not sh.count(classes._node.shape):
            raise ShapeError("one_hot: the number of classes of an empty tensor must be given")
        num_classes = int(classes.max().item()) + 1
    return block(_one_hot, (classes,), (num_classes,))


def _one_hot(index: Any, classes: int) -> Any:
    ok = ar.logical_and(ar.ge(index, 0), ar.lt(index, classes))
    index = record(CHECK, (index, ok), (f"Class values must be in [0, {classes})",))
    return as_dtype(ar.eq(mv.unsqueeze(index, -1), arange(classes)), dt.int64)


def repeat_interleave(
    input: Tensor, repeats: int | Tensor, dim: int | None = None, *, output_size: int | None = None
) -> Tensor:
    """Each element, or slice along `dim`, repeated in place.

    Args:
        repeats: how often, for all or for each; a tensor is read.
        output_size: not needed; the counts are read anyway.
    """
    if dim is None:
        return repeat_interleave(mv.reshape(input, -1), repeats, 0)
    axis = sh.axis(dim, len(input._node.shape))
    extent = input._node.shape[axis]
    if isinstance(repeats, int):
        column = mv.unsqueeze(input, axis + 1)
        shape = tuple(input._node.shape)
        wide = mv.expand(column, (*shape[: axis + 1], repeats, *shape[axis + 1 :]))
        return mv.reshape(wide, (*shape[:axis], extent * repeats, *shape[axis + 1 :]))
    counts = repeats.detach().numpy().reshape(-1)
    if len(counts) not in (1, extent):
        raise ShapeError(
            f"repeat_interleave: {len(counts)} repeats for {extent} slices along dimension {axis}"
        )
    places = np.repeat(np.arange(extent), counts)
    return record(TAKE, (input, from_numpy(places)), (axis,))


def promote_pair(a: Any, b: Any) -> tuple[Any, Any]:
    """Two tensors in the dtype of an operation on both."""
    dtype = result_type(a, b)
    return as_dtype(a, dtype), as_dtype(b, dtype)


def isin(elements: Any, test_elements: Any, *, invert: bool = False) -> Tensor:
    """Whether each element is among the test elements."""
    a, b = promote_pair(elements, test_elements)
    column = mv.unsqueeze(a, -1)
    hit: Any = ar.eq(column, mv.reshape(b, -1))
    found: Any = hit.any(-1)
    return ar.logical_not(found) if invert else found


def index_put(
    input: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Tensor:
    """A copy with `values` at `input[indices]`, or added there."""
    out: Any = record(ALIAS, (input,))
    return out.index_put_(indices, values, accumulate)
