"""Binding: from the steps of a plan, or of a template, to programs of native calls."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from treadle.codegen.compile import bind
from treadle.codegen.contract import Schedule
from treadle.codegen.schedules import schedule_of
from treadle.codegen.scratch import scratch_bytes, uses_scratch
from treadle.codegen.target import host
from treadle.graph.plan import HostCall, Launch, Plan, Repeat, Step, launches_of, steps_in, unrolled
from treadle.graph.template import Template, filled_step
from treadle.ir.attention import Attention
from treadle.ir.contraction import Contraction
from treadle.ir.loop import Kernel
from treadle.runtime import program
from treadle.runtime.processors import available
from treadle.runtime.program import Program


class Part(NamedTuple):
    """One launch of the native driver: the launch of the plan that it belongs to, and whether it
    is the first of it. A contraction may take several."""

    launch: Launch
    first: bool


class Native(NamedTuple):
    """Launches as one native call: whose part each of them is, the program, and the bytes of
    shared workspace behind the arena that contractions need."""

    parts: Callable[[], Sequence[Part]]
    program: Program
    workspace: int


_processors: Final = functools.cache(available)


def bound_steps(plan: Plan) -> list[Native | HostCall]:
    """The steps of a plan with neighbouring launches joined into programs of one native call."""
    out: list[Native | HostCall] = []
    pending: list[Launch | Repeat] = []
    for step in _without_calls(plan.steps):
        if isinstance(step, HostCall):
            if pending:
                out.append(_program(plan, pending))
            out.append(step)
            pending = []
        else:
            pending.append(step)
    if pending:
        out.append(_program(plan, pending))
    return out


def _without_calls(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps with loops around host calls unrolled: the native driver cannot do those."""
    for step in steps:
        if isinstance(step, Repeat) and any(isinstance(s, HostCall) for s in steps_in([step])):
            yield from unrolled([step])
        else:
            yield step


def _program(plan: Plan, steps: Sequence[Launch | Repeat]) -> Native:
    binder = _Binder(plan, launches_of(steps))
    launches, owners = binder.bound(steps)
    native = Program(launches, plan.arena_slot + 1, binder.scratch)
    return Native(lambda: owners, native, binder.workspace)


class _Binder:
    """Turns launches of a plan into those of the driver."""

    def __init__(self, plan: Plan, launches: Sequence[Launch]) -> None:
        self._target = host()
        kernels = [launch.kernel for launch in launches]
        self._addresses = dict(zip(launches, bind(kernels, self._target), strict=True))
        self._behind = (plan.arena_slot, aligned(plan.arena_bytes))
        self.scratch = 0
        self.workspace = 0

    def bound(
        self, steps: Sequence[Any], advances: Sequence[Any] | None = None
    ) -> tuple[list[program.Launch | program.Repeat], list[Part]]:
        """The driver's launches, and whose part each of them is in a run."""
        out: list[program.Launch | program.Repeat] = []
        owners: list[Part] = []
        for i, step in enumerate(steps):
            advance = None if advances is None else advances[i]
            if isinstance(step, Repeat):
                inner, mine = self.bound(step.steps, step.advances)
                moves = None if advance is None else self.bound(step.steps, advance)[0]
                out.append(program.Repeat(inner, step.times, moves))
                owners += mine * step.times
            else:
                parts = self._parts(step, advance)
                out += parts
                owners += [Part(step, first=not n) for n in range(len(parts))]
        return out, owners

    def _parts(self, step: Launch, advance: Sequence[int] | None) -> list[program.Launch]:
        """The launches of one step; a contraction may take several."""
        places = [number for place in step.buffers for number in place]
        moves = [m for a in advance or () for m in (0, a)]
        address = self._addresses[step]
        if isinstance(step.kernel, Kernel):
            self.scratch = max(self.scratch, scratch_bytes(step.kernel, step.sizes))
            params = (*places, *step.sizes)
            return [
                program.Launch(
                    address, params, step.tasks, _grain(step.tasks, step.flop, step.bytes), moves
                )
            ]
        cut = _schedule(address, step.kernel, step.sizes)
        self.scratch = max(self.scratch, cut.scratch)
        self.workspace = max(self.workspace, cut.workspace)
        places += self._behind
        return [
            program.Launch(address, (*places, *part.sizes), part.tasks, part.grain, moves)
            for part in cut.steps
        ]


