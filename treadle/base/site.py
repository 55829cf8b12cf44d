"""Where in the user's program a node was recorded: cheap to keep, resolved only to be shown."""

from __future__ import annotations

import linecache
import os
import sys
from types import CodeType

_PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_inside: dict[str, bool] = {}
"""Whether a file is one of the package, by its name."""

Site = tuple[CodeType, int]
"""A code object and the offset of an instruction in it."""


def call_site() -> Site | None:
    """The innermost frame outside of treadle, or `None` at the top of the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        code = frame.f_code
        name = code.co_filename
        inside = _inside.get(name)
        if inside is None:
            inside = _inside[name] = name.startswith(_PACKAGE)
        if not inside:
            return code, frame.f_lasti
        frame = frame.f_back  # type: ignore[assignment]
    return None


def line_of(site: Site | None) -> tuple[str, int, str]:
    """The file, line number and text of a site, or `("", 0, "")` where it is unknown."""
    if site is None:
        return "", 0, ""
    code, offset = site
    number = code.co_firstlineno
    for start, stop, line in code.co_lines():
        if start <= offset < stop and line is not None:
            number = line
            break
    return code.co_filename, number, linecache.getline(code.co_filename, number).strip()


def describe(site: Site | None) -> str:
    """A site as one line of an error message: `file:line: text`."""
    file, number, text = line_of(site)
    return f"{file}:{number}: {text}" if file else "(unknown line)"
