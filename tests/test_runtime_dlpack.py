"""DLPack with NumPy and PyTorch on the other side, both ways."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
import pytest

from treadle.base import dtype as dt
from treadle.runtime import dlpack
from treadle.runtime.buffer import Buffer, empty, memory_stats

NUMPY_TYPES = [d for d in dt.ALL if d is not dt.bfloat16]


class Exported:
    """Speaks DLPack for a buffer, as a tensor would."""

    def __init__(self, buffer: Buffer, dtype: dt.DType, shape: tuple[int, ...], **layout: Any):
        self.described = (buffer, dtype, shape)
        self.layout = layout

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.device()

    def __dlpack__(
        self,
        *,
        stream: object = None,
        max_version: tuple[int, int] | None = None,
        dl_device: object = None,
        copy: bool | None = None,
    ) -> Any:
        return dlpack.to_capsule(*self.described, max_version=max_version, **self.layout)


class Old:
    """A producer from before DLPack 1.0."""

    def __init__(self, array: np.ndarray, kind: int = dlpack.CPU) -> None:
        self.array = array
        self.kind = kind

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, stream: object = None) -> Any:
        return self.array.__dlpack__()


def filled(dtype: dt.DType, count: int) -> Buffer:
    buffer = empty(count * dtype.itemsize)
    buffer.view(dtype, (count,), writable=True)[:] = (np.arange(count) % 100).astype(dtype.numpy)
    return buffer


def view(imported: dlpack.Imported) -> np.ndarray:
    return imported.buffer.view(
        imported.dtype, imported.shape, strides=imported.strides, offset=imported.offset
    )


@pytest.mark.parametrize("dtype", NUMPY_TYPES, ids=lambda d: d.name)
def test_numpy_reads_ours(dtype: dt.DType) -> None:
    buffer = filled(dtype, 24)
    got = np.from_dlpack(Exported(buffer, dtype, (3, 4), strides=(1, 3), offset=dtype.itemsize))
    expected = buffer.view(dtype, (3, 4), strides=(1, 3), offset=dtype.itemsize)
    assert got.dtype == dtype.numpy
    np.testing.assert_array_equal(got, expected)


def test_numpy_shares_and_keeps_alive() -> None:
    count = memory_stats()["count"]
    buffer = filled(dt.int32, 6)
    got = np.from_dlpack(Exported(buffer, dt.int32, (6,)))
    got[0] = 55
    assert buffer.view(dt.int32, (6,))[0] == 55
    del buffer
    gc.collect()
    assert memory_stats()["count"] == count + 1
    assert got.tolist() == [55, 1, 2, 3, 4, 5]
    del got
    gc.collect()
    assert memory_stats()["count"] == count
    assert not dlpack._exported


def test_read_only_is_said_or_refused() -> None:
    buffer = filled(dt.float32, 4)
    got = np.from_dlpack(Exported(buffer, dt.float32, (4,), writable=False))
    assert not got.flags.writeable
    with pytest.raises(BufferError, match="read-only"):
        dlpack.to_capsule(buffer, dt.float32, (4,), writable=False)


@pytest.mark.parametrize("version", [None, (0, 8), (1, 0), (1, 3), (2, 0)])
def test_an_unused_capsule_frees_its_buffer(version: tuple[int, int] | None) -> None:
    count = memory_stats()["count"]
    capsule = dlpack.to_capsule(empty(64), dt.int8, (8, 8), max_version=version)
    assert memory_stats()["count"] == count + 1
    del capsule
    assert memory_stats()["count"] == count


@pytest.mark.parametrize("version", [None, (1, 0)])
def test_a_capsule_is_consumed_once(version: tuple[int, int] | None) -> None:
    count = memory_stats()["count"]
    capsule = dlpack.to_capsule(filled(dt.int16, 6), dt.int16, (2, 3), max_version=version)
    imported = dlpack.from_dlpack(capsule)
    assert view(imported).tolist() == [[0, 1, 2], [3, 4, 5]]
    with pytest.raises(TypeError, match="consumed before"):
        dlpack.from_dlpack(capsule)
    del capsule
    assert view(imported).tolist() == [[0, 1, 2], [3, 4, 5]]
    del imported
    assert memory_stats()["count"] == count


@pytest.mark.parametrize("dtype", NUMPY_TYPES, ids=lambda d: d.name)
@pytest.mark.parametrize(
    "index",
    [
        np.s_[...],
        np.s_[::-1, 1:],
        np.s_[:, ::-2],
        np.s_[1],
        np.s_[2, 3, ...],
        np.s_[:0],
        np.s_[:, 2:2],
    ],
)
def test_ours_reads_numpy(dtype: dt.DType, index: Any) -> None:
    array = (np.arange(20) % 2).astype(dtype.numpy).reshape(4, 5)[index]
    imported = dlpack.from_dlpack(array)
    assert imported.dtype is dtype
    assert imported.shape == array.shape
    assert imported.writable
    np.testing.assert_array_equal(view(imported), array)


def test_imported_memory_is_shared_and_kept() -> None:
    array = np.arange(5.0)
    imported = dlpack.from_dlpack(array)
    array[2] = 50
    address = array.ctypes.data
    del array
    gc.collect()
    assert imported.buffer.address == address
    assert view(imported).tolist() == [0, 1, 50, 3, 4]


def test_read_only_and_old_producers() -> None:
    array = np.arange(3)
    assert dlpack.from_dlpack(Old(array)).writable
    np.testing.assert_array_equal(view(dlpack.from_dlpack(Old(array))), array)
    array.flags.writeable = False
    assert not dlpack.from_dlpack(array).writable


def test_what_cannot_be_taken() -> None:
    with pytest.raises(TypeError, match="no __dlpack__"):
        dlpack.from_dlpack(5)
    with pytest.raises(BufferError, match="device 2"):
        dlpack.from_dlpack(Old(np.zeros(3), kind=2))
    with pytest.raises(TypeError, match="code 5"):
        dlpack.from_dlpack(np.zeros(3, np.complex64))
    with pytest.raises(TypeError, match="32 bits"):
        dlpack.from_dlpack(np.zeros(3, np.uint32))


@pytest.mark.parametrize("dtype", dt.ALL, ids=lambda d: d.name)
def test_torch_both_ways(dtype: dt.DType) -> None:
    torch = pytest.importorskip("torch")
    buffer = filled(dtype, 12)
    tensor = torch.from_dlpack(Exported(buffer, dtype, (3, 4)))
    assert str(tensor.dtype) == f"torch.{dtype.name}"
    back = dlpack.from_dlpack(tensor.t())
    assert back.dtype is dtype
    assert back.buffer.address == buffer.address
    np.testing.assert_array_equal(
        view(back).astype(np.float64), buffer.view(dtype, (3, 4)).T.astype(np.float64)
    )


def test_torch_empty_and_scalar() -> None:
    torch = pytest.importorskip("torch")
    buffer = filled(dt.float32, 4)
    assert torch.from_dlpack(Exported(buffer, dt.float32, (0, 3))).shape == (0, 3)
    assert torch.from_dlpack(Exported(buffer, dt.float32, (), offset=8)).item() == 2.0
    assert dlpack.from_dlpack(torch.empty(0, 3)).shape == (0, 3)
