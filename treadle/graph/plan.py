"""The plan: a list of launches over slots of memory, which is what is cached, bound and run.

Slots are numbered: the inputs `0 .. inputs-1`, the outputs after them, the arena last. Every
buffer is row-major and contiguous, and starts at a multiple of 64 bytes. An output that is
`donated` or has a `source` is given the address of that input or output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from treadle.base.dtype import DType
from treadle.base.shape import Shape
from treadle.base.site import Site, describe
from treadle.ir.attention import Attention
from treadle.ir.contraction import Contraction
from treadle.ir.loop import Kernel, Param
from treadle.ir.node import Node

Place = tuple[int, int]
"""A slot and an offset in bytes."""


@dataclass(slots=True, eq=False)
class Launch:
    """One run of a kernel.

    `buffers` are in the order of `params`. `tasks` is the extent of the outermost
    parallel loop: 1 where there is none, 0 where the generator decides (no loop nest). `flop` and
    `bytes` are what the launch computes and moves at least. Fault code `c` of the kernel means
    `faults[c - 1]`: a message, and the line that asked for the check.
    """

    kernel: Kernel | Contraction | Attention
    buffers: tuple[Place, ...]
    sizes: tuple[int, ...]
    tasks: int
    label: str
    sites: tuple[Site, ...] = ()
    flop: int = 0
    bytes: int = 0
    faults: tuple[tuple[str, Site | None], ...] = ()

    @property
    def params(self) -> tuple[Param, ...]:
        """The kernel's parameters; a workspace is for the runtime to place."""
        params = self.kernel.params
        return params if isinstance(self.kernel, Kernel) else params[:-1]


@dataclass(slots=True, eq=False)
class HostCall:
    """One operation that NumPy does: `node.op.ref` on views of the inputs, into the output."""

    node: Node
    inputs: tuple[tuple[Place, DType, Shape], ...]
    output: tuple[Place, DType, Shape]
    label: str


@dataclass(slots=True, eq=False)
class Repeat:
    """Steps that run `times` times, turn after turn.

    `steps` are those of the first turn. From turn to turn the buffers of step `i` (of a host call
    the inputs, then the output) move by `advances[i]` bytes; those of a `Repeat` by a tuple for
    each of its steps.
    """

    steps: tuple[Launch | HostCall | Repeat, ...]
    advances: tuple[Any, ...]
    times: int

    @property
    def label(self) -> str:
        """What a turn does, in a few words."""
        return f"{self.times} x ({', '.join([s.label for s in self.steps])})"


Step = Launch | HostCall | Repeat
Move = Callable[[Place], tuple[Place, int]]
"""From a place to another one, and by how many bytes that moves from turn to turn."""


def moved(step: Step, move: Move) -> tuple[Step, Any]:
    """A step on buffers elsewhere, and its advances in a loop around it."""
    if isinstance(step, Launch):
        buffers = [move(place) for place in step.buffers]
        return replace(step, buffers=tuple([b for b, _ in buffers])), tuple([a for _, a in buffers])
    if isinstance(step, HostCall):
        inputs = [(move(place), dtype, shape) for place, dtype, shape in step.inputs]
        place, dtype, shape = step.output
        out, advance = move(place)
        new = replace(
            step,
            inputs=tuple([(place, dtype, shape) for (place, _), dtype, shape in inputs]),
            output=(out, dtype, shape),
        )
        return new, (*[a for (_, a), _, _ in inputs], advance)
    inner = [moved(each, move) for each in step.steps]
    return replace(step, steps=tuple([s for s, _ in inner])), tuple([a for _, a in inner])


def _shifted(step: Step, advance: Any, turn: int) -> Step:
    """A step of the first turn as it is in another one."""
    if isinstance(step, Repeat):
        inner = [_shifted(s, a, turn) for s, a in zip(step.steps, advance, strict=True)]
        return replace(step, steps=tuple(inner))
    rest = iter(advance)

    def move(place: Place) -> tuple[Place, int]:
        return (place[0], place[1] + turn * next(rest)), 0

    return moved(step, move)[0]


