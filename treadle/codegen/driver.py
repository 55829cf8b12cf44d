"""The native driver: walks the launches of a plan and shares each one among threads.

It is a page of LLVM IR that needs nothing but the pool record it is handed; system calls come as
function pointers inside that record. Every launch is one fork-join:

* The caller publishes the launch, then sets `left` to the number of chunks. Whoever subtracts one
  and saw a positive number owns chunk `chunks - left`. A late subtraction either sees nothing left
  or owns a chunk of the launch that is current by then, so nobody has to know which launch it is.
* Whoever ran chunks adds their number to `done`; the caller waits until all are accounted for. It
  never waits for a thread that owns no chunk, so a worker that sleeps or died costs nothing.
* A fault empties `left` and accounts for the chunks it took away, so the join stays exact.

Workers spin on `left`, then yield, then sleep on the futex `epoch`. A sleeper first sets `asleep`
and looks at `left` again; a caller first sets `left` and then looks at `asleep`: one of them sees
the other. Both orders are sequentially consistent.
"""

from __future__ import annotations

from typing import Final

from treadle.codegen.driver_sleep import sleeping
from treadle.codegen.pool_record import at

LAUNCH_BYTES: Final = 40
ENTRIES: Final = ("run", "run_timed", "enter", "worker", "wake", "configure")

# What a spinning thread does between two looks: the declaration and the call.
_PAUSE: Final = {
    "x86_64": ("declare void @llvm.x86.sse2.pause()", "call void @llvm.x86.sse2.pause()"),
    "aarch64": ("declare void @llvm.aarch64.isb(i32)", "call void @llvm.aarch64.isb(i32 15)"),
}


def driver_ir(machine: str) -> str:
    """The driver as LLVM IR.

    Args:
        machine: `x86_64`, `aarch64` or any other processor; it decides only how a spinning thread
            pauses.

    Returns:
        A module that defines, with `frame = (pool, launches, count, slot 0, slot 1, …)`::

            i64 run(ptr pool, ptr launches, i64 count, ptr slots)
            i64 run_timed(ptr pool, ptr launches, i64 count, ptr slots, ptr times)
            i64 enter(ptr frame)                  run, in one argument: cheaper to call
            void worker(ptr pool, i64 id)         returns once threads <= id
            void wake(ptr pool)                   wakes sleeping workers
            void configure(ptr pool, i64 threads, ptr scratch, i64 stride, i64 spins)

        A run returns 0, or `(launch index + 1) << 32 | code` of a fault. `times` receives the start
        and the stop of each launch in nanoseconds.
    """
    declared, pause = _PAUSE.get(machine, ("", ""))
    return "\n".join(
        (
            declared,
            "declare i64 @llvm.smin.i64(i64, i64)",
            "declare i64 @llvm.smax.i64(i64, i64)",
            sleeping(),
            _locking(pause),
            _configure(),
            _work(),
            _share(pause),
            _worker(pause),
            _clock(),
            _run(timed=False),
            _run(timed=True),
            _enter(),
        )
    )


def _locking(pause: str) -> str:
    # 0 free, 1 taken, 2 taken and somebody may sleep on it.
    return f"""
define internal void @lock(ptr %pool) nounwind {{
entry:
{at("mutex")}
  %r = cmpxchg ptr %mutex.p, i32 0, i32 1 acquire monotonic
  %got = extractvalue {{i32, i1}} %r, 1
  br i1 %got, label %out, label %spin
spin:
  %n = phi i32 [0, %entry], [%n1, %again]
  {pause}
  %v = load atomic i32, ptr %mutex.p monotonic, align 4
  %free = icmp eq i32 %v, 0
  br i1 %free, label %try, label %again
try:
  %s = cmpxchg ptr %mutex.p, i32 0, i32 1 acquire monotonic
  %won = extractvalue {{i32, i1}} %s, 1
  br i1 %won, label %out, label %again
again:
  %n1 = add i32 %n, 1
  %tired = icmp ugt i32 %n1, 200
  br i1 %tired, label %contend, label %spin
contend:
  %old = atomicrmw xchg ptr %mutex.p, i32 2 acquire
  %mine = icmp eq i32 %old, 0
  br i1 %mine, label %out, label %sleep
sleep:
  call void @sleep(ptr %pool, ptr %mutex.p, i32 2)
  br label %contend
out:
  ret void
}}

define internal void @unlock(ptr %pool) nounwind {{
{at("mutex")}
  %old = atomicrmw xchg ptr %mutex.p, i32 0 release
  %waited = icmp eq i32 %old, 2
  br i1 %waited, label %wake, label %out
wake:
  call void @rouse(ptr %pool, ptr %mutex.p, i32 1)
  br label %out
out:
  ret void
}}
"""


