"""Kernels written by hand in LLVM IR, for tests of the runtime without a code generator."""

from __future__ import annotations

import functools

from treadle.codegen.compile import native

_SIGNATURE = "(ptr %slots, ptr %params, ptr %scratch, i64 %begin, i64 %end)"


def _loop(name: str, setup: str, body: str, result: str = "0") -> str:
    """A kernel whose `body` runs for each %i and may set %code to stop."""
    return f"""
define i64 @{name}{_SIGNATURE} {{
entry:
{setup}
  br label %head
head:
  %i = phi i64 [%begin, %entry], [%i1, %next]
  %more = icmp slt i64 %i, %end
  br i1 %more, label %body, label %out
body:
{body}
  br label %next
next:
  %i1 = add i64 %i, 1
  br label %head
out:
  ret i64 {result}
}}
"""


def _slot(name: str, at: int) -> str:
    """%name = slots[params[at]] + params[at + 1] bytes."""
    return f"""
  %{name}.n.p = getelementptr i64, ptr %params, i64 {at}
  %{name}.n = load i64, ptr %{name}.n.p
  %{name}.o.p = getelementptr i64, ptr %params, i64 {at + 1}
  %{name}.o = load i64, ptr %{name}.o.p
  %{name}.s = getelementptr ptr, ptr %slots, i64 %{name}.n
  %{name}.b = load ptr, ptr %{name}.s
  %{name} = getelementptr i8, ptr %{name}.b, i64 %{name}.o
"""


def _number(name: str, at: int) -> str:
    """%name = params[at]."""
    return f"""
  %{name}.p = getelementptr i64, ptr %params, i64 {at}
  %{name} = load i64, ptr %{name}.p
"""


_SOURCE = "\n".join(
    (
        # y[i] = a * x[i] + y[i] + i; params: y, offset, x, offset, a
        _loop(
            "affine",
            _slot("y", 0) + _slot("x", 2) + _number("a", 4),
            """
  %xi.p = getelementptr i64, ptr %x, i64 %i
  %xi = load i64, ptr %xi.p
  %yi.p = getelementptr i64, ptr %y, i64 %i
  %yi = load i64, ptr %yi.p
  %ax = mul i64 %a, %xi
  %s = add i64 %ax, %yi
  %t = add i64 %s, %i
  store i64 %t, ptr %yi.p
""",
        ),
        # y[i] += 1 and returns params[3] if the chunk holds task params[2]; params: y, offset, …
        _loop(
            "faulty",
            _slot("y", 0)
            + _number("bad", 2)
            + _number("code", 3)
            + """
  %from = icmp sge i64 %bad, %begin
  %to = icmp slt i64 %bad, %end
  %hit = and i1 %from, %to
  %result = select i1 %hit, i64 %code, i64 0
""",
            """
  %yi.p = getelementptr i64, ptr %y, i64 %i
  %old = atomicrmw add ptr %yi.p, i64 1 monotonic
""",
            "%result",
        ),
        # Counts the calls in y[0] and busies itself params[2] turns for each task.
        _loop(
            "slow",
            _slot("y", 0)
            + _number("turns", 2)
            + """
  %calls = atomicrmw add ptr %y, i64 1 monotonic
""",
            """
  br label %turn
turn:
  %t = phi i64 [0, %body], [%t1, %turn]
  store volatile i64 %t, ptr %scratch
  %t1 = add i64 %t, 1
  %again = icmp slt i64 %t1, %turns
  br i1 %again, label %turn, label %turned
turned:
""",
        ),
        # Fills params[0] words of its scratch, reads them back; fault 9 where somebody else wrote.
        f"""
define i64 @private{_SIGNATURE} {{
entry:
  %words = load i64, ptr %params
  br label %write
write:
  %i = phi i64 [0, %entry], [%i1, %write]
  %p = getelementptr i64, ptr %scratch, i64 %i
  %v = add i64 %i, %begin
  store volatile i64 %v, ptr %p
  %i1 = add i64 %i, 1
  %w = icmp slt i64 %i1, %words
  br i1 %w, label %write, label %read
read:
  %j = phi i64 [0, %write], [%j1, %same]
  %q = getelementptr i64, ptr %scratch, i64 %j
  %r = load volatile i64, ptr %q
  %e = add i64 %j, %begin
  %ok = icmp eq i64 %r, %e
  br i1 %ok, label %same, label %bad
same:
  %j1 = add i64 %j, 1
  %x = icmp slt i64 %j1, %words
  br i1 %x, label %read, label %good
good:
  %address = ptrtoint ptr %scratch to i64
  %low = and i64 %address, 63
  ret i64 %low
bad:
  ret i64 9
}}
""",
    )
)


@functools.cache
def kernels() -> dict[str, int]:
    """Addresses of the kernels by name."""
    return native(_SOURCE)
