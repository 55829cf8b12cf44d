"""Data sets and the loader in one process."""

from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import treadle
from treadle.utils.data import (
    BatchSampler,
    ChainDataset,
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
    random_split,
)


def pairs(count: int = 10) -> TensorDataset:
    x = np.arange(count * 6, dtype=np.uint8).reshape(count, 2, 3)
    return TensorDataset(treadle.from_numpy(x), treadle.arange(count))


class Squares(Dataset):
    """Samples as a user writes them."""

    def __init__(self, count: int = 10) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        if not 0 <= index < self.count:
            raise IndexError(index)
        return np.full(2, index, np.float32), index * index


class Counting(IterableDataset):
    def __init__(self, count: int) -> None:
        self.count = count

    def __iter__(self):
        return iter(range(self.count))


def labels(loader: DataLoader) -> list[list[int]]:
    return [batch[1].tolist() for batch in loader]


# --- data sets ---------------------------------------------------------------------------------


def test_tensor_data_set() -> None:
    data = pairs()
    x, y = data[3]
    assert len(data) == 10 and x.tolist() == [[18, 19, 20], [21, 22, 23]] and y.item() == 3
    with pytest.raises(ValueError, match="Size mismatch"):
        TensorDataset(treadle.ones(2), treadle.ones(3))
    with pytest.raises(ValueError, match="Size mismatch"):
        TensorDataset(treadle.tensor(1.0))


def test_a_write_to_the_tensor_is_seen_by_the_next_batch() -> None:
    x = treadle.zeros(4)
    loader = DataLoader(TensorDataset(x), batch_size=4)
    assert next(iter(loader))[0].tolist() == [0, 0, 0, 0]
    x += 1
    assert next(iter(loader))[0].tolist() == [1, 1, 1, 1]
    part = x[:2]
    loader = DataLoader(TensorDataset(part), batch_size=2)
    assert next(iter(loader))[0].tolist() == [1, 1]
    x *= 5
    assert next(iter(loader))[0].tolist() == [5, 5]


def test_a_write_to_the_batch_is_not_seen_by_the_tensor() -> None:
    x = treadle.zeros(4)
    batch = next(iter(DataLoader(TensorDataset(x), batch_size=4)))[0]
    batch += 1
    assert x.tolist() == [0, 0, 0, 0]


def test_gradients_flow_to_the_tensors() -> None:
    x = treadle.ones(4, requires_grad=True)
    for (batch,) in DataLoader(TensorDataset(x), batch_size=2):
        (batch * 3).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [3, 3, 3, 3]


@pytest.mark.parametrize("indices", [[4, 1, 7], range(1, 9, 3), np.array([2, 2])])
def test_subset_is_the_same_by_batch_and_by_sample(indices) -> None:
    part = Subset(pairs(), indices)
    loader = DataLoader(part, batch_size=2)
    by_sample = DataLoader(part, batch_size=2, collate_fn=list)
    wanted = [int(i) for i in indices]
    assert list(itertools.chain(*labels(loader))) == wanted
    assert [y.item() for batch in by_sample for _, y in batch] == wanted
    nested = DataLoader(Subset(part, [1, 0]), batch_size=2)
    assert labels(nested) == [[wanted[1], wanted[0]]]


def test_concat_and_chain() -> None:
    both = Squares(3) + Squares(2)
    assert isinstance(both, ConcatDataset) and len(both) == 5
    assert [both[i][1] for i in range(-5, 5)] == [0, 1, 4, 0, 1] * 2
    for outside in (5, -6):
        with pytest.raises(IndexError, match="outside"):
            both[outside]
    chain = Counting(2) + Counting(3)
    assert isinstance(chain, ChainDataset) and list(chain) == [0, 1, 0, 1, 2]
    with pytest.raises(ValueError, match="empty"):
        ConcatDataset([])
    with pytest.raises(TypeError, match="ChainDataset"):
        ConcatDataset([Counting(2)])


