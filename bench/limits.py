"""What this machine can do at most, measured by kernels that do nothing else: fused multiply-adds
per second in registers, and bytes per second from and to memory.

    python bench/limits.py

The bytes are counted as STREAM counts them (McCalpin, 1995): each array read once, each written
once; the line that a write fetches first is not counted. All processors take part. Each kind of
stream is measured in two ways, of which the faster counts: arrays are read at one place or at
several in turn, and written through the caches or past them.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from harness import alone, report

FLOATS: Final = 8
CHAINS: Final = 12
TURNS: Final = 1 << 20
BLOCK: Final = 1 << 16
"""Bytes of a task of a stream."""
BLOCKS: Final = 1 << 11
"""128 MiB for each array: four times the largest caches of one socket that we meet."""


class Limits(NamedTuple):
    """FLOP per second in float32, and bytes per second of the fastest stream of each kind."""

    flops: float
    read: float
    copy: float
    triad: float
    fastest: Callable[[], Any]
    """The best stream of all, to be timed beside other things."""
    moved: float
    """Bytes that it moves."""

    @property
    def bandwidth(self) -> float:
        """Bytes per second of the best stream."""
        return max(self.read, self.copy, self.triad)


def multiply_adds() -> str:
    """LLVM IR: chains of fused multiply-adds, enough of them to hide their latency."""
    kind = f"<{FLOATS} x float>"
    # Chains that began alike would be one to the compiler.
    start = "\n".join(
        f"  %a{i} = phi {kind} [splat (float {i + 1}.0), %entry], [%b{i}, %loop]"
        for i in range(CHAINS)
    )
    turn = "\n".join(
        f"  %b{i} = call {kind} @llvm.fma.v{FLOATS}f32({kind} %a{i}, {kind} %x, {kind} %y)"
        for i in range(CHAINS)
    )
    stores = "\n".join(
        f"  %p{i} = getelementptr {kind}, ptr %scratch, i64 {i}\n"
        f"  store {kind} %b{i}, ptr %p{i}, align 4"
        for i in range(CHAINS)
    )
    return f"""
declare {kind} @llvm.fma.v{FLOATS}f32({kind}, {kind}, {kind})
define i64 @peak(ptr %slots, ptr %params, ptr %scratch, i64 %begin, i64 %end) {{
entry:
  %x = load {kind}, ptr %params, align 4
  %q = getelementptr {kind}, ptr %params, i64 1
  %y = load {kind}, ptr %q, align 4
  br label %loop
loop:
  %i = phi i64 [0, %entry], [%next, %loop]
{start}
{turn}
  %next = add i64 %i, 1
  %more = icmp slt i64 %next, {TURNS}
  br i1 %more, label %loop, label %out
out:
{stores}
  ret i64 0
}}
"""


KIND: Final = f"<{FLOATS} x float>"
LANES: Final = 4
"""Registers of a turn of a stream's loop."""


def element(lane: int, reads: int, writes: bool, apart: int, past: str) -> list[str]:
    """LLVM IR: one register of each array, read, added up, and written or kept."""
    array = BLOCK * BLOCKS
    lines = []
    for r in range(reads):
        offset = r * array + lane * apart
        lines.append(f"  %p{lane}_{r} = getelementptr i8, ptr %at, i64 {offset}")
        lines.append(f"  %v{lane}_{r} = load {KIND}, ptr %p{lane}_{r}, align 32")
    value = f"%v{lane}_0"
    if reads == 2:
        lines.append(f"  %s{lane} = fadd {KIND} {value}, %v{lane}_1")
        value = f"%s{lane}"
    if not writes:
        return [*lines, f"  %t{lane} = fadd {KIND} %c{lane}, {value}"]
    lines.append(f"  %w{lane} = getelementptr i8, ptr %at, i64 {reads * array + lane * apart}")
    return [*lines, f"  store {KIND} {value}, ptr %w{lane}, align 32{past}"]


