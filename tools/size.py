"""Prints how large each room is: `python tools/size.py`.

A line of code is one that is not blank, no comment and no part of a docstring.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path
from typing import NamedTuple

ROOMS = (
    "base", "ir", "ops", "graph", "codegen", "comm", "runtime", "tensor", "nn", "optim", "utils",
    "io", "vision",
)  # fmt: skip
ROOT = Path(__file__).resolve().parent.parent
_LAYOUT = (
    tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT,
    tokenize.ENCODING, tokenize.ENDMARKER,
)  # fmt: skip


class Size(NamedTuple):
    """What some files hold."""

    files: int = 0
    lines: int = 0
    code: int = 0

    def __add__(self, other: object) -> Size:
        if not isinstance(other, Size):
            return NotImplemented
        return Size(*(a + b for a, b in zip(self, other, strict=True)))


def docstrings(source: str) -> set[int]:
    """The numbers of the lines that docstrings take."""
    found: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(
            node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) and (ast.get_docstring(node, clean=False) is not None):
            text = node.body[0]
            found.update(range(text.lineno, (text.end_lineno or text.lineno) + 1))
    return found


def size_of(source: str) -> Size:
    """The size of one file."""
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    return Size(1, len(source.splitlines()), len(code - docstrings(source)))


def size_under(folder: Path) -> Size:
    """The size of all Python files under a folder."""
    return sum((size_of(path.read_text()) for path in folder.rglob("*.py")), Size())


def main() -> None:
    """Prints the table."""
    package = ROOT / "treadle"
    rooms = {room: size_under(package / room) for room in ROOMS}
    rows = {
        **rooms,
        "treadle": size_under(package),
        "tests": size_under(ROOT / "tests"),
    }
    print(f"{'room':<10}{'files':>8}{'lines':>8}{'code':>8}")
    for name, size in rows.items():
        if name == "treadle":
            print("-" * 34)
        print(f"{name:<10}{size.files:>8}{size.lines:>8}{size.code:>8}")


if __name__ == "__main__":
    main()
