"""Data sets: what has a length and items, or what can only be walked through."""

from __future__ import annotations

import bisect
import itertools
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from treadle.base.lazy import LazyModule
from treadle.tensor import Tensor, from_numpy
from treadle.tensor.random import Generator, host_generator
from treadle.utils.data.arrays import ArrayView
from treadle.utils.data.draws import loading
from treadle.utils.data.protocol import speaks

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

T = TypeVar("T", covariant=True)


class Dataset(Generic[T]):
    """A map from an index to a sample: subclasses write `__getitem__` and `__len__`.

    A data set that can fetch a whole batch at once may also write

    * `__getbatch__(indices)`: the samples at `indices` (int64 ndarray) stacked as NumPy arrays, or
      `NotImplemented`. It may run in a worker process.
    * `__tobatch__(arrays)`: the finished batch from those arrays, as the default collation of the
      single samples would give it. It runs in the main process, so what it does with tensors is
      recorded and becomes part of the step that uses the batch. Without it the arrays become
      tensors.

    `__getitems__(indices)` is PyTorch's: a list of samples, still to be collated.
    """

    def __getitem__(self, index: Any) -> T:
        """The sample at `index`."""
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__")

    def __add__(self, other: Dataset[Any]) -> ConcatDataset[Any]:
        return ConcatDataset([self, other])


class IterableDataset(Dataset[T], Iterable[T]):
    """Samples that come one after the other: subclasses write `__iter__`.

    With several workers each one walks its own copy: use `get_worker_info()` to share the work.
    """

    def __add__(self, other: Dataset[Any]) -> ChainDataset[Any]:  # type: ignore[override]
        return ChainDataset([self, other])


class TensorDataset(Dataset[tuple[Tensor, ...]]):
    """Samples cut from tensors along their first dimension.

    Args:
        tensors: tensors of the same length in dimension 0.

    Raises:
        ValueError: no tensors, or their lengths differ.

    Example:
        >>> import treadle
        >>> data = TensorDataset(treadle.zeros(100, 3), treadle.arange(100))
        >>> image, label = data[7]
    """

    tensors: tuple[Tensor, ...]

    def __init__(self, *tensors: Tensor) -> None:
        lengths = [t.shape[0] if len(t.shape) else None for t in tensors]
        if not tensors or None in lengths or len(set(lengths)) > 1:
            raise ValueError(f"Size mismatch between tensors: first dimensions are {lengths}")
        self.tensors = tensors
        self._views = [ArrayView() for _ in tensors]

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        if loading() and not self._differentiable():
            return tuple(from_numpy(np.array(array[index])) for array in self._arrays())
        return tuple(tensor[index] for tensor in self.tensors)

    def __getbatch__(self, indices: np.ndarray) -> Any:
        if self._differentiable():
            return NotImplemented
        return tuple([array.take(indices, axis=0) for array in self._arrays()])

    def __tobatch__(self, arrays: tuple[np.ndarray, ...]) -> list[Tensor]:
        return [from_numpy(array) for array in arrays]

    def _differentiable(self) -> bool:
        return any(tensor.requires_grad for tensor in self.tensors)

    def _arrays(self) -> list[np.ndarray]:
        return [view.of(t) for view, t in zip(self._views, self.tensors, strict=True)]

    def __len__(self) -> int:
        return int(self.tensors[0].shape[0])


