"""Samplers: which indices, how often, how many, and that the seed decides."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treadle
from treadle.utils.data import (
    BatchSampler,
    RandomSampler,
    Sampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)


def test_sequential() -> None:
    assert list(SequentialSampler(range(4))) == [0, 1, 2, 3]


@pytest.mark.parametrize("wanted", [None, 1, 7, 10, 25])
def test_random_without_replacement_repeats_nothing_before_all_were_seen(
    wanted: int | None,
) -> None:
    sampler = RandomSampler(range(10), num_samples=wanted)
    got = list(sampler)
    assert len(got) == len(sampler) == (wanted or 10)
    for start in range(0, len(got), 10):
        round_ = got[start : start + 10]
        assert len(set(round_)) == len(round_) and set(round_) <= set(range(10))
    assert all(type(i) is int for i in got)


def test_random_with_replacement() -> None:
    got = list(RandomSampler(range(3), replacement=True, num_samples=300))
    assert len(got) == 300 and set(got) == {0, 1, 2}


def test_random_is_new_each_epoch_and_follows_the_seed() -> None:
    sampler = RandomSampler(range(100))
    treadle.manual_seed(3)
    first, second = list(sampler), list(sampler)
    treadle.manual_seed(3)
    assert list(sampler) == first != second
    assert list(sampler) == second


def test_own_generator_leaves_the_default_one_alone() -> None:
    generator = treadle.Generator().manual_seed(5)
    sampler = RandomSampler(range(50), generator=generator)
    treadle.manual_seed(0)
    state = treadle.get_rng_state()
    first = list(sampler)
    assert treadle.get_rng_state() == state
    generator.manual_seed(5)
    assert list(sampler) == first


def test_random_over_nothing() -> None:
    assert list(RandomSampler([])) == []


def test_random_order_is_uniform() -> None:
    treadle.manual_seed(0)
    counts = np.zeros((4, 4))
    for _ in range(2000):
        counts[np.arange(4), RandomSampler(range(4)).order()] += 1
    # Chi-squared with 9 degrees of freedom exceeds 40 with probability 7e-6.
    assert ((counts - 500) ** 2 / 500).sum() < 40


def test_subset() -> None:
    got = list(SubsetRandomSampler([3, 9, 4]))
    assert sorted(got) == [3, 4, 9]


def test_weights() -> None:
    treadle.manual_seed(1)
    got = np.bincount(list(WeightedRandomSampler([1, 0, 3], 4000)), minlength=3)
    assert got[1] == 0 and abs(got[2] / 4000 - 0.75) < 0.05
    assert sorted(WeightedRandomSampler([1, 0, 3], 2, replacement=False)) == [0, 2]


@given(st.integers(0, 40), st.integers(1, 12), st.booleans())
def test_batches(count: int, size: int, drop: bool) -> None:
    sampler = BatchSampler(SequentialSampler(range(count)), size, drop)
    got = list(sampler)
    assert len(got) == len(sampler)
    whole = list(range(count))
    assert list(itertools.chain(*got)) == (whole[: count - count % size] if drop else whole)
    assert all(len(g) == size for g in got[:-1])
    assert [list(s) for s in sampler.slices()] == got


def test_batches_of_a_sampler_of_ones_own() -> None:
    class Odd(Sampler[int]):
        def __iter__(self):
            return iter([1, 3, 5])

    assert list(BatchSampler(Odd(), 2, False).slices()) == [[1, 3], [5]]


def test_overriding_iter_hides_the_order_of_the_base_class() -> None:
    class Backwards(SequentialSampler):
        def __iter__(self):
            return iter(range(len(self.data_source) - 1, -1, -1))

    assert [list(s) for s in BatchSampler(Backwards(range(3)), 2, False).slices()] == [[2, 1], [0]]


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: RandomSampler(range(3), num_samples=0), ValueError, "positive integer"),
        (lambda: RandomSampler(range(3), replacement=1), TypeError, "boolean"),
        (lambda: BatchSampler([1], 0, False), ValueError, "positive integer"),
        (lambda: BatchSampler([1], True, False), ValueError, "positive integer"),
        (lambda: BatchSampler([1], 1, 0), ValueError, "boolean"),
        (lambda: WeightedRandomSampler([1.0], 0), ValueError, "positive integer"),
        (lambda: WeightedRandomSampler([[1.0]], 1), ValueError, "1d"),
        (lambda: WeightedRandomSampler([1.0, -1.0], 1), ValueError, "negative"),
        (lambda: WeightedRandomSampler([float("nan")], 1), ValueError, "finite"),
        (lambda: WeightedRandomSampler([1, 0], 2, replacement=False), ValueError, "different"),
        (lambda: list(Sampler()), NotImplementedError, "__iter__"),
    ],
)
def test_mistakes(make, error, match) -> None:
    with pytest.raises(error, match=match):
        make()
