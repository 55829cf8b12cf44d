"""A bound plan: launches of machine code over a table of slots, run by one native call."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from treadle.base.lazy import LazyModule
from treadle.runtime.driver import driver
from treadle.runtime.pool import pool

np = LazyModule("numpy")

_HEADER: Final = 3
_RECORD: Final = 5


class Launch(NamedTuple):
    """One kernel over the range `0 .. tasks`, cut into pieces of `grain`.

    In a `Repeat`, `advance` is added to the first params from turn to turn.
    """

    kernel: int
    params: Sequence[int]
    tasks: int
    grain: int
    advance: Sequence[int] = ()


class Repeat(NamedTuple):
    """Launches that run `times` times; `outer` are the same ones with the advances of a loop
    around this one."""

    launches: Sequence[Launch | Repeat]
    times: int
    outer: Sequence[Launch | Repeat] | None = None


class Fault(NamedTuple):
    """A failed check: which launch, and the code that its kernel returned."""

    launch: int
    code: int


class Tables(NamedTuple):
    """The params of all launches in order; and for each launch the address of its kernel, the
    place of its params, its tasks, grain and 0."""

    params: array[int]
    records: array[int]

    @property
    def kernels(self) -> array[int]:
        """The kernel of each launch."""
        return self.records[::_RECORD]

    def with_kernels(self, numbers: Sequence[int], each: bool = False) -> Tables:
        """The same with other numbers for kernels: one for `each` launch, or looked up by those
        that are there now."""
        records = array("q", self.records)
        found = numbers if each else [numbers[i] for i in self.kernels]
        records[::_RECORD] = array("q", found)
        return Tables(self.params, records)


class Program:
    """Launches with their parameters, ready to run over any table of addresses.

    Args:
        launches: in the order in which they run; each sees what those before it wrote.
        slots: length of the table of addresses.
        scratch: bytes of private memory that the launches need per thread.

    Raises:
        ValueError: a launch has a grain below 1 or a negative number of tasks.
    """

    __slots__ = ("_enter", "_frames", "_launches", "_params", "count", "scratch", "slots")

    def __init__(self, launches: Sequence[Launch | Repeat], slots: int, scratch: int = 0) -> None:
        self._fill(*_flat(launches), slots, scratch)

    @classmethod
    def of(cls, params: Sequence[int], records: Sequence[int], slots: int, scratch: int) -> Program:
        """A program of the params of all launches, and for each launch its kernel, the place of
        its params, tasks, grain and 0."""
        made = cls.__new__(cls)
        made._fill(array("q", params), array("q", records), slots, scratch)
        return made

    def _fill(self, params: Any, records: Any, slots: int, scratch: int) -> None:
        self._params = (ctypes.c_int64 * len(params)).from_buffer_copy(params)
        base = ctypes.addressof(self._params)
        self._launches = (ctypes.c_int64 * len(records)).from_buffer_copy(records)
        self.count = len(records) // _RECORD
        for i in range(1, len(records), _RECORD):
            self._launches[i] = base + 8 * records[i]
        self.slots = slots
        self.scratch = scratch
        self._enter = driver().enter
        # A frame is used by one run at a time; threads that run the same program take their own.
        self._frames = [self.frame()]
        pool.reserve(scratch)

    def tables(self) -> Tables:
        """Its launches as numbers that do not depend on where its own memory is."""
        records = array("q", self._launches)
        base = ctypes.addressof(self._params)
        for i in range(1, len(records), _RECORD):
            records[i] = (records[i] - base) // 8
        return Tables(array("q", self._params), records)

    def run(self, addresses: list[int]) -> int:
        """Runs all launches; returns 0, or what `fault` explains.

        Args:
            addresses: the base address of each slot. Whoever calls keeps the memory alive.

        Raises:
            ValueError: not one address per slot.
        """
        try:
            frame = self._frames.pop()
        except IndexError:
            frame = self.frame()
        table, address = frame
        table[:] = addresses
        result = self.enter(address)
        self._frames.append(frame)
        return result

    def enter(self, frame: int) -> int:
        """Runs all launches over the table of a frame; returns what `run` returns."""
        if not pool.ready:
            pool.start()
        return self._enter(frame)

    def run_timed(self, addresses: list[int]) -> tuple[int, list[tuple[int, int]]]:
        """As `run`, with the start and the stop of each launch in nanoseconds of a steady clock.

        Launches after a fault have the times (0, 0).
        """
        pool.start()
        table = (ctypes.c_int64 * self.slots)(*addresses)
        times = (ctypes.c_int64 * (2 * self.count))()
        result = driver().run_timed(
            pool.address,
            ctypes.addressof(self._launches),
            self.count,
            ctypes.addressof(table),
            ctypes.addressof(times),
        )
        return result, list(zip(times[::2], times[1::2], strict=True))

    def frame(self) -> tuple[Any, int]:
        """A table of slots to be filled, and the address of the frame that it is the end of."""
        whole = (ctypes.c_int64 * (_HEADER + self.slots))(
            pool.address, ctypes.addressof(self._launches), self.count
        )
        table = (ctypes.c_int64 * self.slots).from_buffer(whole, 8 * _HEADER)
        return table, ctypes.addressof(whole)


def _flat(launches: Sequence[Launch | Repeat]) -> tuple[Any, Any]:
    """The params of all launches in order, and their records with the places of their params."""
    if any(type(launch) is Repeat for launch in launches):
        whole = _table(launches)
        return array("q", whole[0].tobytes()), array("q", whole[1].tobytes())
    params: list[int] = []
    records: list[int] = []
    for number, launch in enumerate(launches):
        assert isinstance(launch, Launch)
        kernel, mine, tasks, grain, _ = launch
        if grain < 1 or tasks < 0:
            raise ValueError(f"launch {number} has {tasks} tasks in grains of {grain}")
        records += (kernel, len(params), tasks, grain, 0)
        params += mine
    return array("q", params), array("q", records)


def _table(launches: Sequence[Launch | Repeat]) -> tuple[Any, Any, Any]:
    """The params of all launches in order, their records with the place of their params, and how
    the params advance in a loop around them."""
    params, advances = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    records = [np.zeros((0, 5), np.int64)]
    size = 0
    for number, launch in enumerate(launches):
        if isinstance(launch, Repeat):
            mine, record, advance = _repeated(launch)
        else:
            if launch.grain < 1 or launch.tasks < 0:
                raise ValueError(
                    f"launch {number} has {launch.tasks} tasks in grains of {launch.grain}"
                )
            mine = np.array(launch.params, np.int64)
            record = np.array([[launch.kernel, 0, launch.tasks, launch.grain, 0]], np.int64)
            advance = np.zeros(len(mine), np.int64)
            advance[: len(launch.advance)] = launch.advance
        record[:, 1] += size
        size += len(mine)
        params.append(mine)
        records.append(record)
        advances.append(advance)
    return np.concatenate(params), np.concatenate(records), np.concatenate(advances)


def _repeated(loop: Repeat) -> tuple[Any, Any, Any]:
    """All turns of a loop, written out: an add of numbers for each."""
    params, records, advance = _table(loop.launches)
    turns = np.arange(loop.times, dtype=np.int64)[:, None]
    places = np.repeat(turns * len(params), len(records))
    every = np.tile(records, (loop.times, 1))
    every[:, 1] += places
    outer = np.zeros(len(params), np.int64) if loop.outer is None else _table(loop.outer)[2]
    return (params + turns * advance).reshape(-1), every, np.tile(outer, loop.times)


def fault(result: int) -> Fault | None:
    """What the result of a run says: `None` where all went well."""
    return Fault((result >> 32) - 1, result & 0xFFFFFFFF) if result else None