_schedules: Final[dict[tuple[int, tuple[int, ...]], Schedule]] = {}
_SCHEDULES_AT_MOST: Final = 1 << 14


def _schedule(address: int, kernel: Contraction | Attention, sizes: tuple[int, ...]) -> Schedule:
    """How a launch is cut, which layers of one shape have in common."""
    found = _schedules.get((address, sizes))
    if found is None:
        if len(_schedules) >= _SCHEDULES_AT_MOST:
            _schedules.clear()
        found = _schedules[address, sizes] = schedule_of(kernel, sizes, host(), _processors())
    return found


def aligned(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


_PIECES_AT_MOST: Final = 64
_PIECE_NS: Final = 1000
_FLOP_PER_NS: Final = 16
_BYTES_PER_NS: Final = 12


def _grain(tasks: int, flop: int, nbytes: int) -> int:
    """How many tasks a thread claims at once: pieces long enough to be worth claiming, and few
    enough; a launch of little work is one piece, which the calling thread runs by itself."""
    nanoseconds = flop / _FLOP_PER_NS + nbytes / _BYTES_PER_NS
    pieces = max(1, min(_PIECES_AT_MOST, int(nanoseconds / _PIECE_NS), tasks))
    return max(1, -(-tasks // pieces))


class Binding:
    """A template without loops, and the addresses of its kernels: it binds plans without making
    them."""

    def __init__(self, template: Template) -> None:
        plan = template.model
        self._template = template
        self._arena_slot: Final = plan.arena_slot
        kernels = [step.kernel for step in plan.steps if isinstance(step, Launch)]
        addresses = iter(bind(kernels, host()))
        # For each step its address, pattern, and whether a loop nest keeps values in scratch
        # memory; none for a host call.
        self._steps: list[tuple[int, Any, bool] | None] = []
        for step in plan.steps:
            if isinstance(step, Launch):
                kernel = step.kernel
                scratch = isinstance(kernel, Kernel) and uses_scratch(kernel)
                self._steps.append((next(addresses), kernel, scratch))
            else:
                self._steps.append(None)

    def bound(self, tree: tuple[Any, ...]) -> list[Native | HostCall]:
        """What `bound_steps` gives for the plan of some numbers."""
        out: list[Native | HostCall] = []
        behind = (self._arena_slot, aligned(tree[0]))
        params: list[int] = []
        records: list[int] = []
        owners: list[int] = []
        scratch = workspace = 0
        for i, (known, numbers) in enumerate(zip(self._steps, tree[2], strict=True)):
            if known is None:
                if owners:
                    native = Program.of(params, records, self._arena_slot + 1, scratch)
                    out.append(Native(self._parts(owners, tree), native, workspace))
                    params, records, owners, scratch, workspace = [], [], [], 0, 0
                step = self._template.model.steps[i]
                out.append(filled_step(step, numbers))
                continue
            address, kernel, keeps = known
            places, sizes, tasks, flop, nbytes = numbers
            if type(kernel) is Kernel:
                if keeps:
                    scratch = max(scratch, scratch_bytes(kernel, sizes))
                grain = _grain(tasks, flop, nbytes)
                records += (address, len(params), tasks, grain, 0)
                params += places
                params += sizes
                owners.append(i)
                continue
            cut = _schedule(address, kernel, sizes)
            scratch = max(scratch, cut.scratch)
            workspace = max(workspace, cut.workspace)
            for part_tasks, part_grain, part_sizes in cut.steps:
                records += (address, len(params), part_tasks, part_grain, 0)
                params += places
                params += behind
                params += part_sizes
                owners.append(i)
        if owners:
            native = Program.of(params, records, self._arena_slot + 1, scratch)
            out.append(Native(self._parts(owners, tree), native, workspace))
        return out

    def _parts(self, owners: list[int], tree: tuple[Any, ...]) -> Callable[[], Sequence[Part]]:
        """Whose part each launch is: the step of the plan, which is filled in when it is asked."""

        def parts() -> list[Part]:
            steps = self._template.filled(tree).steps
            return [
                Part(step, first=not n or owners[n - 1] != i)
                for n, i in enumerate(owners)
                if isinstance(step := steps[i], Launch)
            ]

        return parts