@pytest.mark.parametrize(
    ("lengths", "wanted"),
    [([3, 7], [3, 7]), ([0.5, 0.5], [5, 5]), ([0.33, 0.33, 0.34], [4, 3, 3]), ([10], [10])],
)
def test_random_split(lengths, wanted) -> None:
    parts = random_split(Squares(10), lengths, treadle.Generator().manual_seed(1))
    assert [len(p) for p in parts] == wanted
    assert sorted(i for p in parts for i in p.indices) == list(range(10))
    again = random_split(Squares(10), lengths, treadle.Generator().manual_seed(1))
    assert [p.indices for p in parts] == [p.indices for p in again]


def test_random_split_mistakes() -> None:
    with pytest.raises(ValueError, match="9 against 10"):
        random_split(Squares(10), [4, 5])
    with pytest.raises(ValueError, match="between 0 and 1"):
        random_split(Squares(10), [1.5, -0.5])
    with pytest.warns(UserWarning, match="index 1 is 0"):
        random_split(Squares(1), [0.9, 0.1])


# --- the loader --------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 9), st.booleans(), st.booleans())
def test_every_sample_once_and_the_length_is_right(count, size, drop, shuffle) -> None:
    loader = DataLoader(Squares(count), size, shuffle, drop_last=drop)
    got = labels(loader)
    assert len(got) == len(loader)
    flat = sorted(itertools.chain(*got))
    if drop:
        assert len(flat) == count - count % size and len(set(flat)) == len(flat)
    else:
        assert flat == [i * i for i in range(count)]


def test_batches_by_batch_and_by_sample_are_the_same() -> None:
    data = pairs()

    class Plain(TensorDataset):
        def __getitem__(self, index):
            return super().__getitem__(index)

    treadle.manual_seed(2)
    fast = list(DataLoader(data, 4, shuffle=True))
    treadle.manual_seed(2)
    slow = list(DataLoader(Plain(*data.tensors), 4, shuffle=True))
    for a, b in zip(fast, slow, strict=True):
        assert type(a) is type(b) is list
        for x, y in zip(a, b, strict=True):
            assert x.dtype is y.dtype and np.array_equal(x.numpy(), y.numpy())


def test_the_batch_method_of_a_base_class_is_not_believed() -> None:
    class Doubled(TensorDataset):
        def __getitem__(self, index):
            return tuple(2 * t for t in super().__getitem__(index))

    got = labels(DataLoader(Doubled(*pairs(3).tensors), 3))
    assert got == [[0, 2, 4]]


def test_whole_batches_from_a_data_set_of_ones_own() -> None:
    seen = []

    class Whole(Squares):
        def __getitem__(self, index):
            raise AssertionError("by sample")

        def __getbatch__(self, indices):
            seen.append(indices)
            return {"i": indices * 2}

        def __tobatch__(self, arrays):
            return {k: treadle.from_numpy(v) + 1 for k, v in arrays.items()}

    got = [b["i"].tolist() for b in DataLoader(Whole(5), 2)]
    assert got == [[1, 3], [5, 7], [9]]
    assert all(s.dtype == np.int64 for s in seen)


def test_getitems_is_pytorchs() -> None:
    class Listed(Squares):
        def __getitems__(self, indices):
            assert type(indices) is list
            return [(i, -i) for i in indices]

    assert labels(DataLoader(Listed(4), 2)) == [[0, -1], [-2, -3]]


def test_shuffle_follows_the_seed_and_changes_each_epoch() -> None:
    loader = DataLoader(Squares(50), 8, shuffle=True)
    treadle.manual_seed(9)
    first, second = labels(loader), labels(loader)
    treadle.manual_seed(9)
    assert labels(loader) == first != second
    generator = treadle.Generator().manual_seed(4)
    loader = DataLoader(Squares(50), 8, shuffle=True, generator=generator)
    first = labels(loader)
    generator.manual_seed(4)
    assert labels(loader) == first