class Subset(Dataset[T]):
    """The part of a data set at the given indices.

    Args:
        dataset: the whole.
        indices: which samples, in which order.
    """

    def __init__(self, dataset: Dataset[T], indices: Sequence[int]) -> None:
        self.dataset = dataset
        self.indices = indices

    def __getitem__(self, index: Any) -> T:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __getitems__(self, indices: list[int]) -> list[T]:
        return fetch_samples(self.dataset, [self.indices[i] for i in indices])

    def __getbatch__(self, indices: np.ndarray) -> Any:
        if not speaks(self.dataset, "__getbatch__", "__getitem__"):
            return NotImplemented
        if isinstance(self.indices, range):
            chosen = np.arange(len(self.indices))[indices] * self.indices.step + self.indices.start
        else:
            chosen = np.array([self.indices[i] for i in indices.tolist()], dtype=np.int64)
        return self.dataset.__getbatch__(chosen)  # type: ignore[attr-defined]

    def __tobatch__(self, arrays: Any) -> Any:
        return finish_batch(self.dataset, arrays)

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset[T]):
    """Several data sets one after the other.

    Args:
        datasets: at least one, none of them an `IterableDataset`.
    """

    def __init__(self, datasets: Iterable[Dataset[T]]) -> None:
        self.datasets = list(datasets)
        if not self.datasets:
            raise ValueError("datasets should not be an empty iterable")
        if any(isinstance(d, IterableDataset) for d in self.datasets):
            raise TypeError("ConcatDataset does not support IterableDataset: use ChainDataset")
        lengths = [len(d) for d in self.datasets]  # type: ignore[arg-type]
        self.cumulative_sizes = list(itertools.accumulate(lengths))

    def __getitem__(self, index: int) -> T:
        total = len(self)
        if not -total <= index < total:
            raise IndexError(f"index {index} is outside of a ConcatDataset of {total} samples")
        index %= total
        which = bisect.bisect_right(self.cumulative_sizes, index)
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]

    def __len__(self) -> int:
        return self.cumulative_sizes[-1]


class ChainDataset(IterableDataset[T]):
    """Several iterable data sets one after the other."""

    def __init__(self, datasets: Iterable[Dataset[T]]) -> None:
        self.datasets = list(datasets)

    def __iter__(self) -> Iterator[T]:
        for dataset in self.datasets:
            if not isinstance(dataset, IterableDataset):
                raise TypeError("ChainDataset only supports IterableDataset")
            yield from dataset

    def __len__(self) -> int:
        return sum(len(d) for d in self.datasets)  # type: ignore[arg-type,misc]


def random_split(
    dataset: Dataset[T], lengths: Sequence[int | float], generator: Generator | None = None
) -> list[Subset[T]]:
    """Cut a data set at random into parts that do not overlap.

    Args:
        dataset: what to split.
        lengths: the number of samples of each part, or fractions that sum to 1; what rounding
            leaves over goes to the first parts, one sample each.
        generator: source of the permutation (default: treadle's own).

    Raises:
        ValueError: the lengths do not sum to `len(dataset)`, or a fraction is outside of [0, 1].
    """
    total = len(dataset)  # type: ignore[arg-type]
    sizes = [int(n) for n in lengths]
    if math.isclose(sum(lengths), 1) and sum(lengths) <= 1 + 1e-9:
        for i, fraction in enumerate(lengths):
            if not 0 <= fraction <= 1:
                raise ValueError(f"Fraction at index {i} is not between 0 and 1")
        sizes = [math.floor(total * fraction) for fraction in lengths]
        for i in range(total - sum(sizes)):
            sizes[i % len(sizes)] += 1
        for i, size in enumerate(sizes):
            if size == 0:
                warnings.warn(f"Length of split at index {i} is 0: an empty dataset", stacklevel=2)
    if sum(sizes) != total:
        raise ValueError(
            f"Sum of input lengths does not equal the length of the input dataset: "
            f"{sum(sizes)} against {total}"
        )
    order = host_generator(generator).permutation(total).tolist()
    ends = itertools.accumulate(sizes)
    return [Subset(dataset, order[end - n : end]) for end, n in zip(ends, sizes, strict=True)]


def fetch_samples(dataset: Any, indices: list[int]) -> list[Any]:
    """The samples at `indices`, by PyTorch's `__getitems__` where the data set has it."""
    if speaks(dataset, "__getitems__", "__getitem__"):
        return list(dataset.__getitems__(indices))
    return [dataset[i] for i in indices]


def finish_batch(dataset: Any, arrays: Any) -> Any:
    """The batch made of what `__getbatch__` gave."""
    if hasattr(type(dataset), "__tobatch__"):
        return dataset.__tobatch__(arrays)
    if isinstance(arrays, tuple | list):
        return [from_numpy(array) for array in arrays]
    return from_numpy(arrays)
