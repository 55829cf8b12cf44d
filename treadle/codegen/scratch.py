"""How much scratch memory a loop nest uses: a number, once the sizes of a launch are known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from weakref import WeakKeyDictionary

from treadle.base.errors import CompileError
from treadle.ir.loop import Alloc, Binary, Const, Expr, Kernel, Size
from treadle.ir.walk import statements

_ALIGNMENT = 64
_allocs: Final[WeakKeyDictionary[Kernel, list[Alloc]]] = WeakKeyDictionary()


def _allocs_of(kernel: Kernel) -> list[Alloc]:
    found = _allocs.get(kernel)
    if found is None:
        found = _allocs[kernel] = [
            s for s in statements(kernel.body) if isinstance(s, Alloc) and s.space == "scratch"
        ]
    return found


def uses_scratch(kernel: Kernel) -> bool:
    """Whether launches of the kernel need scratch memory at all."""
    return bool(_allocs_of(kernel))


def scratch_bytes(kernel: Kernel, sizes: Sequence[int]) -> int:
    """Bytes of one thread's scratch memory that a launch of the kernel needs."""
    total = 0
    for stmt in _allocs_of(kernel):
        nbytes = _value(stmt.size, sizes) * stmt.dtype.itemsize
        total += -(-nbytes // _ALIGNMENT) * _ALIGNMENT
    return total


def _value(expr: Expr, sizes: Sequence[int]) -> int:
    if isinstance(expr, Const):
        return int(expr.value)
    if isinstance(expr, Size):
        return sizes[expr.index]
    if isinstance(expr, Binary) and expr.op in ("add", "mul"):
        a, b = _value(expr.a, sizes), _value(expr.b, sizes)
        return a + b if expr.op == "add" else a * b
    raise CompileError(f"the size of scratch memory is no sum or product of sizes: {expr!r}")
