"""Collation: structures and element types, by hand and against PyTorch."""

from __future__ import annotations

from collections import OrderedDict, namedtuple

import numpy as np
import pytest

import treadle
from treadle.utils.data import default_collate, default_convert

Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("batch", "dtype", "values"),
    [
        ([1, 2], treadle.int64, [1, 2]),
        ([1.5, 2], treadle.float64, [1.5, 2.0]),
        ([True, False], treadle.bool, [True, False]),
        ([np.float32(1), np.float32(2)], treadle.float32, [1, 2]),
        ([np.ones(2, np.int16), np.zeros(2, np.int16)], treadle.int16, [[1, 1], [0, 0]]),
        ([treadle.ones(2), treadle.zeros(2)], treadle.float32, [[1, 1], [0, 0]]),
    ],
)
def test_leaves(batch, dtype, values) -> None:
    got = default_collate(batch)
    assert got.dtype is dtype
    assert got.tolist() == values


def test_structures() -> None:
    samples = [
        {"a": (1, "x"), "p": Point(1.0, [2])},
        {"a": (3, "y"), "p": Point(2.0, [4])},
    ]
    got = default_collate(samples)
    assert isinstance(got["a"], list) and got["a"][0].tolist() == [1, 3]
    assert got["a"][1] == ("x", "y")
    assert isinstance(got["p"], Point) and got["p"].y[0].tolist() == [2, 4]
    ordered = default_collate([OrderedDict(k=1), OrderedDict(k=2)])
    assert type(ordered) is OrderedDict and ordered["k"].tolist() == [1, 2]


def test_gradients_flow_through_the_batch() -> None:
    leaf = treadle.ones(2, requires_grad=True)
    default_collate([leaf, leaf * 2]).sum().backward()
    assert leaf.grad is not None and leaf.grad.tolist() == [3, 3]


def test_pending_samples() -> None:
    samples = [treadle.ones(3) * i for i in range(4)]
    assert default_collate(samples).tolist() == [[i] * 3 for i in range(4)]


@pytest.mark.parametrize(
    ("batch", "error", "match"),
    [
        ([treadle.ones(2), treadle.ones(3)], RuntimeError, "equal size"),
        ([(1, 2), (1,)], RuntimeError, "equal size"),
        ([object()], TypeError, "found <class 'object'>"),
        ([None], TypeError, "NoneType"),
        ([np.array("a")], TypeError, "NumPy"),
    ],
)
def test_mistakes(batch, error, match) -> None:
    with pytest.raises(error, match=match):
        default_collate(batch)


def test_convert() -> None:
    got = default_convert({"a": np.ones(2), "b": ["x", (1, np.int64(2))], "c": Point(1, "s")})
    assert isinstance(got["a"], treadle.Tensor) and got["a"].dtype is treadle.float64
    assert got["b"][0] == "x" and got["b"][1][0] == 1 and got["b"][1][1].item() == 2
    assert got["c"] == Point(1, "s")


def _same(ours, theirs) -> bool:
    if hasattr(theirs, "numpy"):
        return str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[1] and np.array_equal(
            ours.numpy(), theirs.numpy()
        )
    if isinstance(theirs, dict):
        return list(ours) == list(theirs) and all(_same(ours[k], theirs[k]) for k in theirs)
    if isinstance(theirs, list | tuple):
        return type(ours) is type(theirs) and all(
            _same(a, b) for a, b in zip(ours, theirs, strict=True)
        )
    return bool(ours == theirs)


@pytest.mark.parametrize(
    "batch",
    [
        [1, 2],
        [0.5, 1.5],
        [True, False],
        ["a", "b"],
        [b"a", b"b"],
        [(1, 2.0), (3, 4.0)],
        [[1, (2, "s")], [3, (4, "t")]],
        [{"a": 1, "b": np.ones(3)}, {"a": 2, "b": np.zeros(3)}],
        [Point(1, 2), Point(3, 4)],
        [np.float64(1), np.float64(2)],
    ],
)
def test_as_pytorch_does(batch) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    assert _same(default_collate(batch), torch_data.default_collate(batch))