def test_samplers() -> None:
    data = Squares(6)
    assert labels(DataLoader(data, 4, sampler=[5, 3, 1])) == [[25, 9, 1]]
    groups = BatchSampler(SequentialSampler(data), 4, True)
    assert labels(DataLoader(data, batch_sampler=groups)) == [[0, 1, 4, 9]]
    assert labels(DataLoader(data, batch_sampler=[(1, 2), (3,)])) == [[1, 4], [9]]
    assert len(DataLoader(data, 4, sampler=RandomSampler(data, num_samples=3))) == 1


def test_without_batches() -> None:
    got = list(DataLoader(Squares(3), batch_size=None))
    assert [y for _, y in got] == [0, 1, 4]
    assert isinstance(got[0][0], treadle.Tensor)
    assert list(DataLoader(Counting(3), batch_size=None)) == [0, 1, 2]


def test_iterable() -> None:
    loader = DataLoader(Counting(5), 2)
    assert [b.tolist() for b in loader] == [[0, 1], [2, 3], [4]]
    assert [b.tolist() for b in DataLoader(Counting(5), 2, drop_last=True)] == [[0, 1], [2, 3]]
    with pytest.raises(TypeError):
        len(loader)


def test_collate_fn_gets_samples() -> None:
    got = list(DataLoader(pairs(3), 2, collate_fn=lambda samples: [len(samples), samples[0]]))
    assert [n for n, _ in got] == [2, 1]
    assert got[1][1][1].item() == 2


def test_empty_data_set() -> None:
    assert list(DataLoader(Squares(0), 4)) == []
    assert list(DataLoader(Squares(0), 4, shuffle=True)) == []


def test_nested_iteration() -> None:
    loader = DataLoader(Squares(3))
    assert [(a[1].item(), b[1].item()) for a in loader for b in loader] == list(
        itertools.product([0, 1, 4], repeat=2)
    )


def test_an_error_in_a_sample_reaches_the_user() -> None:
    class Broken(Squares):
        def __getitem__(self, index):
            return 1 // (index - 2)

    iterator = iter(DataLoader(Broken(4)))
    next(iterator), next(iterator)
    with pytest.raises(ZeroDivisionError):
        next(iterator)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_stray_stop_iteration_does_not_end_the_epoch(workers) -> None:
    class Careless(Squares):
        def __getitem__(self, index):
            return next(iter([]))

    with pytest.raises((RuntimeError, StopIteration)):
        list(itertools.chain(DataLoader(Careless(4), num_workers=workers)))
        raise AssertionError("the epoch ended")


def test_an_index_out_of_range_is_an_error_by_batch_too() -> None:
    with pytest.raises(IndexError):
        list(DataLoader(pairs(3), 2, sampler=[0, 3]))


def test_pickles_and_copies() -> None:
    data = pairs()
    list(DataLoader(data, 4))
    again = pickle.loads(pickle.dumps(data))
    assert labels(DataLoader(again, 4)) == labels(DataLoader(data, 4))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"shuffle": True, "sampler": [0]}, "mutually exclusive"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "mutually exclusive"),
        ({"batch_sampler": [[0]], "shuffle": True}, "mutually exclusive"),
        ({"batch_sampler": [[0]], "drop_last": True}, "mutually exclusive"),
        ({"batch_size": None, "drop_last": True}, "mutually exclusive"),
        ({"batch_size": 0}, "positive integer"),
        ({"batch_size": 1.5}, "positive integer"),
        ({"num_workers": -1}, "non-negative"),
        ({"timeout": -1}, "non-negative"),
        ({"prefetch_factor": 2}, "num_workers > 0"),
        ({"num_workers": 1, "prefetch_factor": 0}, "positive"),
        ({"persistent_workers": True}, "num_workers > 0"),
        ({"multiprocessing_context": "fork"}, "num_workers > 0"),
    ],
)
def test_options_that_do_not_fit(options, match) -> None:
    with pytest.raises(ValueError, match=match):
        DataLoader(Squares(), **options)


@pytest.mark.parametrize("options", [{"shuffle": True}, {"sampler": [0]}, {"batch_sampler": [[0]]}])
def test_options_that_do_not_fit_an_iterable(options) -> None:
    with pytest.raises(ValueError, match="IterableDataset"):
        DataLoader(Counting(3), **options)
