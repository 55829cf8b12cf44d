"""Samplers: in which order, and in which groups, the samples of a data set are visited."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from treadle.base.lazy import LazyModule
from treadle.tensor.random import Generator, host_generator
from treadle.utils.data.protocol import speaks

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")

T = TypeVar("T", covariant=True)


class Sampler(Generic[T]):
    """An iterable over indices (or lists of indices): subclasses write `__iter__`.

    A sampler that knows its whole order at once may also write `order()`, which gives it as an
    int64
    ndarray: a batch is then a slice of it, and no index is ever a Python number.
    """

    def __init__(self, data_source: Sized | None = None) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[T]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


class _WholeOrder(Sampler[int]):
    """A sampler whose order is drawn at once, at the start of an epoch."""

    def order(self) -> np.ndarray:
        """The indices of one epoch, int64."""
        raise NotImplementedError

    def __iter__(self) -> Iterator[int]:
        return iter(self.order().tolist())


class SequentialSampler(_WholeOrder):
    """0, 1, 2 … in order."""

    data_source: Sized

    def __init__(self, data_source: Sized) -> None:
        self.data_source = data_source

    def order(self) -> np.ndarray:
        return np.arange(len(self.data_source))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(_WholeOrder):
    """A random order, new in each epoch.

    Args:
        data_source: what to sample from.
        replacement: whether an index may come twice.
        num_samples: how many to draw (default: all).
        generator: source of the randomness (default: treadle's own, set by `manual_seed`).
    """

    data_source: Sized

    def __init__(
        self,
        data_source: Sized,
        replacement: bool = False,
        num_samples: int | None = None,
        generator: Generator | None = None,
    ) -> None:
        if not isinstance(replacement, bool):
            raise TypeError(
                f"replacement should be a boolean value, but got replacement={replacement}"
            )
        self.data_source = data_source
        self.replacement = replacement
        self._num_samples = num_samples
        self.generator = generator
        if num_samples is not None:
            _check_positive("num_samples", num_samples)

    @property
    def num_samples(self) -> int:
        """How many indices an epoch has."""
        # The data source may grow between epochs.
        return len(self.data_source) if self._num_samples is None else self._num_samples

    def order(self) -> np.ndarray:
        size, wanted = len(self.data_source), self.num_samples
        random = host_generator(self.generator)
        if self.replacement:
            return random.integers(size, size=wanted)
        if size == 0:
            return np.empty(0, dtype=np.int64)
        rounds = [random.permutation(size) for _ in range(-(-wanted // size))]
        return (rounds[0] if len(rounds) == 1 else np.concatenate(rounds))[:wanted]

    def __len__(self) -> int:
        return self.num_samples


class SubsetRandomSampler(_WholeOrder):
    """The given indices in a random order, each once.

    Args:
        indices: the indices to visit.
        generator: source of the randomness (default: treadle's own).
    """

    def __init__(self, indices: Sequence[int], generator: Generator | None = None) -> None:
        self.indices = indices
        self.generator = generator

    def order(self) -> np.ndarray:
        chosen = np.asarray(self.indices, dtype=np.int64)
        return chosen[host_generator(self.generator).permutation(len(chosen))]

    def __len__(self) -> int:
        return len(self.indices)


class WeightedRandomSampler(_WholeOrder):
    """Indices drawn with probability weights[i] / Σ weights.

    Args:
        weights: a non-negative weight for each sample; they need not sum to one.
        num_samples: how many to draw.
        replacement: whether an index may come twice.
        generator: source of the randomness (default: treadle's own).

    Raises:
        ValueError: bad `num_samples`, negative or non-finite weights, or too few that are not zero.
    """

    def __init__(
        self,
        weights: Sequence[float],
        num_samples: int,
        replacement: bool = True,
        generator: Generator | None = None,
    ) -> None:
        _check_positive("num_samples", num_samples)
        if not isinstance(replacement, bool):
            raise ValueError(
                f"replacement should be a boolean value, but got replacement={replacement}"
            )
        table = np.asarray(weights, dtype=np.float64)
        if table.ndim != 1:
            raise ValueError(f"weights should be a 1d sequence but has shape {table.shape}")
        if not np.isfinite(table).all() or (table < 0).any() or not table.any():
            raise ValueError("weights must be finite, not negative, and not all zero")
        if not replacement and num_samples > np.count_nonzero(table):
            raise ValueError(
                f"cannot draw {num_samples} different samples: only "
                f"{np.count_nonzero(table)} weights are not zero"
            )
        self.weights = weights
        self.num_samples = num_samples
        self.replacement = replacement
        self.generator = generator

    def order(self) -> np.ndarray:
        table = np.asarray(self.weights, dtype=np.float64)
        return host_generator(self.generator).choice(
            len(table), self.num_samples, self.replacement, table / table.sum()
        )

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler[list[int]]):
    """Groups of `batch_size` indices of another sampler.

    Args:
        sampler: the order of the single indices.
        batch_size: indices in a group.
        drop_last: whether to leave out a last group that is smaller.
    """

    def __init__(self, sampler: Iterable[int], batch_size: int, drop_last: bool) -> None:
        _check_positive("batch_size", batch_size)
        if not isinstance(drop_last, bool):
            raise ValueError(f"drop_last should be a boolean value, but got drop_last={drop_last}")
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last

    def __iter__(self) -> Iterator[list[int]]:
        walk = iter(self.sampler)
        while group := list(itertools.islice(walk, self.batch_size)):
            if len(group) < self.batch_size and self.drop_last:
                return
            yield group

    def slices(self) -> Iterator[np.ndarray | list[int]]:
        """As iterating, but groups are slices of the order where the sampler knows it at once."""
        if not speaks(self.sampler, "order", "__iter__"):
            yield from self
            return
        order, size = self.sampler.order(), self.batch_size  # type: ignore[attr-defined]
        stop = len(order) - len(order) % size if self.drop_last else len(order)
        for start in range(0, stop, size):
            yield order[start : start + size]

    def __len__(self) -> int:
        count = len(self.sampler)  # type: ignore[arg-type]
        return count // self.batch_size if self.drop_last else -(-count // self.batch_size)


def _check_positive(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise ValueError(f"{name} should be a positive integer value, but got {name}={value}")
