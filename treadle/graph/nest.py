"""The loops around a kernel's values: one parallel loop over tasks, serial loops, a vector loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treadle.base import shape as sh
from treadle.base.symbolic import derived
from treadle.graph.emit import Emitter, label_of
from treadle.graph.plan import Launch
from treadle.graph.pull import Value
from treadle.graph.values import Dim
from treadle.ir.loop import Binary, Block, Const, Expr, For, Let, Stmt, Var

TASK = 16384
"""Work of a task, in additions: enough to be worth handing out, little enough to balance."""


@dataclass(slots=True)
class Piece:
    """A loop cut into tasks: each does up to `size` of the `extent` positions."""

    dim: Dim
    size: int

    @property
    def count(self) -> int:
        """The number of tasks along this loop."""
        return derived(_pieces, self.dim.extent, self.size, least=1)


class Nest:
    """Statements by level: 0 outside of all loops, then one level a loop.

    The parallel loop realises `whole` loops entirely, one position a task, and the loops of
    `pieces` in part; these go on as serial or vector loops below.
    """

    def __init__(self, emitter: Emitter) -> None:
        self.emitter = emitter
        self.levels: list[list[Stmt]] = [[]]
        self.tasks = 1
        self._loops: list[tuple[str, Expr, str]] = []
        self._level_of: list[tuple[int, int]] = []
        self._base: dict[int, tuple[Expr, Expr]] = {}
        self._floor = 0

    def level(self, mask: int) -> int:
        """The innermost loop that a value with these variables changes in."""
        for bits, level in reversed(self._level_of):
            if mask & bits:
                return level
        return self._floor

    def _open(self, var: str, stop: Expr, kind: str) -> None:
        self._loops.append((var, stop, kind))
        self.levels.append([])

    def parallel(self, whole: Sequence[Dim], pieces: Sequence[Piece]) -> Expr | None:
        """The loop over tasks, and the positions that a task stands for; returns the task."""
        emitter = self.emitter
        counts = [d.extent for d in whole] + [p.count for p in pieces]
        for n in counts:
            self.tasks *= n
        if not counts:
            return None
        task = emitter.fresh("t")
        self._open(task, emitter.size(self.tasks), "parallel")
        # The parallel loop is the whole kernel: nothing stands beside it.
        self._floor = 1
        level = len(self.levels) - 1
        body = self.levels[level]
        rest: Expr = Var(task)
        targets: list[Dim | Piece] = [*whole, *pieces]
        for i in reversed(range(len(targets))):
            target = targets[i]
            at = rest
            if i:
                count = emitter.size(counts[i])
                at = self._let(body, "p", Binary("mod", rest, count))
                rest = self._let(body, "q", Binary("floordiv", rest, count))
            if isinstance(target, Piece):
                base = self._let(body, "s", Binary("mul", at, emitter.size(target.size)))
                left = Binary("sub", emitter.size(target.dim.extent), base)
                stop = self._let(body, "n", Binary("min", emitter.size(target.size), left))
                self._base[target.dim.mask] = (base, stop)
            else:
                self._realise(target, [at], level)
        return Var(task)

    def bind(self, prefix: str, value: Expr) -> Var:
        """Gives an index a name in the innermost loop."""
        return self._let(self.inner, prefix, value)

    def _let(self, body: list[Stmt], prefix: str, value: Expr) -> Var:
        name = self.emitter.fresh(prefix)
        body.append(Let(name, value))
        return Var(name)

    def _realise(self, dim: Dim, parts: list[Expr], level: int) -> None:
        self.emitter.real[dim.atom] = parts
        self.emitter.depth[dim.atom] = level
        self._level_of.append((dim.mask, level))

    def loop(self, dim: Dim, kind: str, base: tuple[Expr, Expr] | None = None) -> Var:
        """A loop over a dimension, or over what the task has of it."""
        emitter = self.emitter
        var = emitter.fresh("i")
        if base is None:
            base = self._base.get(dim.mask)
        self._open(var, emitter.size(dim.extent) if base is None else base[1], kind)
        level = len(self.levels) - 1
        parts: list[Expr] = [Var(var)]
        if base is not None and kind == "vector":
            parts = [base[0], Var(var)]
        elif base is not None:
            name = emitter.fresh("r")
            self.levels[level].append(Let(name, Binary("add", base[0], Var(var))))
            parts = [Var(name)]
        self._realise(dim, parts, level)
        return Var(var)

    def pairs(self, dim: Dim) -> list[Expr]:
        """A loop over what the task has of a dimension, two positions at once; where their number
        is odd, the last one is done twice. Returns both positions, and stands at the first."""
        base, stop = self._base[dim.mask]
        half = Binary("floordiv", Binary("add", stop, Const(1)), Const(2))
        turn = self.turns(self.bind("g", half))
        twice = Binary("mul", turn, Const(2))
        first = self.bind("r", Binary("add", base, twice))
        last = Binary("sub", Binary("add", base, stop), Const(1))
        second = self.bind("r", Binary("min", Binary("add", first, Const(1)), last))
        self._realise(dim, [first], len(self.levels) - 1)
        return [first, second]

    def turns(self, stop: Expr) -> Var:
        """A serial loop that goes along no dimension by itself."""
        var = self.emitter.fresh("i")
        self._open(var, stop, "serial")
        return Var(var)

    def unroll(self, dim: Dim, start: Expr, count: int) -> None:
        """A few positions of a dimension, written out."""
        var, name = self.emitter.fresh("i"), self.emitter.fresh("r")
        self._open(var, Const(count), "unroll")
        level = len(self.levels) - 1
        self.levels[level].append(Let(name, Binary("add", start, Var(var))))
        self._realise(dim, [Var(name)], level)

    def base(self, dim: Dim) -> tuple[Expr, Expr]:
        """Where a task's part of a dimension begins, and how long it is."""
        return self._base[dim.mask]

    @property
    def inner(self) -> list[Stmt]:
        """The statements of the innermost loop so far."""
        return self.levels[-1]

    def place(self, v: Value) -> None:
        """Binds a value at the level where it changes."""
        level = self.level(v.mask)
        self.levels[level].append(self.emitter.bind(v))

    def close(self, level: int = 0) -> None:
        """Ends the loops above a level: each becomes a statement of the one around it."""
        while len(self.levels) - 1 > level:
            body = self.levels.pop()
            var, stop, kind = self._loops.pop()
            self.levels[-1].append(For(var, stop, _block(body), kind))
            self._level_of = [(m, n) for m, n in self._level_of if n < len(self.levels)]

    def finish(self) -> Stmt:
        """The whole nest."""
        self.close()
        return _block(self.levels[0])

    def launch(self, name: str, order: Sequence[Value], dims: Sequence[Dim]) -> Launch:
        """The finished kernel with what it is launched on; every value of `order` that is computed
        takes an operation at each position of the dimensions."""
        count = sh.count([d.extent for d in dims])
        flop = count * sum([v.kind in ("expr", "reduce", "scan") for v in order])
        body = self.finish()
        return self.emitter.launch(name, body, self.tasks, label_of(order), order, flop)


def _block(body: list[Stmt]) -> Stmt:
    return body[0] if len(body) == 1 else Block(tuple(body))


def cut(extent: int, work: int) -> int:
    """How many positions of a loop make a task, at `work` additions each."""
    return derived(_cut, extent, work, least=1)


def _pieces(extent: int, size: int) -> int:
    return max(1, -(-extent // size))


def _cut(extent: int, work: int) -> int:
    if extent * work <= 2 * TASK:
        return max(extent, 1)
    size = max(1, TASK // work)
    if size < extent and size >= 64:
        size = -(-size // 64) * 64
    return min(size, extent)
