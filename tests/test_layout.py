"""The code keeps its form: small files, short functions, imports at the top, rooms in order."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "treadle"
FILES = sorted(PACKAGE.rglob("*.py"))
LINES_A_FILE = 600
LINES_A_FUNCTION = 60

ROOMS = (
    {"base"}, {"ir"}, {"ops"}, {"graph"}, {"codegen"}, {"runtime"}, {"tensor"},
    {"nn", "optim", "utils", "io"}, {"vision", "text"},
)  # fmt: skip
LEVEL = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}


def each_file(function):
    return pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))(
        function
    )


def tree(path):
    return ast.parse(path.read_text(), str(path))


def functions(path):
    """The functions and methods of a file."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def imported(node):
    """The modules of treadle that an import statement names."""
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, f"line {node.lineno}: a relative import"
        modules = [f"{node.module}.{alias.name}" for alias in node.names]
    else:
        return []
    return [name for name in modules if name.split(".")[0] == "treadle"]


@each_file
def test_files_are_small(path):
    assert len(path.read_text().splitlines()) <= LINES_A_FILE


@each_file
def test_functions_are_short(path):
    long = {
        node.name: node.end_lineno - node.lineno + 1
        for node in functions(path)
        if node.end_lineno - node.lineno >= LINES_A_FUNCTION
    }
    assert not long


@each_file
def test_functions_import_nothing_of_treadle(path):
    found = [
        f"line {inner.lineno}: {name}"
        for node in functions(path)
        for inner in ast.walk(node)
        for name in imported(inner)
    ]
    assert not found


@each_file
def test_a_room_imports_only_rooms_above_itself(path):
    parts = path.relative_to(PACKAGE).parts
    if len(parts) == 1:
        pytest.skip("the package itself re-exports every room")
    wrong = [
        f"line {node.lineno}: {name}"
        for node in ast.walk(tree(path))
        for name in imported(node)
        if (room := name.split(".")[1]) != parts[0] and LEVEL[room] >= LEVEL[parts[0]]
    ]
    assert not wrong


def test_every_folder_is_a_room():
    folders = {p.name for p in PACKAGE.iterdir() if p.is_dir() and p.name != "__pycache__"}
    assert folders == set(LEVEL)