def _configure() -> str:
    # In one native call, so that no interrupt can leave the pool locked.
    return f"""
define void @configure(ptr %pool, i64 %threads, ptr %scratch, i64 %stride, i64 %spins) nounwind {{
{at("threads", "scratch", "stride", "spins")}
  call void @lock(ptr %pool)
  store ptr %scratch, ptr %scratch.p
  store i64 %stride, ptr %stride.p
  store atomic i64 %spins, ptr %spins.p monotonic, align 8
  store atomic i64 %threads, ptr %threads.p seq_cst, align 8
  call void @unlock(ptr %pool)
  ; Those with too high a number leave.
  call void @wake(ptr %pool)
  ret void
}}
"""


def _work() -> str:
    return f"""
; Runs chunks of the current launch until none is left; returns how many are accounted for.
define internal i64 @work(ptr %pool, i64 %id) nounwind {{
entry:
{at("left", "chunks", "kernel", "params", "tasks", "grain", "slots", "scratch", "stride", "fault")}
  br label %claim
claim:
  %mine = phi i64 [0, %entry], [%mine1, %ran]
  %left = atomicrmw sub ptr %left.p, i64 1 acq_rel
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %chunk, label %out
chunk:
  ; The launch cannot end while this chunk is owned: only now are these fields stable.
  %chunks = load i64, ptr %chunks.p
  %kernel = load ptr, ptr %kernel.p
  %params = load ptr, ptr %params.p
  %tasks = load i64, ptr %tasks.p
  %grain = load i64, ptr %grain.p
  %slots = load ptr, ptr %slots.p
  %base = load ptr, ptr %scratch.p
  %stride = load i64, ptr %stride.p
  %offset = mul i64 %id, %stride
  %own = getelementptr i8, ptr %base, i64 %offset
  %index = sub i64 %chunks, %left
  %begin = mul i64 %index, %grain
  %stop = add i64 %begin, %grain
  %end = call i64 @llvm.smin.i64(i64 %stop, i64 %tasks)
  %code = call i64 %kernel(ptr %slots, ptr %params, ptr %own, i64 %begin, i64 %end)
  %mine1 = add i64 %mine, 1
  %good = icmp eq i64 %code, 0
  br i1 %good, label %ran, label %faulted
ran:
  ; The owner of the last chunk knows that there is nothing to ask for.
  %last = icmp eq i64 %left, 1
  br i1 %last, label %out, label %claim
faulted:
  %f = cmpxchg ptr %fault.p, i64 0, i64 %code acq_rel monotonic
  %taken = atomicrmw xchg ptr %left.p, i64 0 acq_rel
  %dropped = call i64 @llvm.smax.i64(i64 %taken, i64 0)
  %mine2 = add i64 %mine1, %dropped
  br label %out
out:
  %total = phi i64 [%mine, %claim], [%mine1, %ran], [%mine2, %faulted]
  ret i64 %total
}}
"""


