"""Writes plain data and tensors as the pickle that `torch.save` would write."""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Final

from treadle.base.device import Device
from treadle.base.dtype import DType
from treadle.base.errors import CheckpointError
from treadle.io import names
from treadle.io.names import Name
from treadle.io.plain import is_key
from treadle.io.window import Window
from treadle.tensor import Size, Tensor

_Path = tuple[Any, ...]


class Pickler:
    """Writes one value in protocol 2, in the instructions that PyTorch's restricted reader knows.

    `windows` gives, by identity, where the elements of each tensor are stored.
    """

    def __init__(self, windows: Mapping[int, Window]) -> None:
        self._windows = windows
        self._out = bytearray(b"\x80\x02")
        self._memo: dict[Any, int] = {}
        self._alive: list[Any] = []
        self._open: set[int] = set()

    def dump(self, value: Any) -> bytes:
        """The pickle of `value`; raises `CheckpointError` at what is no plain data."""
        try:
            self._write(value, ())
        except RecursionError:
            raise CheckpointError(
                "cannot save this value: its lists and dictionaries are nested too deeply"
            ) from None
        self._out += b"."
        return bytes(self._out)

    def _write(self, value: Any, path: _Path) -> None:
        write = _WRITERS.get(type(value))
        if write is not None:
            write(self, value, path)
        elif isinstance(value, Tensor):
            self._tensor(value)
        else:
            raise CheckpointError(f"cannot save {_place(path)}: {_objection(value)}")

    # The memo: a value that is met again is fetched, so shared data stays shared.

    def _fetch(self, key: Any) -> bool:
        index = self._memo.get(key)
        if index is None:
            return False
        self._out += b"h%c" % index if index < 256 else b"j" + struct.pack("<I", index)
        return True

    def _keep(self, key: Any, value: Any = None) -> None:
        index = len(self._memo)
        self._memo[key] = index
        self._alive.append(value)
        self._out += b"q%c" % index if index < 256 else b"r" + struct.pack("<I", index)

    # Scalars.

    def _constant(self, value: Any, _: _Path) -> None:
        self._out += {None: b"N", True: b"\x88", False: b"\x89"}[value]

    def _int(self, value: int, _: _Path) -> None:
        if 0 <= value < 1 << 8:
            self._out += b"K%c" % value
        elif 0 <= value < 1 << 16:
            self._out += b"M" + struct.pack("<H", value)
        elif -(1 << 31) <= value < 1 << 31:
            self._out += b"J" + struct.pack("<i", value)
        else:
            data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
            length = len(data)
            self._out += b"\x8a%c" % length if length < 256 else b"\x8b" + struct.pack("<i", length)
            self._out += data

    def _float(self, value: float, _: _Path) -> None:
        self._out += b"G" + struct.pack(">d", value)

    def _str(self, value: str, _: _Path = ()) -> None:
        if not self._fetch(value):
            self._text(value)
            self._keep(value)

    def _text(self, value: str) -> None:
        data = value.encode("utf-8", "surrogatepass")
        if len(data) >= 1 << 32:
            raise CheckpointError("cannot save text or bytes of 4 GiB and more")
        self._out += b"X" + struct.pack("<I", len(data)) + data

    def _complex(self, value: complex, path: _Path) -> None:
        self._call(names.COMPLEX, (value.real, value.imag), path)

    def _bytes(self, value: bytes, _: _Path) -> None:
        self._latin1(names.ENCODE, value)

    def _bytearray(self, value: bytearray, _: _Path) -> None:
        self._latin1(names.BYTEARRAY, value)

    def _latin1(self, name: Name, value: bytes | bytearray) -> None:
        """Protocol 2 has no bytes: a call makes them of text."""
        if not self._fetch(id(value)):
            self._global(name)
            self._text(value.decode("latin1"))
            self._str("latin1")
            self._out += b"\x86R"
            self._keep(id(value), value)

    # Globals and calls.

    def _global(self, name: Name) -> None:
        if not self._fetch(name):
            self._out += b"c%s\n%s\n" % (name.module.encode(), name.name.encode())
            self._keep(name)

    def _call(self, name: Name, args: tuple[Any, ...], path: _Path) -> None:
        self._global(name)
        self._items(args, path)
        self._out += b"R"

    def _shared(self, value: Any, name: Name, args: tuple[Any, ...], path: _Path) -> None:
        if not self._fetch(id(value)):
            self._call(name, args, path)
            self._keep(id(value), value)

    def _dtype(self, value: DType, _: _Path) -> None:
        self._global(Name("torch", value.name))

    def _device(self, value: Device, path: _Path) -> None:
        index = () if value.index is None else (value.index,)
        self._call(names.DEVICE, (value.type, *index), path)

    def _size(self, value: Size, path: _Path) -> None:
        self._shared(value, names.SIZE, (tuple(value),), path)

    # Containers.

    def _items(self, value: tuple[Any, ...], path: _Path) -> None:
        """A tuple that nothing else refers to."""
        if not value:
            self._out += b")"
            return
        if len(value) > 3:
            self._out += b"("
        for number, item in enumerate(value):
            self._write(item, (*path, number))
        self._out += (b"\x85", b"\x86", b"\x87")[len(value) - 1] if len(value) <= 3 else b"t"

    def _tuple(self, value: tuple[Any, ...], path: _Path) -> None:
        if not value:
            self._out += b")"
        elif not self._fetch(id(value)):
            self._enter(value, path)
            self._items(value, path)
            self._open.remove(id(value))
            self._keep(id(value), value)

    def _enter(self, value: Any, path: _Path) -> None:
        """A value that is complete only after its parts cannot be one of them."""
        if id(value) in self._open:
            raise CheckpointError(
                f"cannot save {_place(path)}: a {type(value).__name__} that contains itself"
            )
        self._open.add(id(value))

    def _set(self, value: set[Any] | frozenset[Any], path: _Path) -> None:
        if self._fetch(id(value)):
            return
        self._enter(value, path)
        name = names.SET if type(value) is set else names.FROZENSET
        for item in value:
            _check_key(item, path)
        ordered = sorted(value, key=lambda item: (type(item).__name__, repr(item)))
        self._call(name, (ordered,), path)
        self._open.remove(id(value))
        self._keep(id(value), value)

    def _list(self, value: list[Any], path: _Path) -> None:
        if self._fetch(id(value)):
            return
        self._out += b"]"
        self._keep(id(value), value)
        if value:
            self._out += b"("
            for number, item in enumerate(value):
                self._write(item, (*path, number))
            self._out += b"e"

    def _dict(self, value: dict[Any, Any], path: _Path) -> None:
        if not self._fetch(id(value)):
            self._out += b"}"
            self._keep(id(value), value)
            self._pairs(value, path)

    def _pairs(self, value: dict[Any, Any], path: _Path) -> None:
        if value:
            self._out += b"("
            for key, item in value.items():
                _check_key(key, path)
                self._write(key, (*path, key))
                self._write(item, (*path, key))
            self._out += b"u"

    def _counter(self, value: Counter[Any], path: _Path) -> None:
        self._shared(value, names.COUNTER, (dict(value),), path)

    def _ordered(self, value: OrderedDict[Any, Any], path: _Path) -> None:
        if self._fetch(id(value)):
            return
        self._call(names.ORDERED_DICT, (), path)
        self._keep(id(value), value)
        self._pairs(value, path)
        attributes = vars(value)
        if set(attributes) - {"_metadata"}:
            listed = ", ".join(sorted(set(attributes) - {"_metadata"}))
            raise CheckpointError(
                f"cannot save {_place(path)}: an OrderedDict with attributes of its own ({listed})"
            )
        if attributes:
            self._dict(attributes, (*path, "_metadata"))
            self._out += b"b"

    # Tensors.

    def _tensor(self, value: Tensor) -> None:
        if self._fetch(id(value)):
            return
        if type(value) is Tensor:
            self._rebuild(value, value.requires_grad)
        else:
            self._global(names.PARAMETER)
            self._rebuild(value, False)
            self._constant(value.requires_grad, ())
            self._call(names.ORDERED_DICT, (), ())
            self._out += b"\x87R"
        self._keep(id(value), value)

    def _rebuild(self, value: Tensor, requires_grad: bool) -> None:
        """The call that makes a tensor of a window on a storage."""
        window = self._windows[id(value)]
        self._global(names.TENSOR)
        self._out += b"(("
        self._str("storage")
        self._global(names.STORAGE_OF[window.dtype])
        self._str(window.key)
        self._str("cpu")
        self._int(window.total, ())
        self._out += b"tQ"
        self._int(window.offset, ())
        self._items(window.shape, ())
        self._items(window.strides, ())
        self._constant(requires_grad, ())
        self._call(names.ORDERED_DICT, (), ())
        self._out += b"tR"