def stream(name: str, reads: int, writes: bool, other: bool) -> str:
    """LLVM IR: one pass over blocks of arrays that lie behind each other in slot 0; the `other` way
    writes past the caches, or reads a block at several places in turn."""
    apart = BLOCK // LANES if other and not writes else 32
    past = ", !nontemporal !0" if other else ""
    body = [s for i in range(LANES) for s in element(i, reads, writes, apart, past)]
    before, carried, end = [], [], []
    for i in range(0 if writes else LANES):
        before.append(f"  %s{i} = phi {KIND} [zeroinitializer, %entry], [%t{i}, %done]")
        carried.append(f"  %c{i} = phi {KIND} [%s{i}, %block], [%t{i}, %loop]")
        end.append(f"  %e{i} = getelementptr {KIND}, ptr %scratch, i64 {i}")
        end.append(f"  store {KIND} %t{i}, ptr %e{i}, align 4")
    # At several places at once a block takes fewer turns of smaller steps.
    step, turns = (32, apart) if apart > 32 else (32 * LANES, BLOCK)
    return f"""
define i64 @{name}(ptr %slots, ptr %params, ptr %scratch, i64 %begin, i64 %end) {{
entry:
  %base = load ptr, ptr %slots
  br label %block
block:
  %b = phi i64 [%begin, %entry], [%b1, %done]
{chr(10).join(before)}
  %first = mul i64 %b, {BLOCK}
  %start = getelementptr i8, ptr %base, i64 %first
  br label %loop
loop:
  %i = phi i64 [0, %block], [%next, %loop]
{chr(10).join(carried)}
  %at = getelementptr i8, ptr %start, i64 %i
{chr(10).join(body)}
  %next = add i64 %i, {step}
  %more = icmp slt i64 %next, {turns}
  br i1 %more, label %loop, label %done
done:
  %b1 = add i64 %b, 1
  %again = icmp slt i64 %b1, %end
  br i1 %again, label %block, label %out
out:
{chr(10).join(end)}
  ret i64 0
}}
!0 = !{{i32 1}}
"""


STREAMS: Final = {"read": (1, False), "copy": (1, True), "triad": (2, True)}


def measure(repeats: int = 9) -> Limits:
    """The best of some repetitions of each kernel."""
    from treadle.codegen.compile import native
    from treadle.runtime.buffer import empty
    from treadle.runtime.pool import get_num_threads
    from treadle.runtime.program import Launch, Program

    threads = get_num_threads()
    constants = [0.0] * (2 * FLOATS)
    address = native(multiply_adds())["peak"]
    peak = Program([Launch(address, [int(c) for c in constants], threads, 1)], 1, 4096)
    memory = empty(3 * BLOCK * BLOCKS)
    # Pages that nobody wrote to are all the same page.
    ctypes.memset(memory.address, 1, memory.nbytes)
    ways: dict[tuple[str, bool], Any] = {("peak", False): peak}
    for name, (reads, writes) in STREAMS.items():
        for other in (False, True):
            kernel = native(stream(name, reads, writes, other))[name]
            ways[name, other] = Program([Launch(kernel, (), BLOCKS, 32)], 1, 4096)
    best: dict[tuple[str, bool], float] = {}
    for way, program in ways.items():
        times = []
        for _ in range(repeats):
            start = time.perf_counter()
            program.run([memory.address])
            times.append(time.perf_counter() - start)
        best[way] = min(times)
    flop = 2.0 * FLOATS * CHAINS * TURNS * threads
    moved = {n: (r + w) * float(BLOCK * BLOCKS) for n, (r, w) in STREAMS.items()}
    rates = {way: moved[way[0]] / best[way] for way in best if way[0] in moved}
    read, copy, triad = (max(rates[n, False], rates[n, True]) for n in ("read", "copy", "triad"))
    fastest = max(rates, key=lambda way: rates[way])
    return Limits(
        flop / best["peak", False], read, copy, triad,
        lambda: ways[fastest].run([memory.address]), moved[fastest[0]],
    )  # fmt: skip


def main() -> None:
    """Prints and notes the limits."""
    with alone():
        found = measure()
    print(f"float32: {found.flops / 1e9:.1f} GFLOP/s")
    for name in STREAMS:
        print(f"{name}: {getattr(found, name) / 1e9:.1f} GB/s")
    report(
        "limits of the machine: seconds for 1 TFLOP, and for 1 TB of each stream",
        {"float32": 1e12 / found.flops, **{n: 1e12 / getattr(found, n) for n in STREAMS}},
        ours="float32", unit=1.0,
    )  # fmt: skip


if __name__ == "__main__":
    main()
