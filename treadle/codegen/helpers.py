"""Scalar functions that are called for each lane: exact, rarely used, too long to inline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.base import dtype as dt
from treadle.codegen.convert import cast
from treadle.codegen.value import Emit, Value, ir, llvm_type

Definition = Callable[[Emit], Any]
"""Adds a function of float64 numbers to a module: one number or a struct of them comes back."""


def by_lane(name: str, define: Definition, arguments: list[Value], results: int) -> list[Value]:
    """A scalar float64 function applied to each lane in turn.

    The lanes go through memory, so that the code does not grow with their number.
    """
    emit, lanes = arguments[0].emit, max(a.lanes for a in arguments)
    row = llvm_type(dt.float64, lanes)
    b = emit.builder
    with b.goto_entry_block():
        places = [b.alloca(row) for _ in range(len(arguments) + results)]
    for place in places:
        place.type = ir.PointerType()
    for argument, place in zip(arguments, places, strict=False):
        b.store(argument.spread(lanes).raw, place)
    function = emit.module.globals.get(f"{name}.lanes")
    if function is None:
        function = _define_lanes(emit, name, define(emit), len(arguments), results)
    b.call(function, [*places, ir.Constant(ir.IntType(64), lanes)])
    return [emit.value(b.load(p, typ=row), dt.float64) for p in places[len(arguments) :]]


def _define_lanes(outer: Emit, name: str, scalar: Any, arguments: int, results: int) -> Any:
    word, pointer, double = ir.IntType(64), ir.PointerType(), llvm_type(dt.float64)
    kind = ir.FunctionType(ir.VoidType(), [*[pointer] * (arguments + results), word])
    function = ir.Function(outer.module, kind, f"{name}.lanes")
    function.linkage = "internal"
    function.attributes.add("nounwind")
    function.attributes.add("noinline")
    *places, count = function.args
    entry, loop, done = (function.append_basic_block(n) for n in ("entry", "loop", "done"))
    ir.IRBuilder(entry).branch(loop)
    b = ir.IRBuilder(loop)
    at = b.phi(word)
    at.add_incoming(ir.Constant(word, 0), entry)
    addresses = [b.gep(p, [at], source_etype=double) for p in places]
    made = b.call(scalar, [b.load(p, typ=double, align=8) for p in addresses[:arguments]])
    parts = [made] if results == 1 else [b.extract_value(made, i) for i in range(results)]
    for part, address in zip(parts, addresses[arguments:], strict=True):
        b.store(part, address, align=8)
    following = b.add(at, ir.Constant(word, 1))
    at.add_incoming(following, loop)
    b.cbranch(b.icmp_signed("<", following, count), loop, done)
    ir.IRBuilder(done).ret_void()
    return function


def float_remainder(a: Value, b: Value) -> Value:
    """C's `fmod`, exact: `a - b * trunc(a / b)` with the sign of `a`."""
    a, b = a.meet(b)
    # Exact in float64 for float32 operands too: the remainder has no more digits than they have.
    wide = [cast(a, dt.float64), cast(b, dt.float64)]
    return cast(by_lane("treadle.fmod", _define_remainder, wide, 1)[0], a.dtype)


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
