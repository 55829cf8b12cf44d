"""Rounding to whole numbers, with and without the instructions for it."""

from __future__ import annotations

from treadle.codegen.value import Value


def nearest(x: Value) -> Value:
    """To the nearest whole number, halves to even."""
    if x.emit.target.rounding:
        return x.unary("roundeven")
    return _by_addition(x)


def floor(x: Value) -> Value:
    """The greatest whole number that is not above."""
    if x.emit.target.rounding:
        return x.unary("floor")
    whole = _by_addition(x)
    return (whole > x).where(whole - 1.0, whole).copysign(x)


def ceil(x: Value) -> Value:
    """The least whole number that is not below."""
    if x.emit.target.rounding:
        return x.unary("ceil")
    whole = _by_addition(x)
    return (whole < x).where(whole + 1.0, whole).copysign(x)


def truncate(x: Value) -> Value:
    """Towards zero."""
    if x.emit.target.rounding:
        return x.unary("trunc")
    return floor(x.absolute()).copysign(x)


def _by_addition(x: Value) -> Value:
    """Adding 2^(digits - 1) pushes the fraction out of the number, rounded to even."""
    big = 2.0**23 if x.dtype.bits == 32 else 2.0**52
    size = x.absolute()
    whole = ((size + big) - big).copysign(x)
    return (size < big).where(whole, x)