def unrolled(steps: Iterable[Step]) -> Iterator[Launch | HostCall]:
    """The launches and host calls of some steps, those of loops turn by turn."""
    for step in steps:
        if isinstance(step, Repeat):
            for turn in range(step.times):
                for each, advance in zip(step.steps, step.advances, strict=True):
                    yield from unrolled([_shifted(each, advance, turn)])
        else:
            yield step


def steps_in(steps: Iterable[Step]) -> Iterator[Launch | HostCall]:
    """The launches and host calls of some steps, those of loops once."""
    for step in steps:
        if isinstance(step, Repeat):
            yield from steps_in(step.steps)
        else:
            yield step


def launches_of(steps: Iterable[Step]) -> list[Launch]:
    """The launches of some steps, those of loops once."""
    return [step for step in steps_in(steps) if isinstance(step, Launch)]


@dataclass(slots=True, frozen=True)
class Output:
    """One result: `source` is `("input", i)` or `("output", j)` where it is that very buffer, and
    `donated` the input whose memory it takes over."""

    slot: int
    dtype: DType
    shape: Shape
    nbytes: int
    source: tuple[str, int] | None = None
    donated: int | None = None


@dataclass(slots=True, eq=False)
class Plan:
    """How to compute outputs from inputs."""

    inputs: int
    outputs: tuple[Output, ...]
    arena_bytes: int
    steps: list[Step] = field(default_factory=list)

    @property
    def arena_slot(self) -> int:
        """The slot of the arena: the last."""
        return self.inputs + len(self.outputs)

    @property
    def launches(self) -> list[Launch]:
        """The steps that run a kernel, those of a loop once."""
        return launches_of(self.steps)


def place_name(plan: Plan, place: Place) -> str:
    """A place as text: `in2`, `out0`, `arena+4096`."""
    slot, offset = place
    if slot < plan.inputs:
        name = f"in{slot}"
    elif slot < plan.arena_slot:
        name = f"out{slot - plan.inputs}"
    else:
        return f"arena+{offset}"
    return f"{name}+{offset}" if offset else name


def show(plan: Plan, sites: bool = False) -> str:
    """A plan as text, one line a step; `sites` adds the user's lines that each step computes."""
    lines = [f"plan: {plan.inputs} inputs, {len(plan.outputs)} outputs, arena {plan.arena_bytes} B"]
    lines += _show_steps(plan, plan.steps, sites, "")
    for i, out in enumerate(plan.outputs):
        note = ""
        if out.source is not None:
            note = f" is {out.source[0]} {out.source[1]}"
        elif out.donated is not None:
            note = f" in the memory of input {out.donated}"
        lines.append(f"  out{i}: {out.dtype.name}{list(out.shape)}{note}")
    return "\n".join(lines)


def _show_steps(plan: Plan, steps: Sequence[Step], sites: bool, indent: str) -> list[str]:
    lines: list[str] = []
    for i, step in enumerate(steps):
        if isinstance(step, Repeat):
            lines.append(f"  {indent}{i:3d}  {step.times} times:")
            lines += _show_steps(plan, step.steps, sites, indent + "     ")
            continue
        lines.append(f"  {indent}{i:3d}  {_show_step(plan, step)}")
        if sites and isinstance(step, Launch):
            lines += [f"         {indent}{describe(site)}" for site in step.sites]
    return lines


def _show_step(plan: Plan, step: Launch | HostCall) -> str:
    if isinstance(step, HostCall):
        inputs = ", ".join(place_name(plan, p) for p, _, _ in step.inputs)
        return f"{place_name(plan, step.output[0])} = host {step.label}({inputs})"
    reads: list[str] = []
    writes: list[str] = []
    for param, place in zip(step.params, step.buffers, strict=True):
        text = f"{place_name(plan, place)}:{param.dtype.name}"
        if param.mode != "in":
            writes.append(text)
        if param.mode != "out":
            reads.append(text)
    cost = f"{_amount(step.flop)}FLOP {_amount(step.bytes)}B"
    tasks = f" tasks={step.tasks}" if step.tasks else ""
    return f"{', '.join(writes)} = {step.label}({', '.join(reads)}){tasks}  [{cost}]"


def _amount(n: int) -> str:
    value: Any = n
    for unit in ("", "k", "M", "G"):
        if value < 1000:
            return f"{value:.3g} {unit}" if unit else f"{n} "
        value /= 1000
    return f"{value:.3g} T"