def _place(path: _Path) -> str:
    return "the value" + ("" if not path else " at " + "".join(f"[{part!r}]" for part in path))


def _check_key(key: Any, path: _Path) -> None:
    if not is_key(key):
        raise CheckpointError(
            f"cannot save {_place(path)}: its key {key!r} is a {type(key).__qualname__}; "
            "keys and set elements are numbers, text, bytes, None and tuples of them"
        )


def _objection(value: Any) -> str:
    kind = type(value)
    if kind.__module__ == "numpy":
        hint = "from_numpy(array) makes a tensor of it"
        if not getattr(value, "ndim", 1):
            hint = "its .item() is a Python number"
        return f"it is a NumPy {kind.__name__}; {hint}"
    if callable(getattr(value, "state_dict", None)):
        return f"it is a {kind.__qualname__}, not plain data; save its state_dict() instead"
    plain = "tensors, numbers, text, bytes, None and lists, tuples, sets and dictionaries of them"
    for base in (dict, list, tuple, set, str, int, float):
        if isinstance(value, base):
            return f"it is a {kind.__qualname__}; {base.__name__}(value) is plain data"
    return f"a {kind.__qualname__} is not plain data ({plain})"


_WRITERS: Final[dict[type, Callable[[Pickler, Any, _Path], None]]] = {
    type(None): Pickler._constant,
    bool: Pickler._constant,
    int: Pickler._int,
    float: Pickler._float,
    str: Pickler._str,
    complex: Pickler._complex,
    bytes: Pickler._bytes,
    bytearray: Pickler._bytearray,
    tuple: Pickler._tuple,
    list: Pickler._list,
    set: Pickler._set,
    frozenset: Pickler._set,
    dict: Pickler._dict,
    OrderedDict: Pickler._ordered,
    Counter: Pickler._counter,
    DType: Pickler._dtype,
    Device: Pickler._device,
    Size: Pickler._size,
}
