"""Profiles: where a program's time went, as a table and as a Chrome or Perfetto timeline."""

from __future__ import annotations

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

TOP_OF_TABLE: Final = 25


class Event(NamedTuple):
    """Something that took time. `start` and `duration` are nanoseconds of a steady clock."""

    name: str
    category: str
    start: int
    duration: int
    thread: int
    flop: int = 0
    bytes: int = 0


class Profile:
    """Collects events while it is entered: recording, planning, code generation, launches.

    Attributes:
        events: what was collected, in order.
        peak_flops: FLOP per second that the machine reaches, if known: launches are then shown
            with their share of the nearer limit.
        peak_bandwidth: bytes per second that the machine moves, if known.

    Example:
        >>> import treadle
        >>> with treadle.profile() as p:
        ...     _ = (treadle.ones(64, 64) @ treadle.ones(64, 64)).sum().item()
        >>> any(e.category == "run" for e in p.events)
        True
    """

    def __init__(
        self, peak_flops: float | None = None, peak_bandwidth: float | None = None
    ) -> None:
        self.events: list[Event] = []
        self.peak_flops = peak_flops
        self.peak_bandwidth = peak_bandwidth
        self._outer: Profile | None = None
        self._since = 0

    def __enter__(self) -> Profile:
        self._outer, _active[0] = _active[0], self
        self._since = time.perf_counter_ns()
        return self

    def __exit__(self, *_: object) -> None:
        _active[0] = self._outer

    def add(
        self, name: str, category: str, start: int, stop: int, flop: int = 0, nbytes: int = 0
    ) -> None:
        """Notes one event."""
        thread = threading.get_ident()
        self.events.append(Event(name, category, start, stop - start, thread, flop, nbytes))

    def recorded_until(self, now: int) -> None:
        """Closes the stretch of Python code that led to a run."""
        self.add("python", "record", self._since, now)

    def resume(self) -> None:
        """Starts the next stretch of Python code."""
        self._since = time.perf_counter_ns()

    def share(self, event: Event) -> float | None:
        """How much of the machine's nearer limit an event reached, between 0 and 1."""
        if not event.duration:
            return None
        seconds = event.duration * 1e-9
        shares = []
        if self.peak_flops and event.flop:
            shares.append(event.flop / seconds / self.peak_flops)
        if self.peak_bandwidth and event.bytes:
            shares.append(event.bytes / seconds / self.peak_bandwidth)
        return max(shares, default=None)

    def table(self) -> str:
        """Events of one name added up, the longest first."""
        sums: dict[tuple[str, str], list[int]] = {}
        for e in self.events:
            row = sums.setdefault((e.category, e.name), [0, 0, 0, 0])
            for i, value in enumerate((1, e.duration, e.flop, e.bytes)):
                row[i] += value
        whole = sum(row[1] for row in sums.values()) or 1
        lines = [
            f"{'':8s} {'calls':>7s} {'total us':>10s} {'%':>6s} {'GFLOP/s':>8s} {'GB/s':>7s}  name"
        ]
        ranked = sorted(sums.items(), key=lambda item: -item[1][1])
        for (category, name), (calls, ns, flop, nbytes) in ranked[:TOP_OF_TABLE]:
            rate = [f"{v / ns:8.1f}" if ns and v else f"{'':8s}" for v in (flop, nbytes)]
            lines.append(
                f"{category:8s} {calls:7d} {ns / 1e3:10.1f} {100 * ns / whole:6.1f} {rate[0]} "
                f"{rate[1][1:]}  {name}"
            )
        return "\n".join(lines)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a trace that chrome://tracing and Perfetto open; the file appears at once or
        not at all."""
        trace = {"traceEvents": list(self._trace_events()), "displayTimeUnit": "ns"}
        target = Path(path)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name)
        try:
            with os.fdopen(handle, "w") as file:
                json.dump(trace, file)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise

    def _trace_events(self) -> Iterable[dict[str, Any]]:
        for e in self.events:
            share = self.share(e)
            details: dict[str, Any] = (
                {"flop": e.flop, "bytes": e.bytes} if e.flop or e.bytes else {}
            )
            if share is not None:
                details["share of limit"] = round(share, 3)
            yield {
                "name": e.name, "cat": e.category, "ph": "X", "ts": e.start / 1e3,
                "dur": e.duration / 1e3, "pid": os.getpid(), "tid": e.thread, "args": details,
            }  # fmt: skip

    def __repr__(self) -> str:
        return f"<treadle profile of {len(self.events)} events>\n{self.table()}"


_active: Final[list[Profile | None]] = [None]


def active() -> Profile | None:
    """The profile that collects events now."""
    return _active[0]


profile = Profile
"""`with treadle.profile() as p:` collects; `print(p)` shows a table, `p.save(path)` a timeline."""
