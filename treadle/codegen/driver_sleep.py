"""How the driver's threads sleep, and where they wake.

Linux looks for an idle processor when it wakes a thread, but not always on machines whose caches
are shared by few processors: there it may put a worker behind the very thread that wakes it, where
it waits for milliseconds while another processor has nothing to do. So a sleeping worker is kept
off the processor of its waker while it is being woken, and may go anywhere right afterwards.
"""

from __future__ import annotations

from treadle.codegen.pool_record import PLACED, at

_MASK = 128
"""Bytes of a set of processors: 1024 of them, as the system's library counts."""


def sleeping() -> str:
    """`sleep`, `rouse` and `wake` as LLVM IR."""
    # Operations 128 and 129 are FUTEX_WAIT and FUTEX_WAKE on memory private to the process.
    return f"""
define internal void @sleep(ptr %pool, ptr %word, i32 %seen) nounwind {{
{at("syscall", "futex", "nap")}
  %syscall = load ptr, ptr %syscall.p
  %none = icmp eq ptr %syscall, null
  br i1 %none, label %doze, label %wait
wait:
  %futex = load i64, ptr %futex.p
  %r = call i64 (i64, ...) %syscall(i64 %futex, ptr %word, i64 128, i32 %seen, ptr null)
  ret void
doze:
  %nap = load ptr, ptr %nap.p
  %z = call i32 %nap(i32 200)
  ret void
}}

define internal void @rouse(ptr %pool, ptr %word, i32 %count) nounwind {{
{at("syscall", "futex")}
  %syscall = load ptr, ptr %syscall.p
  %none = icmp eq ptr %syscall, null
  br i1 %none, label %out, label %wake
wake:
  %futex = load i64, ptr %futex.p
  %r = call i64 (i64, ...) %syscall(i64 %futex, ptr %word, i64 129, i32 %count)
  br label %out
out:
  ret void
}}

{_placing()}
define void @wake(ptr %pool) nounwind {{
{at("epoch", "asleep", "threads", "confine")}
  fence seq_cst
  %asleep = load atomic i32, ptr %asleep.p seq_cst, align 4
  %any = icmp ne i32 %asleep, 0
  br i1 %any, label %wake, label %out
wake:
  ; Reset first: later launches need not wake again those who are still on their way.
  store atomic i32 0, ptr %asleep.p seq_cst, align 4
  %e = atomicrmw add ptr %epoch.p, i32 1 seq_cst
  %threads = load atomic i64, ptr %threads.p monotonic, align 8
  %few = icmp ule i64 %threads, {PLACED}
  %confine = load ptr, ptr %confine.p
  %can = icmp ne ptr %confine, null
  %place = and i1 %few, %can
  br i1 %place, label %elsewhere, label %anywhere
elsewhere:
  call void @rouse_elsewhere(ptr %pool, i64 %threads)
  br label %out
anywhere:
  call void @rouse(ptr %pool, ptr %epoch.p, i32 2147483647)
  br label %out
out:
  ret void
}}
"""


def _placing() -> str:
    # A set of processors that could not be read, or has no other processor, is empty here, and the
    # system refuses to confine a thread to it: nothing changes then.
    return f"""
declare void @llvm.memset.inline.p0.i64(ptr, i8, i64, i1)
declare void @llvm.memcpy.inline.p0.p0.i64(ptr, ptr, i64, i1)

define internal void @rouse_elsewhere(ptr %pool, i64 %threads) nounwind {{
entry:
{at("epoch", "placing", "cpu", "affinity", "confine", "ids")}
  %sets = alloca [{PLACED} x [{_MASK} x i8]], align 16
  %others = alloca [{_MASK} x i8], align 16
  %r = cmpxchg ptr %placing.p, i32 0, i32 1 acquire monotonic
  %mine = extractvalue {{i32, i1}} %r, 1
  br i1 %mine, label %look, label %plain
plain:
  call void @rouse(ptr %pool, ptr %epoch.p, i32 2147483647)
  ret void
look:
  %cpu.f = load ptr, ptr %cpu.p
  %affinity.f = load ptr, ptr %affinity.p
  %confine.f = load ptr, ptr %confine.p
  %cpu = call i32 %cpu.f()
  %known = icmp ult i32 %cpu, {8 * _MASK}
  %here = select i1 %known, i32 %cpu, i32 0
  %byte = lshr i32 %here, 3
  %bit = and i32 %here, 7
  %bit8 = trunc i32 %bit to i8
  %flag = shl i8 1, %bit8
  %keep = xor i8 %flag, -1
  br label %leave
{_keep_off()}
rouse:
  call void @rouse(ptr %pool, ptr %epoch.p, i32 2147483647)
  br label %return
{_let_go()}
out:
  store atomic i32 0, ptr %placing.p release, align 4
  ret void
}}
"""


def _keep_off() -> str:
    # Notes where each worker may run, and takes this processor away.
    return f"""
leave:
  %i = phi i64 [1, %look], [%i1, %left]
  %some = icmp slt i64 %i, %threads
  br i1 %some, label %one, label %rouse
one:
  %set = getelementptr [{_MASK} x i8], ptr %sets, i64 %i
  call void @llvm.memset.inline.p0.i64(ptr %set, i8 0, i64 {_MASK}, i1 false)
  %id.p = getelementptr i32, ptr %ids.p, i64 %i
  %id = load i32, ptr %id.p
  %there = icmp ne i32 %id, 0
  br i1 %there, label %confine, label %left
confine:
  %r1 = call i32 %affinity.f(i32 %id, i64 {_MASK}, ptr %set)
  call void @llvm.memcpy.inline.p0.p0.i64(ptr %others, ptr %set, i64 {_MASK}, i1 false)
  %own.p = getelementptr i8, ptr %others, i32 %byte
  %own = load i8, ptr %own.p
  %rest = and i8 %own, %keep
  store i8 %rest, ptr %own.p
  %r2 = call i32 %confine.f(i32 %id, i64 {_MASK}, ptr %others)
  br label %left
left:
  %i1 = add i64 %i, 1
  br label %leave"""


def _let_go() -> str:
    # Lets each worker run wherever it could before.
    return f"""
return:
  %j = phi i64 [1, %rouse], [%j1, %back]
  %more = icmp slt i64 %j, %threads
  br i1 %more, label %free, label %out
free:
  %set1 = getelementptr [{_MASK} x i8], ptr %sets, i64 %j
  %id1.p = getelementptr i32, ptr %ids.p, i64 %j
  %id1 = load i32, ptr %id1.p
  %there1 = icmp ne i32 %id1, 0
  br i1 %there1, label %release, label %back
release:
  %r3 = call i32 %confine.f(i32 %id1, i64 {_MASK}, ptr %set1)
  br label %back
back:
  %j1 = add i64 %j, 1
  br label %return"""
