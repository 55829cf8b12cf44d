"""Samples into batches: the default rules of a `DataLoader`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from treadle.base.lazy import LazyModule
from treadle.tensor import Tensor, from_numpy, stack

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


def default_collate(batch: Sequence[Any]) -> Any:
    """Put samples together: tensors, arrays and numbers gain a first dimension of `len(batch)`.

    Tensors and arrays are stacked (`dtype` kept); floats give float64, ints int64, bools bool;
    strings and bytes stay a list; mappings, tuples, named tuples and sequences are collated member
    by member.

    Args:
        batch: a non-empty list of samples of one structure.

    Raises:
        TypeError: a sample is of a type that has no rule.
        RuntimeError: samples differ in shape, or in how many members they have.

    Example:
        >>> import treadle
        >>> images, labels = default_collate([(treadle.zeros(3), 1), (treadle.ones(3), 2)])
        >>> images.shape
        treadle.Size([2, 3])
    """
    first = batch[0]
    if isinstance(first, Tensor):
        return _stack_tensors(batch)
    if isinstance(first, str | bytes):
        return batch
    if isinstance(first, bool | int | float):
        kind = np.float64 if isinstance(first, float) else None
        return from_numpy(np.array(batch, dtype=kind))
    if isinstance(first, Mapping):
        return _rebuild(first, {key: default_collate([d[key] for d in batch]) for key in first})
    if isinstance(first, Sequence):
        return _collate_sequences(first, batch)
    if type(first).__module__ == "numpy":
        return _stack_arrays(first, batch)
    raise TypeError(
        "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; "
        f"found {type(first)}: add a transform such as ToTensor, or pass a collate_fn"
    )


def default_convert(data: Any) -> Any:
    """Turn NumPy arrays, also inside of containers, into tensors and leave all else as it is."""
    if isinstance(data, Tensor | str | bytes):
        return data
    if type(data).__module__ == "numpy":
        array = np.asarray(data)
        return data if array.dtype.kind in "SUO" else from_numpy(array)
    if isinstance(data, Mapping):
        return _rebuild(data, {key: default_convert(value) for key, value in data.items()})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(value) for value in data))
    if isinstance(data, Sequence):
        return [default_convert(value) for value in data]
    return data


def _stack_tensors(batch: Sequence[Tensor]) -> Tensor:
    shapes = {tuple(tensor.shape) for tensor in batch}
    if len(shapes) > 1:
        raise RuntimeError(
            f"stack expects each tensor to be equal size, but got {sorted(shapes)}: "
            "resize or pad the samples, or pass a collate_fn"
        )
    if any(tensor.requires_grad for tensor in batch):
        return stack(list(batch))
    # Samples are small and of varying number: one copy by NumPy beats a kernel with as many inputs.
    return from_numpy(np.stack([tensor.numpy() for tensor in batch]))


def _stack_arrays(first: Any, batch: Sequence[Any]) -> Any:
    if first.dtype.kind in "SUO":
        raise TypeError(f"default_collate: cannot make a tensor of NumPy's {first.dtype}")
    return _stack_tensors([from_numpy(np.asarray(array)) for array in batch])


def _collate_sequences(first: Sequence[Any], batch: Sequence[Any]) -> Any:
    if any(len(sample) != len(first) for sample in batch):
        raise RuntimeError("each element in list of batch should be of equal size")
    members = [default_collate(member) for member in zip(*batch, strict=True)]
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return type(first)(*members)
    # PyTorch gives a list for tuples as well.
    return members


def _rebuild(first: Mapping[Any, Any], members: dict[Any, Any]) -> Any:
    if type(first) is dict:
        return members
    try:
        return type(first)(members)  # type: ignore[call-arg]
    except TypeError:
        # A mapping whose constructor takes something else: a plain dict holds the same.
        return members
