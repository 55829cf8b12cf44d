"""`save` and `load`: checkpoints in PyTorch's file format."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Mapping
from typing import IO, Any

from treadle.base.device import Device, device_of
from treadle.base.dtype import DType
from treadle.base.errors import CheckpointError
from treadle.base.lazy import LazyModule
from treadle.io.archive import ALIGNMENT, ArchiveReader, ArchiveWriter
from treadle.io.atomic import replacing
from treadle.io.layout import lay_out
from treadle.io.legacy import MAGIC, load_legacy
from treadle.io.pickler import Pickler
from treadle.io.plain import leaves
from treadle.io.rebuild import Builder, Storage
from treadle.io.unpickler import Malformed, Unpickler
from treadle.tensor import Tensor

_numpy = LazyModule("numpy")

_Path = str | os.PathLike[str]
_ZIP = b"PK\3\4"


def save(obj: Any, f: _Path | IO[bytes]) -> None:
    """Saves tensors and plain data to a file that `load` and `torch.load` read.

    Args:
        obj: tensors, numbers, text, bytes, `None`, dtypes, devices and lists, tuples, sets and
            dictionaries of them, nested as you like: a `state_dict`, or several in a dictionary.
            Tensors that share memory still share it after loading.
        f: a path, replaced whole or not at all, or a file object open for writing bytes.

    Raises:
        CheckpointError: `obj` holds something else, or the system cannot write the file; a file
            that was at `f` is then still there, untouched.

    Example:
        >>> import io, treadle
        >>> file = io.BytesIO()
        >>> treadle.save({"weight": treadle.ones(2), "epoch": 3}, file)
        >>> _ = file.seek(0)
        >>> treadle.load(file)
        {'weight': tensor([1., 1.]), 'epoch': 3}

    The format is PyTorch's zip archive (`torch/serialization.py`, file format 3).
    """
    tensors = [leaf for leaf in leaves(obj) if isinstance(leaf, Tensor)]
    storages = lay_out(tensors)
    program = Pickler(storages.windows).dump(obj)
    if isinstance(f, str | os.PathLike):
        with replacing(f) as path, open(path, "wb") as handle:
            _write(handle, program, storages.arrays)
    elif hasattr(f, "write"):
        _write(f, program, storages.arrays)
    else:
        raise TypeError(f"save takes a path or a file object, not a {type(f).__name__}")


def _write(handle: IO[bytes], program: bytes, arrays: list[Any]) -> None:
    archive = ArchiveWriter(handle.write)
    archive.add("data.pkl", program)
    archive.add(".format_version", b"1")
    archive.add(".storage_alignment", str(ALIGNMENT).encode())
    archive.add("byteorder", sys.byteorder.encode())
    for number, array in enumerate(arrays):
        archive.add(f"data/{number}", memoryview(array.view(_numpy.uint8)))
    archive.add("version", b"3\n")
    archive.finish()


def load(
    f: _Path | IO[bytes],
    map_location: Any = None,
    *,
    weights_only: bool = True,
    mmap: bool = False,
) -> Any:
    """Reads a file of `save` or `torch.save`, without ever running code of it.

    Args:
        f: a path, or a file object open for reading bytes.
        map_location: where tensors go: a device, its name, or a dictionary from the names in the
            file. All tensors go to the CPU, the one device there is, from wherever they were saved.
        weights_only: accepted for PyTorch's sake. Either way only tensors and plain data are read.
        mmap: leave the data of tensors in the file until it is used; `f` is a path. Saves time and
            memory where only a part is needed, at the price of checksums, which are not compared.

    Returns:
        What was saved. A parameter of PyTorch comes back as a tensor that requires a gradient.

    Raises:
        CheckpointError: the file is damaged, is no checkpoint, or asks for more than data.
        FileNotFoundError: there is no such file.

    Example:
        >>> import io, treadle
        >>> file = io.BytesIO()
        >>> treadle.save([treadle.zeros(1)], file)
        >>> _ = file.seek(0)
        >>> treadle.load(file)
        [tensor([0.])]
    """
    device = _target(map_location)
    if isinstance(f, str | os.PathLike):
        with open(f, "rb") as handle:
            path = os.fsdecode(f)
            return _read(handle, path, device, path if mmap else None)
    if mmap:
        raise ValueError("load(..., mmap=True) takes a path, not a file object")
    if not hasattr(f, "read"):
        raise TypeError(f"load takes a path or a file object, not a {type(f).__name__}")
    label = getattr(f, "name", None)
    seekable = hasattr(f, "readinto") and hasattr(f, "seekable") and f.seekable()
    return _read(
        f if seekable else io.BytesIO(f.read()),
        label if isinstance(label, str) else "the file object",
        device,
        None,
    )


def _target(map_location: Any) -> Device | None:
    """The device asked for, or `None`; raises for a device that treadle does not have."""
    if map_location is None:
        return None
    if isinstance(map_location, Mapping):
        targets = [device_of(target) for target in map_location.values()]
        return targets[0] if targets else None
    if isinstance(map_location, str | Device):
        return device_of(map_location)
    raise TypeError(
        "map_location is a device, its name, or a dictionary of names, "
        f'not a {type(map_location).__name__}; map_location="cpu" is what a function would say'
    )


def _read(handle: IO[bytes], label: str, device: Device | None, mapped: str | None) -> Any:
    start = handle.tell()
    head = handle.read(16)
    handle.seek(start)
    try:
        if head.startswith(_ZIP):
            return _read_archive(handle, label, device, mapped)
        if head.startswith(MAGIC):
            return load_legacy(handle, label, device)
    except Malformed as error:
        raise CheckpointError(f"cannot read {label}: {error}") from None
    raise CheckpointError(f"cannot read {label}: {_guess(head)}")


def _guess(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head[8:9] == b"{":
        return "it looks like a safetensors file; load_safetensors reads those"
    if head.startswith(b"\x80"):
        return "it is a bare pickle, not a checkpoint; save it with torch.save or treadle.save"
    return f"it is not a checkpoint (it begins with {head[:8]!r})"


def _read_archive(handle: IO[bytes], label: str, device: Device | None, mapped: str | None) -> Any:
    archive = ArchiveReader(handle, label)
    order = archive.read("byteorder").decode("latin1") if "byteorder" in archive else "little"
    if order not in ("little", "big"):
        raise Malformed(f"its byte order is {order!r}, neither 'little' nor 'big'")

    def storage(key: str, dtype: DType, total: int) -> Storage:
        name = f"data/{key}"
        offset, size, _ = archive.locate(name)
        if size != total * dtype.itemsize:
            raise Malformed(
                f"its storage {key!r} has {size:,} bytes, not the {total:,} elements "
                f"of {dtype.name} that it should have"
            )
        if mapped is not None and size:
            raw = _numpy.asarray(_numpy.memmap(mapped, _numpy.uint8, "c", offset, size))
        else:
            raw = archive.array(name)
        return Storage(key, dtype, native(raw, dtype, order))

    program = archive.read("data.pkl")
    builder = Builder(storage, len(program), device)
    value = Unpickler(program, label, builder.construct, builder.persistent).load()
    return builder.finished(value)


def native(raw: Any, dtype: DType, order: str) -> Any:
    """Raw bytes as elements of this machine's byte order."""
    if order == sys.byteorder or dtype.itemsize == 1:
        return raw.view(dtype.numpy)
    return raw.view(f"u{dtype.itemsize}").byteswap().view(dtype.numpy)
