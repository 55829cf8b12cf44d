"""From an object file to code that runs wherever it is put.

LLVM's objects for kernels refer only to themselves, relative to where they are, and call nobody but
functions whose images are put behind theirs.
So linking is done once, when a kernel is compiled: the sections that matter are laid out in one
image and the references between them filled in. What is cached, copied to executable memory and
run is that image; loading it needs neither LLVM nor a linker.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from treadle.base.errors import CompileError

_SHT_PROGBITS, _SHT_SYMTAB, _SHT_RELA, _SHT_NOBITS = 1, 2, 4, 8
_SHF_ALLOC: Final = 2
_SKIPPED: Final = (".eh_frame", ".note")


@dataclass(frozen=True, slots=True)
class Image:
    """Code and constants in one piece, and where in it each function begins."""

    code: bytes
    symbols: dict[str, int]


@dataclass(slots=True)
class _Section:
    name: str
    kind: int
    flags: int
    offset: int
    size: int
    link: int
    info: int
    alignment: int
    place: int = -1


def link(data: bytes, provide: Callable[[str], Image] | None = None) -> Image:
    """Lays out an ELF object for x86-64 or AArch64.

    data:    the object
    provide: gives the image of a function that the object calls and does not define

    Raises `CompileError` for a symbol that nobody defines, or a reference of a kind that is not
    known here.
    """
    if data[:6] != b"\x7fELF\x02\x01":
        raise CompileError("not a little-endian 64-bit ELF object")
    (machine,) = struct.unpack_from("<H", data, 18)
    relocate = _RELOCATORS.get(machine)
    if relocate is None:
        raise CompileError(f"no linker for ELF machine {machine}")
    sections = _sections(data)
    code = _lay_out(data, sections)
    symbols = _symbols(data, sections)
    exported = _exported(data, sections, symbols)
    added: dict[str, int] = {}
    for section in sections:
        if section.kind == _SHT_RELA and sections[section.info].place >= 0:
            base = sections[section.info].place
            for at in range(section.offset, section.offset + section.size, 24):
                offset, info, addend = struct.unpack_from("<QQq", data, at)
                name, address = symbols[info >> 32]
                if address is None:
                    if provide is None:
                        raise CompileError(f"the kernel calls {name!r}, which nobody provides")
                    if name not in added:
                        added[name] = _append(code, provide(name), name, machine)
                    address = added[name]
                relocate(code, info & 0xFFFFFFFF, base + offset, address + addend)
    return Image(bytes(code), exported)


def _append(code: bytearray, image: Image, symbol: str, machine: int) -> int:
    """Puts an image behind the code; returns the place of its symbol."""
    code += bytes(-len(code) % _PLACEMENT[machine])
    start = len(code)
    code += image.code
    return start + image.symbols[symbol]


def _sections(data: bytes) -> list[_Section]:
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count, names_at = struct.unpack_from("<HHH", data, 58)
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, start + i * size) for i in range(count)]
    names = headers[names_at][4]
    found = []
    for name, kind, flags, _, offset, length, link_to, info, alignment, _ in headers:
        end = data.index(b"\0", names + name)
        text = data[names + name : end].decode()
        found.append(_Section(text, kind, flags, offset, length, link_to, info, alignment))
    return found


def _lay_out(data: bytes, sections: list[_Section]) -> bytearray:
    code = bytearray()
    for section in sections:
        wanted = section.flags & _SHF_ALLOC and not section.name.startswith(_SKIPPED)
        if not wanted or section.kind not in (_SHT_PROGBITS, _SHT_NOBITS):
            continue
        code += bytes(-len(code) % max(section.alignment, 1))
        section.place = len(code)
        if section.kind == _SHT_PROGBITS:
            code += data[section.offset : section.offset + section.size]
        else:
            code += bytes(section.size)
    return code


def _symbols(data: bytes, sections: list[_Section]) -> list[tuple[str, int | None]]:
    """Every symbol's name and place in the image; `None` for what is not in it."""
    table = next((s for s in sections if s.kind == _SHT_SYMTAB), None)
    if table is None:
        return []
    names = sections[table.link].offset
    found: list[tuple[str, int | None]] = []
    for at in range(table.offset, table.offset + table.size, 24):
        name, _, _, index, value, _ = struct.unpack_from("<IBBHQQ", data, at)
        text = data[names + name : data.index(b"\0", names + name)].decode()
        inside = 0 < index < len(sections) and sections[index].place >= 0
        found.append((text, sections[index].place + value if inside else None))
    return found


def _exported(
    data: bytes, sections: list[_Section], symbols: list[tuple[str, int | None]]
) -> dict[str, int]:
    """The places of the symbols that are visible from outside."""
    table = next((s for s in sections if s.kind == _SHT_SYMTAB), None)
    found: dict[str, int] = {}
    for i, (name, place) in enumerate(symbols):
        if table is not None and place is not None and data[table.offset + 24 * i + 4] >> 4:
            found[name] = place
    return found


def _relocate_x86(code: bytearray, kind: int, at: int, target: int) -> None:
    if kind not in (2, 4):  # R_X86_64_PC32, R_X86_64_PLT32
        raise CompileError(f"no way to fill in the x86-64 reference of kind {kind}")
    struct.pack_into("<i", code, at, target - at)


def _relocate_arm(code: bytearray, kind: int, at: int, target: int) -> None:
    (word,) = struct.unpack_from("<I", code, at)
    if kind == 275:  # R_AARCH64_ADR_PREL_PG_HI21: the page of an address
        pages = (target >> 12) - (at >> 12)
        word |= (pages & 3) << 29 | (pages >> 2 & 0x7FFFF) << 5
    elif kind in _ARM_LOW_BITS:  # the rest of it, in units of the access
        word |= (target & 0xFFF) >> _ARM_LOW_BITS[kind] << 10
    elif kind in (282, 283):  # R_AARCH64_JUMP26, R_AARCH64_CALL26
        word |= (target - at) >> 2 & 0x3FFFFFF
    elif kind == 261:  # R_AARCH64_PREL32
        word = (target - at) & 0xFFFFFFFF
    else:
        raise CompileError(f"no way to fill in the AArch64 reference of kind {kind}")
    struct.pack_into("<I", code, at, word)


_ARM_LOW_BITS: Final = {277: 0, 278: 0, 284: 1, 285: 2, 286: 3, 299: 4}
_PLACEMENT: Final = {62: 64, 183: 4096}
"""AArch64 refers to pages: an image moves by whole ones."""
_RELOCATORS: Final[dict[int, Callable[[bytearray, int, int, int], None]]] = {
    62: _relocate_x86,
    183: _relocate_arm,
}
