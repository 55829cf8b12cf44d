"""Scalar functions that are called lane by lane: exact, rarely used, too long to inline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.base import dtype as dt
from treadle.codegen.convert import cast
from treadle.codegen.value import Emit, Value, ir, join, llvm_type


def by_lane(function: Callable[..., Value], *arguments: Value) -> Value:
    """A scalar function applied to each lane in turn."""
    lanes = max(a.lanes for a in arguments)
    if lanes == 1:
        return function(*arguments)
    rows = [a.spread(lanes) for a in arguments]
    return join([function(*(row.lane(i) for row in rows)) for i in range(lanes)])


def float_remainder(a: Value, b: Value) -> Value:
    """C's `fmod`, exact: `a - b * trunc(a / b)` with the sign of `a`."""
    a, b = a.meet(b)
    # Exact in float64 for float32 operands too: the remainder has no more digits than they have.
    wide = by_lane(_call_remainder, cast(a, dt.float64), cast(b, dt.float64))
    return cast(wide, a.dtype)


def _call_remainder(a: Value, b: Value) -> Value:
    module = a.emit.module
    function = module.globals.get("treadle.fmod") or _define_remainder(a.emit)
    return Value(a.emit, a.emit.builder.call(function, [a.raw, b.raw]), dt.float64)


def _define_remainder(outer: Emit) -> Any:
    """Long division in base two of the significands, 11 digits at a time."""
    double = llvm_type(dt.float64)
    kind = ir.FunctionType(double, [double, double])
    function = ir.Function(outer.module, kind, "treadle.fmod")
    function.linkage = "internal"
    function.attributes.add("nounwind")
    entry, special, start, loop, step, done = (
        function.append_basic_block(n)
        for n in ("entry", "special", "start", "loop", "step", "done")
    )
    b = ir.IRBuilder(entry)
    e = Emit(b, outer.target)
    x, y = (Value(e, raw, dt.float64) for raw in function.args)
    size_x, size_y = x.absolute(), y.absolute()
    odd = x.is_nan() | y.is_nan() | size_x.equals(float("inf")) | y.equals(0)
    b.cbranch((odd | (size_x < size_y)).raw, special, start)

    b.position_at_end(special)
    b.ret(odd.where(x.like(float("nan")), x).raw)

    b.position_at_end(start)
    digits_x, exponent_x = _decompose(size_x)
    digits_y, exponent_y = _decompose(size_y)
    first = Value(e, b.urem(digits_x.raw, digits_y.raw), dt.int64)
    distance = exponent_x - exponent_y
    b.branch(loop)

    b.position_at_end(loop)
    rest, left = b.phi(first.raw.type), b.phi(first.raw.type)
    rest.add_incoming(first.raw, start)
    left.add_incoming(distance.raw, start)
    remaining = Value(e, left, dt.int64)
    b.cbranch((remaining > 0).raw, step, done)

    b.position_at_end(step)
    shift = (remaining < 11).where(remaining, 11)
    next_rest = b.urem((Value(e, rest, dt.int64) << shift).raw, digits_y.raw)
    rest.add_incoming(next_rest, step)
    left.add_incoming((remaining - shift).raw, step)
    b.branch(loop)

    b.position_at_end(done)
    b.ret(_compose(Value(e, rest, dt.int64), exponent_y).copysign(x).raw)
    return function


def _decompose(size: Value) -> tuple[Value, Value]:
    """A positive float64 as whole digits times `2**exponent`, exponents counted from 0."""
    bits = size.bits(dt.int64)
    exponent = bits >> 52
    fraction = bits & ((1 << 52) - 1)
    normal = exponent > 0
    return normal.where(fraction | (1 << 52), fraction), normal.where(exponent - 1, exponent)


def _compose(digits: Value, exponent: Value) -> Value:
    """`digits * 2**(exponent - 1074)`: exact, since the result has no more digits than fit."""
    low = (exponent < 1000).where(exponent, 1000)
    # Two factors, because one alone may be outside of the range of float64.
    first = _power_of_two(low - 600)
    second = _power_of_two(exponent - low - 474)
    return cast(digits, dt.float64) * second * first


def _power_of_two(exponent: Value) -> Value:
    return ((exponent + 1023) << 52).bits(dt.float64)
