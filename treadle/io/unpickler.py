"""A machine that reads pickles and can run nothing.

A pickle is a program for a stack machine, and Python's own machine calls whatever the program
names. This one has no instruction that imports, calls or sets attributes: a global stays a `Name`
(text), and "call a global" looks the name up in a short table that builds plain data. Anything else
ends the reading with an error that says what the file asked for.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Any, Final, NoReturn

from treadle.base.errors import CheckpointError
from treadle.io import names
from treadle.io.names import Name
from treadle.io.plain import is_key

_MAPPINGS: Final = (dict, OrderedDict, Counter)


class Malformed(Exception):
    """A pickle that breaks the grammar of pickles; the reader of the file adds its name."""


class Unpickler:
    """Reads one pickle from `data`, starting at `position`.

    `construct(name, args)` builds what a constructor of `names.CONSTRUCTORS` stands for;
    `persistent(id)` gives what lies outside of the pickle: a storage. `label` names the file.
    `load` returns the value; `position` is then the byte after the pickle.
    """

    def __init__(
        self,
        data: bytes,
        label: str,
        construct: Callable[[Name, tuple[Any, ...]], Any],
        persistent: Callable[[Any], Any],
        position: int = 0,
    ) -> None:
        self.data = data
        self.position = position
        self.label = label
        self._construct = construct
        self._persistent = persistent
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The value of the pickle; raises `Malformed` or `CheckpointError`."""
        actions, data, stop = _ACTIONS, self.data, ord(".")
        try:
            while True:
                code = data[self.position]
                self.position += 1
                if code == stop:
                    return self._stack.pop()
                action = actions.get(code)
                if action is None:
                    self._unknown(code)
                action(self)
        except IndexError:
            raise Malformed("its pickle is cut short or takes more than it has put down") from None
        except (struct.error, UnicodeError) as error:
            raise Malformed(f"its pickle is damaged ({type(error).__name__}: {error})") from None

    def _unknown(self, code: int) -> NoReturn:
        if code in _CALLING:
            raise self.refused(f"the pickle instruction {_CALLING[code]}")
        raise Malformed(f"its pickle has an unknown instruction {bytes([code])!r}")

    def refused(self, what: str) -> CheckpointError:
        """The error for a file that asks for more than data."""
        return CheckpointError(
            f"cannot read {self.label}: it asks to run code ({what}), and nothing was run; "
            "treadle reads only tensors and plain data. If you trust the file, load it where it "
            "was made and save its state_dict"
        )

    # Reading from the program.

    def _take(self, count: int) -> bytes:
        end = self.position + count
        if count < 0 or end > len(self.data):
            raise Malformed(f"its pickle claims {count:,} bytes more than it has")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def _number(self, form: struct.Struct) -> Any:
        return form.unpack(self._take(form.size))[0]

    def _line(self) -> str:
        end = self.data.find(b"\n", self.position)
        if end < 0:
            raise Malformed("its pickle is cut short within a name")
        return self._take(end + 1 - self.position)[:-1].decode()

    # The stack.

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _since_mark(self) -> list[Any]:
        items = self._stack
        self._stack = self._marks.pop()
        return items

    def _pop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._since_mark()

    def _drop_mark(self) -> None:
        self._since_mark()

    def _tuple(self, count: int) -> None:
        if len(self._stack) < count:
            raise IndexError
        self._stack[len(self._stack) - count :] = [tuple(self._stack[len(self._stack) - count :])]

    # Filling containers.

    def _top(self, *kinds: type) -> Any:
        top = self._stack[-1]
        if type(top) not in kinds:
            raise Malformed(f"its pickle fills a {type(top).__name__} as if it were a container")
        return top

    def _append(self, items: list[Any]) -> None:
        self._top(list).extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self._top(*_MAPPINGS)
        if len(items) % 2:
            raise Malformed("its pickle has a key without a value")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[checked_key(key)] = value

    def _add_items(self, items: list[Any]) -> None:
        self._top(set).update(map(checked_key, items))

    def _pair(self) -> list[Any]:
        value = self._stack.pop()
        return [self._stack.pop(), value]

    # The memo.

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _get(self, index: int) -> None:
        if index not in self._memo:
            raise Malformed("its pickle fetches a value that it has not kept")
        self._stack.append(self._memo[index])

    # Globals and what is built from them.

    def _global(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise Malformed("its pickle names a global with something that is no text")
        found = names.normalised(module, name)
        if found in names.CONSTRUCTORS or found in names.DTYPE_OF_STORAGE:
            self._stack.append(found)
        elif found in names.DTYPE_NAMED:
            self._stack.append(names.DTYPE_NAMED[found])
        elif names.is_foreign(found):
            raise CheckpointError(
                f"cannot read {self.label}: it holds {module}.{name}, a kind of tensor or "
                "element that treadle does not have"
            )
        else:
            raise self.refused(f"{module}.{name}")

    def _reduce(self) -> None:
        args = self._stack.pop()
        function = self._stack[-1]
        if type(args) is not tuple or type(function) is not Name:
            raise self.refused(f"a call of a {type(function).__name__}")
        if function not in names.CONSTRUCTORS:
            raise Malformed(f"its pickle calls {function}, which is a type and takes no arguments")
        self._stack[-1] = self._construct(function, args)

    def _build(self) -> None:
        """Sets the one attribute that plain data has: the versions that a state_dict carries."""
        state = self._stack.pop()
        target = self._stack[-1]
        if type(target) is not OrderedDict or type(state) is not dict or set(state) - {"_metadata"}:
            raise self.refused(f"setting attributes of a {type(target).__name__}")
        target.__dict__.update(state)

    def _persist(self) -> None:
        self._stack.append(self._persistent(self._stack.pop()))


def checked_key(value: Any) -> Any:
    """`value`, if it may be a dictionary key or a set element; raises `Malformed` if not."""
    if not is_key(value):
        raise Malformed(f"it uses a {type(value).__name__} as a dictionary key or set element")
    return value


def _long(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


_U1, _U2, _I4, _U4, _U8, _F8 = map(struct.Struct, ("<B", "<H", "<i", "<I", "<Q", ">d"))
_Action = Callable[[Unpickler], None]


def _text(form: struct.Struct) -> _Action:
    return lambda m: m._push(str(m._take(m._number(form)), "utf-8", "surrogatepass"))


def _bytes(form: struct.Struct) -> _Action:
    return lambda m: m._push(m._take(m._number(form)))


def _ascii(form: struct.Struct) -> _Action:
    """Text of Python 2, which old files use for keys."""
    return lambda m: m._push(m._take(m._number(form)).decode())


def _constant(value: Any) -> _Action:
    return lambda m: m._push(value)


def _stack_global(machine: Unpickler) -> None:
    machine._global(*machine._pair())


def _frozen_set(machine: Unpickler) -> None:
    machine._push(frozenset(map(checked_key, machine._since_mark())))


_NAMED: Final[dict[bytes, _Action]] = {
    b"\x80": lambda m: _check_protocol(m._number(_U1)),
    b"\x95": lambda m: m._number(_U8),  # FRAME: how the file was buffered
    b"(": Unpickler._mark,
    b"0": Unpickler._pop,
    b"1": Unpickler._drop_mark,
    b"2": lambda m: m._push(m._stack[-1]),
    b"N": _constant(None),
    b"\x88": _constant(True),
    b"\x89": _constant(False),
    b"K": lambda m: m._push(m._number(_U1)),
    b"M": lambda m: m._push(m._number(_U2)),
    b"J": lambda m: m._push(m._number(_I4)),
    b"\x8a": lambda m: m._push(_long(m._take(m._number(_U1)))),
    b"\x8b": lambda m: m._push(_long(m._take(m._number(_I4)))),
    b"G": lambda m: m._push(m._number(_F8)),
    b"X": _text(_U4),
    b"\x8c": _text(_U1),
    b"\x8d": _text(_U8),
    b"U": _ascii(_U1),
    b"T": _ascii(_I4),
    b"C": _bytes(_U1),
    b"B": _bytes(_U4),
    b"\x8e": _bytes(_U8),
    b"\x96": lambda m: m._push(bytearray(m._take(m._number(_U8)))),
    b")": _constant(()),
    b"\x85": lambda m: m._tuple(1),
    b"\x86": lambda m: m._tuple(2),
    b"\x87": lambda m: m._tuple(3),
    b"t": lambda m: m._push(tuple(m._since_mark())),
    b"]": lambda m: m._push([]),
    b"}": lambda m: m._push({}),
    b"\x8f": lambda m: m._push(set()),
    b"l": lambda m: m._push(m._since_mark()),
    b"\x91": _frozen_set,
    b"a": lambda m: m._append([m._stack.pop()]),
    b"e": lambda m: m._append(m._since_mark()),
    b"s": lambda m: m._set_items(m._pair()),
    b"u": lambda m: m._set_items(m._since_mark()),
    b"\x90": lambda m: m._add_items(m._since_mark()),
    b"q": lambda m: m._put(m._number(_U1)),
    b"r": lambda m: m._put(m._number(_U4)),
    b"\x94": lambda m: m._put(len(m._memo)),
    b"h": lambda m: m._get(m._number(_U1)),
    b"j": lambda m: m._get(m._number(_U4)),
    b"c": lambda m: m._global(m._line(), m._line()),
    b"\x93": _stack_global,
    b"R": Unpickler._reduce,
    b"b": Unpickler._build,
    b"Q": Unpickler._persist,
}
_ACTIONS: Final = {code[0]: action for code, action in _NAMED.items()}
_CALLING: Final = {
    ord("i"): "INST", ord("o"): "OBJ", 0x81: "NEWOBJ", 0x92: "NEWOBJ_EX",
    0x82: "EXT1", 0x83: "EXT2", 0x84: "EXT4",
}  # fmt: skip


def _check_protocol(version: int) -> None:
    if version > 5:
        raise Malformed(f"its pickle has the unknown protocol {version}")
