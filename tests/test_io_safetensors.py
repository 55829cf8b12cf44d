"""Checkpoints in the safetensors format."""

import json
import random
import struct

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from treadle.base import dtype as dtypes
from treadle.base.errors import CheckpointError
from treadle.io import load_safetensors, save_safetensors
from treadle.tensor import from_numpy


@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3, 1)])
@pytest.mark.parametrize("dtype", dtypes.ALL, ids=lambda d: d.name)
def test_tensors_come_back_bit_for_bit(tmp_path, dtype, shape):
    array = np.resize(np.array([0, 1, 2, 100]), shape).astype(dtype.numpy)
    save_safetensors({"x.y": from_numpy(array)}, tmp_path / "a")
    back = load_safetensors(tmp_path / "a")
    assert list(back) == ["x.y"] and back["x.y"].dtype is dtype
    assert tuple(back["x.y"].shape) == shape
    assert back["x.y"].numpy().tobytes() == array.tobytes()


def test_the_library_reads_it_and_is_read(tmp_path):
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_safetensors({"a": from_numpy(array)}, tmp_path / "a", {"epoch": "3"})
    assert safetensors.numpy.load_file(tmp_path / "a")["a"].tolist() == array.tolist()
    with safetensors.safe_open(tmp_path / "a", "np") as file:
        assert file.metadata() == {"epoch": "3"}
    safetensors.numpy.save_file({"b": array.astype(ml_dtypes.bfloat16)}, tmp_path / "b")
    assert load_safetensors(tmp_path / "b")["b"].dtype is dtypes.bfloat16


def test_views_shared_memory_and_gradients(tmp_path):
    x = from_numpy(np.arange(6.0).reshape(2, 3))
    tensors = {"x": x, "same": x.detach(), "t": x.t(), "column": x[:, 1],
               "leaf": from_numpy(np.ones(2)).requires_grad_(), "sum": x + x}  # fmt: skip
    save_safetensors(tensors, tmp_path / "a")
    back = load_safetensors(tmp_path / "a")
    for name, tensor in tensors.items():
        assert back[name].tolist() == tensor.tolist(), name


@pytest.mark.parametrize(
    ("tensors", "metadata", "says"),
    [
        ({"a": 1}, None, "not a int by str"),
        ({"a": np.ones(2)}, None, "not a ndarray"),
        ({1: from_numpy(np.ones(2))}, None, "by int"),
        ({"a": from_numpy(np.ones(2))}, {"epoch": 3}, "metadata"),
    ],
)
def test_what_cannot_be_saved(tmp_path, tensors, metadata, says):
    with pytest.raises(CheckpointError, match=says):
        save_safetensors(tensors, tmp_path / "a", metadata)
    assert not list(tmp_path.iterdir())


def test_types_that_treadle_does_not_have_are_named(tmp_path):
    safetensors.numpy.save_file({"w": np.ones(2, np.uint16)}, tmp_path / "a")
    with pytest.raises(CheckpointError, match="a: the elements of 'w' are U16"):
        load_safetensors(tmp_path / "a")
    header = json.dumps({"f": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "b").write_bytes(struct.pack("<Q", len(header)) + header + b"\0\0")
    with pytest.raises(CheckpointError, match="F8_E4M3"):
        load_safetensors(tmp_path / "b")


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_safetensors(tmp_path / "none")


def test_damaged_files_are_refused_or_right(tmp_path):
    """The format has no checksums: what is outside of the data may not go wrong unnoticed."""
    path = tmp_path / "a"
    save_safetensors({"w": from_numpy(np.arange(4, dtype=np.int64))}, path)
    good = path.read_bytes()
    for length in range(len(good)):
        path.write_bytes(good[:length])
        with pytest.raises(CheckpointError, match=str(path)):
            load_safetensors(path)
    chance = random.Random(0)
    for place in range(len(good)):
        damaged = bytearray(good)
        damaged[place] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(damaged))
        try:
            found = load_safetensors(path)
        except CheckpointError as error:
            assert str(path) in str(error)
        else:
            assert all(tensor.nbytes == 32 for tensor in found.values())
