"""Builds what a pickle may ask for: tensors and plain data, from arguments that are checked."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Final

from treadle.base.device import CPU, Device
from treadle.base.dtype import DType
from treadle.io import names
from treadle.io.names import Name
from treadle.io.plain import leaves
from treadle.io.unpickler import Malformed, checked_key
from treadle.io.window import Window, distinct
from treadle.tensor import Size, Tensor, from_numpy

_COPIES: Final = 16
"""How often all of a storage may be copied for windows that are no views of it: diagonals."""


class Storage:
    """A flat array of the file, by its key: windows on it become tensors."""

    def __init__(self, key: str, dtype: DType, array: Any) -> None:
        self.key: Final = key
        self.dtype: Final = dtype
        self.array: Final = array
        self._root: Tensor | None = None
        self._copied = 0

    def tensor(self, window: Window) -> Tensor:
        """A tensor of some of the elements; tensors of one storage share its memory."""
        if self._root is None:
            self._root = from_numpy(self.array.reshape(window.shape if window.is_whole else -1))
            if window.is_whole:
                return self._root
        found = window.view(self._root)
        if found is None:
            self._copied += distinct(window.shape, window.strides)
            if self._copied > _COPIES * window.total:
                raise Malformed(f"its tensors copy the storage {self.key!r} again and again")
            found = window.copy(self.array)
        return found


class Builder:
    """The constructors of one file.

    `storage(key, dtype, total)` fetches a storage of so many elements. `allowance` bounds what
    constructors may copy: honest arguments are in the pickle itself, so its length will do, while
    a hostile pickle would have one long argument copied again and again. `device` replaces the
    devices that the file names, where one was asked for.
    """

    def __init__(
        self,
        storage: Callable[[str, DType, int], Storage],
        allowance: int,
        device: Device | None = None,
    ) -> None:
        self._fetch = storage
        self._allowance = allowance
        self._device = device
        self._storages: dict[str, Storage] = {}

    def construct(self, name: Name, args: tuple[Any, ...]) -> Any:
        """What calling a constructor with these arguments would give; raises `Malformed`."""
        self._allowance -= sum(len(a) for a in args if isinstance(a, _SIZED))
        if self._allowance < 0:
            raise Malformed("its pickle copies the same data again and again")
        return _CONSTRUCTORS[name](self, *_matched(name, args))

    def persistent(self, identity: Any) -> Storage:
        """The storage that a persistent id `("storage", type, key, location, total)` names."""
        match identity:
            case ("storage", Name() as kind, str(key), str(), int(total), *rest) if (
                kind in names.DTYPE_OF_STORAGE and total >= 0 and rest in ([], [None])
            ):
                dtype = names.DTYPE_OF_STORAGE[kind]
            case _:
                raise Malformed("its pickle refers to something that is no storage")
        found = self._storages.get(key)
        if found is None:
            found = self._storages[key] = self._fetch(key, dtype, total)
        if found.dtype is not dtype or found.array.size != total:
            raise Malformed(f"it uses the storage {key!r} as two different types or sizes")
        return found

    def finished(self, value: Any) -> Any:
        """`value`, if nothing in it is an internal of the format; raises `Malformed` if not."""
        for leaf in leaves(value):
            if type(leaf) in (Name, Storage):
                what = str(leaf) if type(leaf) is Name else "a bare storage"
                raise Malformed(f"it holds {what}, which is neither a tensor nor plain data")
        return value

    def _tensor(
        self,
        storage: Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        requires_grad: bool = False,
        hooks: Any = None,
        metadata: Any = None,
    ) -> Any:
        if hooks or metadata:
            raise Malformed("a tensor of it carries hooks or bits that treadle does not have")
        total = storage.array.size
        window = Window(storage.key, storage.dtype, total, offset, shape, strides)
        wrong = window.fault()
        if wrong is not None:
            raise Malformed(f"a tensor of it does not fit its storage {storage.key!r}: {wrong}")
        if requires_grad and not storage.dtype.is_floating_point:
            raise Malformed(f"a tensor of {storage.dtype.name} in it asks for a gradient")
        tensor = storage.tensor(window)
        return tensor.requires_grad_() if requires_grad else tensor

    def _parameter(self, data: Any, requires_grad: bool, hooks: Any) -> Any:
        if hooks:
            raise Malformed("a parameter of it carries hooks")
        return data.requires_grad_() if requires_grad else data

    def _location(self, kind: str, index: int | None = None) -> Device:
        if self._device is not None:
            return self._device
        if kind != CPU.type:
            raise Malformed(
                f"it holds the device {kind!r}, which treadle does not have; "
                'load(..., map_location="cpu") replaces it'
            )
        return Device(kind, index)


def _matched(name: Name, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments, if their number and types are what the constructor takes."""
    for form in _FORMS[name]:
        if len(args) == len(form) and all(map(isinstance, args, form)):
            return args
    listed = ", ".join(type(a).__name__ for a in args)
    raise Malformed(f"its pickle gives {name} the arguments ({listed}), which do not fit")


def _encode(_: Builder, text: str, coding: str = "latin1") -> bytes:
    if coding not in ("latin1", "latin-1"):
        raise Malformed(f"its pickle writes bytes in the coding {coding!r}")
    return text.encode("latin1")


def _bytearray(builder: Builder, data: str | bytes = b"", coding: str = "latin1") -> bytearray:
    return bytearray(_encode(builder, data, coding) if isinstance(data, str) else data)


def _counter(_: Builder, *counts: dict[Any, Any]) -> Counter[Any]:
    found: Counter[Any] = Counter()
    for given in counts:
        dict.update(found, given)  # Counter.update would add numbers up
    return found


_SIZED: Final = (str, bytes, list, tuple, dict)
_FLAT: Final = (int, tuple, tuple)
_FORMS: Final[dict[Name, tuple[tuple[Any, ...], ...]]] = {
    names.TENSOR_V1: ((Storage, *_FLAT),),
    names.TENSOR: (
        (Storage, *_FLAT, bool, OrderedDict),
        (Storage, *_FLAT, bool, OrderedDict, (dict, type(None))),
    ),
    names.PARAMETER: ((Tensor, bool, OrderedDict),),
    names.SIZE: ((tuple,), (list,)),
    names.DEVICE: ((str,), (str, int)),
    names.ORDERED_DICT: ((),),
    names.COUNTER: ((), (dict,)),
    names.ENCODE: ((str, str),),
    names.SET: ((), (list,)),
    names.FROZENSET: ((), (list,)),
    names.BYTEARRAY: ((), (bytes,), (str, str)),
    names.BYTES: ((),),
    names.COMPLEX: ((float, float),),
}

_CONSTRUCTORS: Final[dict[Name, Callable[..., Any]]] = {
    names.TENSOR_V1: Builder._tensor,
    names.TENSOR: Builder._tensor,
    names.PARAMETER: Builder._parameter,
    names.SIZE: lambda _, size: Size(size),
    names.DEVICE: Builder._location,
    names.ORDERED_DICT: lambda _: OrderedDict(),
    names.COUNTER: _counter,
    names.ENCODE: _encode,
    names.SET: lambda _, items=(): set(map(checked_key, items)),
    names.FROZENSET: lambda _, items=(): frozenset(map(checked_key, items)),
    names.BYTEARRAY: _bytearray,
    names.BYTES: lambda _: b"",
    names.COMPLEX: lambda _, real, imaginary: complex(real, imaginary),
}