def _share(pause: str) -> str:
    return f"""
; One launch on all threads; returns the fault code.
define internal i64 @share(ptr %pool, ptr %kernel, ptr %params, i64 %tasks, i64 %grain) nounwind {{
entry:
{at("left", "chunks", "kernel", "params", "tasks", "grain")}
{at("asleep", "done", "fault", "spins", "yield")}
  %padded = add i64 %tasks, %grain
  %padded1 = sub i64 %padded, 1
  %chunks = udiv i64 %padded1, %grain
  store i64 %chunks, ptr %chunks.p
  store ptr %kernel, ptr %kernel.p
  store ptr %params, ptr %params.p
  store i64 %tasks, ptr %tasks.p
  store i64 %grain, ptr %grain.p
  store atomic i64 0, ptr %done.p monotonic, align 8
  store atomic i64 %chunks, ptr %left.p seq_cst, align 8
  %asleep = load atomic i32, ptr %asleep.p seq_cst, align 4
  %any = icmp ne i32 %asleep, 0
  br i1 %any, label %wake, label %work
wake:
  call void @wake(ptr %pool)
  br label %work
work:
  %mine = call i64 @work(ptr %pool, i64 0)
  %others = sub i64 %chunks, %mine
  %spins = load i64, ptr %spins.p
  br label %wait
wait:
  %n = phi i64 [0, %work], [%n1, %spin], [%n1, %yield]
  %done = load atomic i64, ptr %done.p acquire, align 8
  %all = icmp eq i64 %done, %others
  br i1 %all, label %out, label %more
more:
  %n1 = add i64 %n, 1
  %tired = icmp sgt i64 %n1, %spins
  br i1 %tired, label %yield, label %spin
spin:
  {pause}
  br label %wait
yield:
  ; The owner of the last chunk may wait for this very processor.
  %give = load ptr, ptr %yield.p
  %r = call i32 %give()
  br label %wait
out:
  %fault = load atomic i64, ptr %fault.p monotonic, align 8
  ret i64 %fault
}}
"""


def _worker(pause: str) -> str:
    return f"""
define void @worker(ptr %pool, i64 %id) nounwind {{
entry:
{at("threads", "left", "done", "epoch", "asleep", "spins", "yields", "yield")}
  br label %start
start:
  %spins = load i64, ptr %spins.p
  %yields = load i64, ptr %yields.p
  %give = load ptr, ptr %yield.p
  %limit = add i64 %spins, %yields
  br label %idle
idle:
  %n = phi i64 [0, %start], [%n1, %pause], [%n1, %yield]
  %left = load atomic i64, ptr %left.p acquire, align 8
  %some = icmp sgt i64 %left, 0
  br i1 %some, label %work, label %none
none:
  %threads = load atomic i64, ptr %threads.p monotonic, align 8
  %stay = icmp slt i64 %id, %threads
  br i1 %stay, label %rest, label %leave
rest:
  %n1 = add i64 %n, 1
  %spinning = icmp slt i64 %n1, %spins
  br i1 %spinning, label %pause, label %slower
pause:
  {pause}
  br label %idle
slower:
  %yielding = icmp slt i64 %n1, %limit
  br i1 %yielding, label %yield, label %tired
yield:
  %r = call i32 %give()
  br label %idle
tired:
  %seen = load atomic i32, ptr %epoch.p seq_cst, align 4
  store atomic i32 1, ptr %asleep.p seq_cst, align 4
  fence seq_cst
  %left1 = load atomic i64, ptr %left.p seq_cst, align 8
  %some1 = icmp sgt i64 %left1, 0
  br i1 %some1, label %work, label %last
last:
  %threads1 = load atomic i64, ptr %threads.p seq_cst, align 8
  %stay1 = icmp slt i64 %id, %threads1
  br i1 %stay1, label %sleep, label %leave
sleep:
  call void @sleep(ptr %pool, ptr %epoch.p, i32 %seen)
  br label %start
work:
  %mine = call i64 @work(ptr %pool, i64 %id)
  %ran = icmp sgt i64 %mine, 0
  br i1 %ran, label %report, label %start
report:
  %d = atomicrmw add ptr %done.p, i64 %mine acq_rel
  br label %start
leave:
  ret void
}}
"""


def _clock() -> str:
    return f"""
define internal void @stamp(ptr %pool, ptr %to) nounwind {{
{at("clock", "clock_id")}
  %time = alloca {{i64, i64}}
  %clock = load ptr, ptr %clock.p
  %id = load i32, ptr %clock_id.p
  %r = call i32 %clock(i32 %id, ptr %time)
  %seconds = load i64, ptr %time
  %nanos.p = getelementptr i8, ptr %time, i64 8
  %nanos = load i64, ptr %nanos.p
  %scaled = mul i64 %seconds, 1000000000
  %total = add i64 %scaled, %nanos
  store i64 %total, ptr %to
  ret void
}}
"""


