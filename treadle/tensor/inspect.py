"""Looking at what is pending and at what was made of it, at every stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from treadle.base.lazy import LazyModule
from treadle.base.site import describe
from treadle.codegen.compile import stages
from treadle.graph import plan as plans
from treadle.graph import text
from treadle.graph.build import build
from treadle.graph.plan import Plan
from treadle.ir.node import Node, topological
from treadle.ir.show import show as show_loops
from treadle.ops.table import INPUT
from treadle.runtime.execute import missed
from treadle.tensor.record import Lazy, position, recorder

np = LazyModule("numpy")


def show(tensors: Any = None, stage: str = "graph", sites: bool = False) -> str:
    """What computes some pending tensors, as text; nothing runs.

    Args:
        tensors: a tensor or a sequence of them; without it, everything pending and held.
        stage: `graph` (runnable Python with shapes), `plan` (launches over memory), `loops` (each
            kernel as a loop nest), `llvm` or `asm`.
        sites: add the user's lines (graph and plan).

    Raises:
        ValueError: an unknown stage, or nothing is pending.

    Example:
        >>> import treadle
        >>> print(treadle.show(treadle.ones(2, 3).exp()))
        def graph(
        ):
            v0 = full(shape=(2, 3), value=1.0, dtype=dtype.float32)  # float32[2, 3]
            v1 = exp(v0)  # float32[2, 3]
            return v1
    """
    outputs, inputs = _pending(tensors)
    if stage == "graph":
        return text.write(outputs, inputs, sites)
    plan = build(outputs, inputs, frozenset())
    if stage == "plan":
        return plans.show(plan, sites)
    return "\n\n".join(_kernels(plan, stage))


def _pending(tensors: Any) -> tuple[list[Node], list[Node]]:
    trace = recorder().trace
    if tensors is None:
        chosen = trace.live()
    else:
        chosen = [tensors] if isinstance(tensors, Lazy) else list(tensors)
    chosen = [t for t in chosen if t._buffer is None]
    if not chosen:
        raise ValueError("nothing to show: the tensors are computed already")
    states = trace.state.path()
    outputs = [n for t in chosen if (n := states[position(trace, t)].node) is not None]
    used = set(topological(outputs))
    return outputs, [s.node for s in states if s.node in used and s.node.op is INPUT]


def _kernels(plan: Plan, stage: str) -> Iterator[str]:
    seen = set()
    for launch in plan.launches:
        loops = show_loops(launch.kernel)
        if loops in seen:
            continue
        seen.add(loops)
        if stage == "loops":
            yield loops
            continue
        _, made = stages(launch.kernel)
        if stage == "llvm":
            yield made.optimised
        elif stage == "asm":
            yield made.assembly
        else:
            raise ValueError(f"stage is 'graph', 'plan', 'loops', 'llvm' or 'asm', not {stage!r}")


def explain(last: int = 1) -> str:
    """Why the last plans had to be made: what was new in their traces, with the user's line.

    Args:
        last: how many of them, the newest last.
    """
    chosen = list(missed)[-last:] if last else []
    return "\n".join(chosen) or "no plan was made yet"


def pending() -> dict[str, int]:
    """How many values are recorded and not run, and how many of them somebody holds."""
    trace = recorder().trace
    return {"values": trace.state.pos + 1, "held": len(trace.live())}


@contextmanager
def eager() -> Iterator[None]:
    """In this block every operation runs at once, by itself."""
    here = recorder()
    limit, here.limit = here.limit, -1
    try:
        yield
    finally:
        here.limit = limit


@contextmanager
def check(nan: bool = True, inf: bool = False) -> Iterator[None]:
    """In this block every operation runs at once and its result is looked at.

    Args:
        nan: raise where a result has a NaN.
        inf: raise where a result has an infinity.

    Raises:
        FloatingPointError: the operation, its shapes and the user's line.
    """

    def look(live: Sequence[Any]) -> None:
        for t in live:
            if not t._node.dtype.is_floating_point:
                continue
            array = np.asarray(t._array(), np.float64)
            for bad, wanted, name in ((np.isnan, nan, "NaN"), (np.isinf, inf, "an infinity")):
                if wanted and bad(array).any():
                    raise FloatingPointError(
                        f"{t._node!r} gave {name} at {int(bad(array).sum())} of {array.size} "
                        f"elements\n  recorded at {describe(t._node.site)}"
                    )

    here = recorder()
    previous, here.check = here.check, look
    try:
        with eager():
            yield
    finally:
        here.check = previous
