"""Recording once more over formulas: what a composite or a backward pass does for other sizes.

Library code runs with numbers that keep their formulas in place of sizes. What it decides by them
becomes a condition, and where it takes their values they are fixed; so what it records holds for
all sizes that fulfil the conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from treadle.base.algebra import Algebra
from treadle.base.symbolic import Symbolic, fixed
from treadle.graph.capture import LEAF, State, Trace
from treadle.graph.formulas import Formulas, Sample, Sizes, Unsuitable
from treadle.graph.segment import Numbers, Segment, Template, numbers_of
from treadle.ir.node import Node
from treadle.ops.table import INPUT
from treadle.tensor.recorder import Recorder, hold


class FormulaTrace(Trace):
    """A trace beside the trie, of values whose sizes are formulas."""

    formulas = True

    def __init__(self) -> None:
        super().__init__()
        self.state = State(None, None, (), 0)

    def enter(self, t: Any) -> int:
        """The position of a tensor: nothing may come in from elsewhere."""
        if t._trace is self:
            pos: int = t._pos
            return pos
        raise Unsuitable("it uses a tensor that is no input")

    def given(self, node: Node, inputs: tuple[int, ...], needs: int) -> Any:
        """A tensor of a value that was there before."""
        self.state = State(self.state, node, inputs, needs)
        out = hold(self, self.state)
        if needs == LEAF:
            self.leaf_handles[self.state.pos] = out
        return out


@contextmanager
def recording(recorder: Recorder, trace: Trace) -> Iterator[None]:
    """A block that records into another trace."""
    before = recorder.trace
    recorder.trace = trace
    try:
        yield
    except Unsuitable:
        raise
    except Exception as error:
        raise Unsuitable(f"over formulas it raises {error!r}") from error
    finally:
        recorder.trace = before


def retraced(
    recorder: Recorder, body: Callable[..., Any], types: Sequence[tuple[Node, int]],
    positions: Sequence[int], sizes: Sizes, before: Sizes, vary: frozenset[int], maker: Any,
) -> Template:  # fmt: skip
    """The template of a composite on inputs of some types.

    Args:
        types: the node of each input, and its part in autograd.
        positions: equal where inputs are the same.
        sizes: of all inputs in a row.
        before: of an earlier call.
        vary: which sizes are to be symbols.
        maker: the name of the results.

    Raises:
        Unsuitable: the composite does what has no formulas.
    """
    algebra = Algebra(strict=True)
    nodes = [Node(INPUT, (), node.attrs, node.shape, node.dtype) for node, _ in types]
    rest = iter(before)
    shapes = tuple([tuple([next(rest) for _ in node.shape]) for node in nodes])
    formulas = Formulas(algebra, nodes, sizes, Sample(before, shapes), vary)
    trace = FormulaTrace()
    tensors: dict[int, Any] = {}
    for node, (_, needs), pos in zip(nodes, types, positions, strict=True):
        if pos not in tensors:
            tensors[pos] = trace.given(formulas.new[node], (), needs)
    given = [tensors[pos] for pos in positions]
    places = [t._pos for t in given]
    with recording(recorder, trace):
        made = body(*given)
    results = made if isinstance(made, tuple) else (made,)
    if any(t._trace is not trace for t in results):
        raise Unsuitable("a result comes from elsewhere")
    ends = [t._pos for t in results]
    states = trace.state.path()
    for pos in ends:
        states[pos].maker = maker
    return template_of(
        algebra, trace, states[len(tensors) :], places, ends, isinstance(made, tuple), sizes,
        formulas.symbols,
    )  # fmt: skip


def template_of(
    algebra: Algebra, trace: Trace, states: Sequence[State], places: Sequence[int],
    results: Sequence[int], many: bool, sizes: Sizes, symbols: Sequence[int],
) -> Template:  # fmt: skip
    """What was recorded over formulas as a template."""
    if any(hasattr(value, "address") for value in trace.leaves):
        raise Unsuitable("it reads memory")
    segment = Segment(states, places, results, many)
    numbers = numbers_of(states, results, tuple(trace.leaves))
    for number in numbers[2]:
        _keep_kind(number)
    evaluate: Callable[[Sequence[Any]], Numbers | None] = algebra.compile(numbers)
    return Template(segment, evaluate, sizes, symbols)


def _keep_kind(number: Any) -> None:
    """Makes it a condition that a size stays what it is to the structure: 0, 1, or another one."""
    if type(number) is Symbolic:
        if number.value in (0, 1):
            fixed(number)
        else:
            number.algebra.positive(number - 1 if number.value > 1 else -number)