_SCAN: Final = f"""\
scan:
  ; Waking takes long: begin at once if any launch is going to need the workers.
  %j = phi i64 [0, %entry], [%j1, %scanned]
  %over = icmp eq i64 %j, %count
  br i1 %over, label %head, label %scanned
scanned:
  %jo = mul i64 %j, {LAUNCH_BYTES}
  %jp = getelementptr i8, ptr %launches, i64 %jo
  %jtasks.p = getelementptr i8, ptr %jp, i64 16
  %jtasks = load i64, ptr %jtasks.p
  %jgrain.p = getelementptr i8, ptr %jp, i64 24
  %jgrain = load i64, ptr %jgrain.p
  %jwide = icmp sgt i64 %jtasks, %jgrain
  %j1 = add i64 %j, 1
  br i1 %jwide, label %wake, label %scan
"""


_FIELDS_OF_LAUNCH: Final = f"""\
  %o = mul i64 %i, {LAUNCH_BYTES}
  %kernel.p = getelementptr i8, ptr %launches, i64 %o
  %kernel = load ptr, ptr %kernel.p
  %params.p = getelementptr i8, ptr %kernel.p, i64 8
  %params = load ptr, ptr %params.p
  %tasks.p = getelementptr i8, ptr %kernel.p, i64 16
  %tasks = load i64, ptr %tasks.p
  %grain.p = getelementptr i8, ptr %kernel.p, i64 24
"""


def _run(timed: bool) -> str:
    name, extra, begin, end = "run", "", "", ""
    if timed:
        name, extra = "run_timed", ", ptr %times"
        begin = """
  %pair = shl i64 %i, 4
  %started = getelementptr i8, ptr %times, i64 %pair
  %stopped = getelementptr i8, ptr %started, i64 8
  call void @stamp(ptr %pool, ptr %started)"""
        end = "call void @stamp(ptr %pool, ptr %stopped)"
    return f"""
define i64 @{name}(ptr %pool, ptr %launches, i64 %count, ptr %slots{extra}) nounwind {{
entry:
{at("threads", "scratch", "slots", "fault", "asleep")}
  call void @lock(ptr %pool)
  store ptr %slots, ptr %slots.p
  store atomic i64 0, ptr %fault.p monotonic, align 8
  %own = load ptr, ptr %scratch.p
  %threads = load i64, ptr %threads.p
  %many = icmp sgt i64 %threads, 1
  %asleep = load atomic i32, ptr %asleep.p seq_cst, align 4
  %any = icmp ne i32 %asleep, 0
  %look = and i1 %many, %any
  br i1 %look, label %scan, label %head
{_SCAN}wake:
  call void @wake(ptr %pool)
  br label %head
head:
  %i = phi i64 [0, %entry], [0, %scan], [0, %wake], [%i1, %next]
  %finished = icmp eq i64 %i, %count
  br i1 %finished, label %out, label %launch
launch:
{_FIELDS_OF_LAUNCH}  %grain = load i64, ptr %grain.p{begin}
  %wide = icmp sgt i64 %tasks, %grain
  %parallel = and i1 %many, %wide
  br i1 %parallel, label %share, label %alone
share:
  %shared = call i64 @share(ptr %pool, ptr %kernel, ptr %params, i64 %tasks, i64 %grain)
  br label %ran
alone:
  %code1 = call i64 %kernel(ptr %slots, ptr %params, ptr %own, i64 0, i64 %tasks)
  br label %ran
ran:
  %code = phi i64 [%shared, %share], [%code1, %alone]
  {end}
  %i1 = add i64 %i, 1
  %bad = icmp ne i64 %code, 0
  br i1 %bad, label %out, label %next
next:
  br label %head
out:
  %at = phi i64 [0, %head], [%i1, %ran]
  %what = phi i64 [0, %head], [%code, %ran]
  call void @unlock(ptr %pool)
  %high = shl i64 %at, 32
  %result = or i64 %high, %what
  ret i64 %result
}}
"""


def _enter() -> str:
    return """
define i64 @enter(ptr %frame) nounwind {
  %pool = load ptr, ptr %frame
  %launches.p = getelementptr i8, ptr %frame, i64 8
  %launches = load ptr, ptr %launches.p
  %count.p = getelementptr i8, ptr %frame, i64 16
  %count = load i64, ptr %count.p
  %slots = getelementptr i8, ptr %frame, i64 24
  %result = tail call i64 @run(ptr %pool, ptr %launches, i64 %count, ptr %slots)
  ret i64 %result
}
"""
