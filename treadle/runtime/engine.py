"""Binding a plan to machine code, and running it: the last hop from a trace to memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import itertools
import struct
from collections.abc import Iterator, Sequence
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.base.errors import IndexBoundsError
from treadle.base.lazy import LazyModule
from treadle.base.shape import count
from treadle.base.site import describe
from treadle.graph.plan import HostCall, Output, Plan, Repeat
from treadle.graph.structure import ordered, picker, sizes_of, structure
from treadle.graph.template import Family, Template
from treadle.ir.node import Node
from treadle.runtime import program
from treadle.runtime.binding import Binding, Native, aligned, bound_steps
from treadle.runtime.buffer import Buffer, empty
from treadle.runtime.profile import Profile, active

np = LazyModule("numpy")

_CELL: Final = 8
_FORMATS: Final = {
    dt.bool_: "?7x", dt.uint8: "B7x", dt.int8: "b7x", dt.int16: "h6x", dt.int32: "i4x",
    dt.int64: "q", dt.float16: "e6x", dt.float32: "f4x", dt.float64: "d", dt.bfloat16: "H6x",
}  # fmt: skip


class Cells:
    """Memory for the inputs of a run that are Python numbers; runs are one at a time."""

    def __init__(self, dtypes: tuple[DType, ...]) -> None:
        self._halves = [k for k, d in enumerate(dtypes) if d is dt.bfloat16]
        cells = struct.Struct("<" + "".join(_FORMATS[d] for d in dtypes))
        self._memory = ctypes.create_string_buffer(max(cells.size, 1) + 64)
        base = ctypes.addressof(self._memory)
        self._offset = -base % 64
        self._pack = cells.pack_into
        self.addresses: Final = [base + self._offset + _CELL * k for k in range(len(dtypes))]

    @staticmethod
    @functools.lru_cache(256)
    def of(dtypes: tuple[DType, ...]) -> Cells:
        """The cells for numbers of these types."""
        return Cells(dtypes)

    def set(self, values: list[Any]) -> None:
        """Puts the numbers, in order, where the kernels read them."""
        for k in self._halves:
            values[k] = int(np.asarray(values[k], dt.bfloat16.numpy).view(np.uint16))
        self._pack(self._memory, self._offset, *values)


_ROOMY_FROM: Final = 1 << 20


def _roomy(nbytes: int) -> int:
    """The next power of two for large temporary memory: plans of other shapes take the same
    block, whose pages are there, and what is not touched costs nothing."""
    return nbytes if nbytes < _ROOMY_FROM else 1 << (nbytes - 1).bit_length()


class Bound:
    """A plan with the addresses of its kernels, ready to run on any inputs of its types.

    Args:
        plan: what to run.
        inputs: the input nodes, in the order of the plan's input slots.
        numbers: which inputs are Python numbers, given by value.
        steps: the plan's steps, where they are bound already.

    Attributes:
        steps: programs of one native call, and host calls.
        outputs: how many there are.
        set_numbers: puts the numbers, in order, where the kernels read them.
        arena: bytes of temporary memory that a run needs.
        fixed: (output, bytes) where an output gets new memory.
        taken: (output, input) where it is written over an input.
        shared: (output, where it comes from) where it is another value of the plan.
    """

    def __init__(
        self, plan: Plan, inputs: Sequence[Node], numbers: Sequence[int],
        steps: Sequence[Native | HostCall] | None = None,
    ) -> None:  # fmt: skip
        self._numbers = tuple(numbers)
        cells = Cells.of(tuple([inputs[i].dtype for i in numbers]))
        self.set_numbers = cells.set
        cell_of = dict(zip(numbers, cells.addresses, strict=True))
        self._cell_of = cell_of
        self._cells_by_input = [cell_of.get(i, 0) for i in range(plan.inputs)]
        self._place(plan.arena_bytes, bound_steps(plan) if steps is None else steps)
        numbered = list(enumerate(plan.outputs))
        self.outputs = len(numbered)
        fresh = [(i, o) for i, o in numbered if o.donated is None]
        self.fixed = [(i, o.nbytes) for i, o in fresh if not o.source]
        self.taken = [(i, o.donated) for i, o in numbered if o.donated is not None]
        self.shared = [(i, o) for i, o in fresh if o.source]

    def _place(self, arena: int, steps: Sequence[Native | HostCall]) -> None:
        self.steps = steps
        workspace = max([s.workspace for s in steps if type(s) is Native], default=0)
        self.arena = _roomy(aligned(arena) + workspace)

    def filled(self, tree: tuple[Any, ...], steps: Sequence[Native | HostCall]) -> Bound:
        """The same for other numbers of the plan's template."""
        arena, outputs, _ = tree
        made = Bound.__new__(Bound)
        made.__dict__.update(self.__dict__)
        made._place(arena, steps)
        made.fixed = [(i, outputs[i][0]) for i, _ in self.fixed]
        made.shared = [
            (i, Output(o.slot, o.dtype, outputs[i][1], outputs[i][0], o.source, o.donated))
            for i, o in self.shared
        ]
        return made

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
        outputs: list[Any] = [None] * self.outputs
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
                result = step.program.run(addresses)
            else:
                result = _run_timed(profile, step, addresses)
            if result:
                self.fail(step, result)
        return outputs

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

    def fail(self, step: Native, result: int) -> None:
        """Raises what a launch that returned a fault code found."""
        found = program.fault(result)
        assert found is not None
        launch = step.parts()[found.launch].launch
        message, site = launch.faults[found.code - 1]
        raise IndexBoundsError(f"{message}\n  recorded at {describe(site)}")


