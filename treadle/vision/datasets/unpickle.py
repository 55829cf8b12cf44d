"""Reading pickles of NumPy arrays from elsewhere without running anything in them."""

from __future__ import annotations

import importlib
import pickle
from typing import IO, Any, Final

from treadle.base.errors import DataError

# Everything that rebuilding an array needs. NumPy 2 moved `numpy.core`: both names mean the new
# place.
_ALLOWED: Final = {
    ("numpy.core.multiarray", "_reconstruct"): "numpy._core.multiarray",
    ("numpy._core.multiarray", "_reconstruct"): "numpy._core.multiarray",
    ("numpy", "ndarray"): "numpy",
    ("numpy", "dtype"): "numpy",
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        place = _ALLOWED.get((module, name))
        if place is None:
            raise DataError(
                f"the pickle asks for {module}.{name}: only NumPy arrays and plain data are allowed"
            )
        return getattr(importlib.import_module(place), name)

    def persistent_load(self, pid: Any) -> Any:
        raise DataError("the pickle refers to something outside of itself")


def load_arrays(file: IO[bytes], name: str, encoding: str = "latin1") -> Any:
    """What is pickled in `file`: containers, numbers, strings and NumPy arrays, nothing else.

    Args:
        file: the pickle.
        name: what to call it in messages.
        encoding: how to read the strings of Python 2.

    Raises:
        DataError: the pickle is damaged, or asks for anything else.
    """
    try:
        return _ArrayUnpickler(file, encoding=encoding).load()
    except DataError as error:
        raise DataError(f"{name} is not read: {error}") from error
    except Exception as error:
        # A damaged pickle raises anything at all, from IndexError to UnicodeDecodeError.
        raise DataError(f"{name} is damaged: {type(error).__name__}: {error}") from error
