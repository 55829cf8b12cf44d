"""Binding a plan to machine code, and running it: the last hop from a trace to memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import IndexBoundsError
from treadle.base.lazy import LazyModule
from treadle.base.shape import count
from treadle.base.site import describe
from treadle.codegen.compile import bind
from treadle.codegen.contract import Schedule
from treadle.codegen.schedules import schedule_of
from treadle.codegen.scratch import scratch_bytes
from treadle.codegen.target import host
from treadle.graph.plan import HostCall, Launch, Plan, Repeat, Step, launches_of, steps_in, unrolled
from treadle.graph.structure import structure
from treadle.graph.template import Family
from treadle.ir.attention import Attention
from treadle.ir.contraction import Contraction
from treadle.ir.loop import Kernel
from treadle.ir.node import Node
from treadle.runtime import program
from treadle.runtime.buffer import Buffer, empty
from treadle.runtime.processors import available
from treadle.runtime.profile import Profile, active
from treadle.runtime.program import Program

np = LazyModule("numpy")

_CELL: Final = 8
_FORMATS: Final = {
    dt.bool_: "?7x", dt.uint8: "B7x", dt.int8: "b7x", dt.int16: "h6x", dt.int32: "i4x",
    dt.int64: "q", dt.float16: "e6x", dt.float32: "f4x", dt.float64: "d", dt.bfloat16: "H6x",
}  # fmt: skip


class Part(NamedTuple):
    """One launch of the native driver: the launch of the plan that it belongs to, and whether it
    is the first of it. A contraction may take several."""

    launch: Launch
    first: bool


class Bound:
    """A plan with the addresses of its kernels, ready to run on any inputs of its types.

    Args:
        plan: what to run.
        inputs: the input nodes, in the order of the plan's input slots.
        numbers: which inputs are Python numbers, given by value.

    Attributes:
        steps: programs of one native call, and host calls.
        arena: bytes of temporary memory that a run needs.
        fixed: (output, bytes) where an output gets new memory.
        taken: (output, input) where it is written over an input.
        shared: (output, where it comes from) where it is another value of the plan.
    """

    def __init__(self, plan: Plan, inputs: Sequence[Node], numbers: Sequence[int]) -> None:
        self.plan = plan
        self._numbers = tuple(numbers)
        dtypes = [inputs[i].dtype for i in numbers]
        self._halves = [k for k, d in enumerate(dtypes) if d is dt.bfloat16]
        cells = struct.Struct("<" + "".join(_FORMATS[d] for d in dtypes))
        self._cells = ctypes.create_string_buffer(max(cells.size, 1) + 64)
        base = ctypes.addressof(self._cells)
        self._offset = -base % 64
        self._pack = cells.pack_into
        self._cell_of = {i: base + self._offset + _CELL * k for k, i in enumerate(numbers)}
        self.steps: Final = _segments(plan)
        workspace = max((s[2] for s in self.steps if isinstance(s, tuple)), default=0)
        self.arena: Final = _aligned(plan.arena_bytes) + workspace
        numbered = list(enumerate(plan.outputs))
        self._cells_by_input = [self._cell_of.get(i, 0) for i in range(plan.inputs)]
        fresh = [(i, o) for i, o in numbered if o.donated is None]
        self.fixed: Final = [(i, o.nbytes) for i, o in fresh if not o.source]
        self.taken: Final = [(i, o.donated) for i, o in numbered if o.donated is not None]
        self.shared: Final = [(i, o) for i, o in fresh if o.source]

    def run(self, leaves: Sequence[Any]) -> list[Buffer]:
        """The buffers of the outputs.

        Args:
            leaves: a buffer, or a Python number, for each input.

        Raises:
            IndexBoundsError: a check failed; the message names the user's line.
        """
        if self._numbers:
            self.set_numbers([leaves[i] for i in self._numbers])
            addresses = self.addresses(leaves)
        else:
            addresses = [leaf.address for leaf in leaves]
        outputs: list[Any] = [None] * len(self.plan.outputs)
        for i, nbytes in self.fixed:
            outputs[i] = empty(nbytes)
        for i, taken in self.taken:
            outputs[i] = leaves[taken]
        for i, out in self.shared:
            outputs[i] = self._alias(out, leaves, outputs)
        for buffer in outputs:
            addresses.append(buffer.address)
        arena = empty(self.arena) if self.arena else None
        addresses.append(arena.address if arena else 0)
        profile = active()
        for step in self.steps:
            if isinstance(step, HostCall):
                _call_host(step, addresses)
                continue
            if profile is None:
                result = step[1].run(addresses)
            else:
                result = _run_timed(profile, step, addresses)
            if result:
                self.fail(step[0], result)
        return outputs

    def set_numbers(self, values: list[Any]) -> None:
        """Puts the inputs that are Python numbers, in order, where the kernels read them."""
        for k in self._halves:
            values[k] = int(np.asarray(values[k], dt.bfloat16.numpy).view(np.uint16))
        self._pack(self._cells, self._offset, *values)

    def addresses(self, leaves: Sequence[Any]) -> list[int]:
        """Where each input is: its buffer, or the cell of a number."""
        return [
            cell or leaf.address for cell, leaf in zip(self._cells_by_input, leaves, strict=True)
        ]

    def _alias(self, out: Any, leaves: Sequence[Any], outputs: list[Any]) -> Buffer:
        """The buffer of an output that is another value of the plan."""
        kind, i = out.source
        if kind == "output":
            shared: Buffer = outputs[i]
            return shared
        if i in self._cell_of:
            copy = empty(out.nbytes)
            ctypes.memmove(copy.address, self._cell_of[i], out.nbytes)
            return copy
        given: Buffer = leaves[i]
        return given

    def fail(self, parts: Sequence[Part], result: int) -> None:
        """Raises what a launch that returned a fault code found."""
        found = program.fault(result)
        assert found is not None
        launch = parts[found.launch].launch
        message, site = launch.faults[found.code - 1]
        raise IndexBoundsError(f"{message}\n  recorded at {describe(site)}")


def _run_timed(
    profile: Profile, step: tuple[Sequence[Part], Program, int], addresses: list[int]
) -> int:
    parts, native, _ = step
    result, times = native.run_timed(addresses)
    # All parts of a launch are one event, and its work is counted once.
    begins = [i for i, part in enumerate(parts) if part.first] + [len(parts)]
    for i, behind in itertools.pairwise(begins):
        launch, start, stop = parts[i].launch, times[i][0], times[behind - 1][1]
        profile.add(launch.label, "run", start, stop, launch.flop, launch.bytes)
    return result


_processors: Final = functools.cache(available)


def _segments(plan: Plan) -> list[Any]:
    """The steps with neighbouring launches joined into programs of one native call."""
    out: list[Any] = []
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


def _program(plan: Plan, steps: Sequence[Launch | Repeat]) -> tuple[list[Part], Program, int]:
    """Launches as one native call, the step of the plan for each, and the bytes of shared
    workspace behind the arena that contractions need."""
    binder = _Binder(plan, launches_of(steps))
    launches, owners = binder.bound(steps)
    return owners, Program(launches, plan.arena_slot + 1, binder.scratch), binder.workspace


class _Binder:
    """Turns launches of a plan into those of the driver."""

    def __init__(self, plan: Plan, launches: Sequence[Launch]) -> None:
        self._target = host()
        kernels = [launch.kernel for launch in launches]
        self._addresses = dict(zip(launches, bind(kernels, self._target), strict=True))
        self._behind = (plan.arena_slot, _aligned(plan.arena_bytes))
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
            return [program.Launch(address, params, step.tasks, _grain(step), moves)]
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


def _aligned(nbytes: int) -> int:
    return -(-nbytes // 64) * 64


_PIECES_AT_MOST: Final = 64
_PIECE_NS: Final = 1000
_FLOP_PER_NS: Final = 16
_BYTES_PER_NS: Final = 12


def _grain(step: Launch) -> int:
    """How many tasks a thread claims at once: pieces long enough to be worth claiming, and few
    enough; a launch of little work is one piece, which the calling thread runs by itself."""
    nanoseconds = step.flop / _FLOP_PER_NS + step.bytes / _BYTES_PER_NS
    pieces = max(1, min(_PIECES_AT_MOST, int(nanoseconds / _PIECE_NS), step.tasks))
    return max(1, -(-step.tasks // pieces))


def _call_host(step: HostCall, addresses: Sequence[int]) -> None:
    """Runs one operation in NumPy, on views of the memory of a run."""
    arrays = [_array(addresses, *each) for each in step.inputs]
    with np.errstate(all="ignore"):
        _array(addresses, *step.output)[...] = step.node.op.ref(*arrays, *step.node.attrs)


def _array(
    addresses: Sequence[int], place: tuple[int, int], dtype: DType, shape: Sequence[int]
) -> Any:
    slot, offset = place
    nbytes = count(shape) * dtype.itemsize
    whole = Buffer.adopt(None, addresses[slot] + offset, nbytes)
    return whole.view(dtype, shape, writable=True)


_PLANS_AT_MOST: Final = 4096


def prepare(
    outputs: Sequence[Node], inputs: Sequence[Node], donated: frozenset[int], numbers: Sequence[int]
) -> Bound:
    """A bound plan for a graph; graphs that were recorded in another order but are equal share
    one.

    Args:
        outputs: the nodes whose values are wanted.
        inputs: the input nodes, in the order of the bindings.
        donated: inputs whose memory may be written to.
        numbers: inputs that are Python numbers.
    """
    key, sizes = structure(outputs, inputs, donated)
    exact = (key, sizes, tuple(numbers))
    bound = _bound.get(exact)
    if bound is None:
        if len(_bound) >= _PLANS_AT_MOST:
            _bound.clear()
            _families.clear()
        family = _families.setdefault(key, Family())
        with _uncollected():
            plan = family.plan(sizes, outputs, inputs, donated)
            bound = _bound[exact] = Bound(plan, inputs, numbers)
    return bound


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """A block without garbage collections: planning makes a great many objects that stay alive
    until it ends, which a collector would look through again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


_bound: Final[dict[Any, Bound]] = {}
_families: Final[dict[Any, Family]] = {}