def _run_timed(profile: Profile, step: Native, addresses: list[int]) -> int:
    parts = step.parts()
    result, times = step.program.run_timed(addresses)
    # All parts of a launch are one event, and its work is counted once.
    begins = [i for i, part in enumerate(parts) if part.first] + [len(parts)]
    for i, behind in itertools.pairwise(begins):
        launch, start, stop = parts[i].launch, times[i][0], times[behind - 1][1]
        profile.add(launch.label, "run", start, stop, launch.flop, launch.bytes)
    return result


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
Graph = tuple[list[Node], list[Node]]
"""Outputs and inputs."""


class Planned:
    """What graphs of one structure, which differ in their sizes alone, have in common.

    Args:
        outputs: the nodes whose values are wanted.
        inputs: the input nodes, in the order of the bindings.
        donated: inputs whose memory may be written to.
        numbers: inputs that are Python numbers.
        nodes: all nodes in the order in which `find` is given their sizes.
    """

    def __init__(
        self, outputs: Sequence[Node], inputs: Sequence[Node], donated: frozenset[int],
        numbers: Sequence[int], nodes: Sequence[Node],
    ) -> None:  # fmt: skip
        key, _ = structure(outputs, inputs, donated)
        # One object stands for the structure: the key is long, and tuples are hashed each time.
        self._family = _families.setdefault(key, Family())
        self._inputs = list(inputs)
        self._donated = donated
        self._numbers = tuple(numbers)
        start: dict[Node, int] = {}
        at = 0
        for node in nodes:
            start[node] = at
            at += len(sizes_of(node))
        order = ordered(outputs, inputs)
        self._take = picker([start[n] + i for n in order for i in range(len(sizes_of(n)))])

    def find(self, sizes: Sequence[Any]) -> Bound | None:
        """The bound plan for other sizes, if they are no news; graphs that were recorded in
        another order but are equal share one."""
        mine = self._take(sizes)
        exact = (self._family, mine, self._numbers)
        bound = _bound.get(exact)
        if bound is None:
            known = self._family.find(mine)
            if known is not None:
                bound = _remember(exact, self._filled(*known))
        return bound

    def _filled(self, template: Template, tree: tuple[Any, ...]) -> Bound:
        """A template's plan of some numbers."""
        known = template.bindings.get(self._numbers)
        if known is None:
            loops = any(isinstance(step, Repeat) for step in template.model.steps)
            binding = None if loops else Binding(template)
            first = Bound(template.model, self._inputs, self._numbers, ())
            known = template.bindings[self._numbers] = binding, first
        binding, first = known
        if binding is None:
            return Bound(template.filled(tree), self._inputs, self._numbers)
        return first.filled(tree, binding.bound(tree))

    def make(self, sizes: Sequence[Any], outputs: list[Node], inputs: list[Node]) -> Bound:
        """The bound plan for a graph of this structure."""
        mine = self._take(sizes)
        with _uncollected():
            plan = self._family.plan(mine, outputs, inputs, self._donated)
            bound = Bound(plan, inputs, self._numbers)
        return _remember((self._family, mine, self._numbers), bound)


def _remember(key: Any, bound: Bound) -> Bound:
    if len(_bound) >= _PLANS_AT_MOST:
        _bound.clear()
        _families.clear()
    _bound[key] = bound
    return bound


def prepare(
    outputs: Sequence[Node], inputs: Sequence[Node], donated: frozenset[int], numbers: Sequence[int]
) -> Bound:
    """The bound plan for a graph by itself; the arguments are those of `Planned`."""
    nodes = ordered(outputs, inputs)
    planned = Planned(outputs, inputs, donated, numbers, nodes)
    sizes = [n for node in nodes for n in sizes_of(node)]
    return planned.find(sizes) or planned.make(sizes, list(outputs), list(inputs))


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
