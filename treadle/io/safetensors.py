"""Checkpoints in the safetensors format, through its library."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from treadle.base.errors import CheckpointError
from treadle.base.lazy import LazyModule
from treadle.io.atomic import replacing
from treadle.io.layout import array_of
from treadle.tensor import Tensor, from_numpy

_numpy = LazyModule("numpy")
_safetensors = LazyModule("safetensors")
_format = LazyModule("safetensors.numpy")

_CODES: Final = ("BOOL", "U8", "I8", "I16", "I32", "I64", "F16", "BF16", "F32", "F64")


def save_safetensors(
    tensors: Mapping[str, Tensor],
    path: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Saves named tensors in the safetensors format, replacing the file whole or not at all.

    Args:
        tensors: the tensors by name, such as a `state_dict`. Each is stored by itself, also where
            two share memory.
        path: the file.
        metadata: text by name, kept in the header.

    Raises:
        CheckpointError: something else than tensors and text, or the system cannot write the file.

    Example:
        >>> import tempfile, treadle
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/weights.safetensors"
        ...     treadle.io.save_safetensors({"w": treadle.ones(2)}, path, {"epoch": "3"})
        ...     treadle.io.load_safetensors(path)
        {'w': tensor([1., 1.])}

    The format: https://huggingface.co/docs/safetensors, "Format".
    """
    arrays = {name: _array(name, tensor) for name, tensor in tensors.items()}
    notes = dict(metadata or {})
    if not all(isinstance(text, str) for pair in notes.items() for text in pair):
        raise CheckpointError("cannot save: the metadata of a safetensors file is text by name")
    with replacing(path) as temporary:
        try:
            if os.path.isfile(temporary):
                _format.save_file(arrays, temporary, notes or None)
            else:  # save_file would put a regular file in the place of a device or pipe
                with open(temporary, "wb") as handle:
                    handle.write(_format.save(arrays, notes or None))
        except _safetensors.SafetensorError as error:
            raise CheckpointError(f"cannot save {os.fsdecode(path)}: {error}") from error


def _array(name: Any, tensor: Any) -> Any:
    if not isinstance(name, str) or not isinstance(tensor, Tensor):
        raise CheckpointError(
            f"cannot save {name!r}: a safetensors file holds tensors by name, "
            f"not a {type(tensor).__name__} by {type(name).__name__}"
        )
    array = array_of(tensor)
    return _numpy.ascontiguousarray(array).reshape(array.shape)


def load_safetensors(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Reads the tensors of a safetensors file.

    Args:
        path: the file.

    Returns:
        The tensors by name.

    Raises:
        CheckpointError: the file is damaged, or holds an element type that treadle does not have.
        FileNotFoundError: there is no such file.

    Example:
        >>> import tempfile, treadle
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/weights.safetensors"
        ...     treadle.io.save_safetensors({"w": treadle.ones(2)}, path)
        ...     sorted(treadle.io.load_safetensors(path))
        ['w']
    """
    label = os.fsdecode(path)
    try:
        with _safetensors.safe_open(path, framework="np") as file:
            names = file.keys()
            for name in names:
                code = file.get_slice(name).get_dtype()
                if code not in _CODES:
                    raise CheckpointError(
                        f"cannot read {label}: the elements of {name!r} are {code}, "
                        "a type that treadle does not have"
                    )
            return {name: from_numpy(file.get_tensor(name)) for name in names}
    except _safetensors.SafetensorError as error:
        raise CheckpointError(f"cannot read {label}: {error}") from error
