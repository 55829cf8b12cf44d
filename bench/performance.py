"""Where the time of each workload goes, and how far the machine's own limits still are.

    python bench/performance.py [--write] [names]

Each workload runs under `treadle.profile` in the process that has just measured the limits
(`limits.py`). A launch cannot take less than its FLOP at the peak, nor less than its bytes at the
best stream: the sum of the larger of both is the machine's limit for the plan as it is. With
`--write` the tables of `docs/performance.md` are made anew.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple

import limits
from harness import alone, commit, machine

PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"
MARK: Final = "<!-- made by bench/performance.py: -->"
TURNS: Final = 5
SHOWN: Final = 8


class Line(NamedTuple):
    """Launches of one name in one turn: seconds, calls, FLOP, bytes, and the limit in seconds."""

    name: str
    seconds: float
    calls: float
    flop: float
    bytes: float
    limit: float


def measured(run: Callable[[], Any], machine: limits.Limits) -> list[Line]:
    """What one turn of a workload is made of, the longest first."""
    import treadle

    for _ in range(3):
        run()
    with treadle.profile() as profile:
        for _ in range(TURNS):
            run()
    sums: dict[str, list[float]] = {}
    for e in profile.events:
        name = e.name if e.category == "run" else f"({e.category})"
        limit = max(e.flop / machine.flops, e.bytes / machine.bandwidth)
        row = sums.setdefault(name, [0.0] * 5)
        for i, value in enumerate((e.duration * 1e-9, 1, e.flop, e.bytes, limit)):
            row[i] += value / TURNS
    return sorted((Line(name, *row) for name, row in sums.items()), key=lambda line: -line.seconds)


def table(title: str, lines: list[Line]) -> str:
    """A workload as a Markdown table."""
    whole = sum(line.seconds for line in lines)
    limit = sum(line.limit for line in lines)
    out = [
        f"### {title}",
        "",
        f"{whole * 1e3:.2f} ms; the machine's limit for these launches is {limit * 1e3:.2f} ms "
        f"({limit / whole:.0%}).",
        "",
        "| launches | calls | ms | share | GFLOP/s | GB/s | of the limit |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in lines[:SHOWN]:
        rates = [f"{v / line.seconds / 1e9:.1f}" if v else "" for v in (line.flop, line.bytes)]
        near = f"{line.limit / line.seconds:.0%}" if line.limit else ""
        out.append(
            f"| {line.name} | {line.calls:g} | {line.seconds * 1e3:.3f} | "
            f"{line.seconds / whole:.0%} | {rates[0]} | {rates[1]} | {near} |"
        )
    rest = lines[SHOWN:]
    if rest:
        seconds = sum(line.seconds for line in rest)
        near = f"{sum(line.limit for line in rest) / seconds:.0%}"
        out.append(
            f"| {len(rest)} others | {sum(line.calls for line in rest):g} | {seconds * 1e3:.3f} | "
            f"{seconds / whole:.0%} | | | {near} |"
        )
    return "\n".join([*out, ""])


def workloads() -> dict[str, Callable[[], Callable[[], Any]]]:
    """A maker of a run for each title."""
    import kernels
    import models
    from conv_step import conv_step, network
    from digit_step import batch, script_step

    import treadle

    def digits(compiled: bool) -> Callable[[], Any]:
        step = script_step(treadle, *map(treadle.from_numpy, batch()))
        return treadle.compile(step) if compiled else step

    def convolutions() -> Callable[[], Any]:
        return conv_step(treadle, network(treadle.nn), *batch())

    def kernel(case: kernels.Case) -> Callable[[], Any]:
        return case(treadle, {k: treadle.from_numpy(v) for k, v in kernels.arrays().items()})

    found: dict[str, Callable[[], Callable[[], Any]]] = {
        "digit script, training step": lambda: digits(False),
        "digit script, training step under treadle.compile": lambda: digits(True),
        "small convolutional net, training step": convolutions,
    }
    for case in models.CASES.values():
        found[f"{case.title}, training step"] = lambda c=case: c.make(treadle, c.ours()).step
        found[f"{case.title}, inference"] = lambda c=case: c.make(treadle, c.ours()).infer
    for name, (kernel_case, _) in kernels.CASES.items():
        found[name] = lambda c=kernel_case: kernel(c)
    return found


def rewrite(page: Path, made: str) -> None:
    """Replaces what stands behind the mark of a page."""
    text = page.read_text().partition(MARK)[0]
    page.write_text(f"{text}{MARK}\n\n{made}")


def main() -> None:
    """Prints the tables of the workloads whose titles hold the words of the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="all titles without any")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with alone():
        found = limits.measure()
        parts = [
            f"{machine()}; commit {commit()}. The machine's limits: {found.flops / 1e9:.0f} "
            f"GFLOP/s in float32; {found.read / 1e9:.0f}, {found.copy / 1e9:.0f} and "
            f"{found.triad / 1e9:.0f} GB/s to read, to copy and to add two arrays into a third.\n"
        ]
        for title, make in workloads().items():
            if all(word in title for word in options.words):
                parts.append(table(title, measured(make(), found)))
                print(parts[-1])
    if options.write:
        rewrite(PAGE, "\n".join(parts))


if __name__ == "__main__":
    main()
