"""Integers that remember how they were computed, so that a computation can be done again on others.

A `Symbolic` is an integer to whoever computes with it; beside its value it has its formula,
a polynomial in symbols. Code that only adds, multiplies, divides and compares such numbers thereby
writes down what its results are for other values of the symbols, and under which conditions all of
its decisions would be the same. `Algebra.compile` makes one function of that.

A number that a decision found *different* from another may be equal to it next time: to treat equal
numbers as if they were not is never wrong for a planner, and coincidences are no concern of it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from treadle.base.algebra import Algebra

    # What they pass for.
    class _Integer(int): ...

    class _Floating(float): ...
else:
    _Integer = _Floating = object

Monomial = tuple[int, ...]
"""Numbers of the atoms that are multiplied, sorted."""
Form = tuple[tuple[Monomial, int], ...]
"""A sum of `coefficient * monomial`, sorted; the constant's monomial is `()`."""


class Symbolic(_Integer):
    """An integer with a formula; equal formulas of an algebra are one object.

    `other` is what the number would be for a second set of values, which helps to tell by which
    formula another number may have been computed. It passes for an `int` and is none, so that
    whatever takes its value (`range`, `struct`, NumPy) has to ask for it: that fixes the number.
    """

    __slots__ = ("algebra", "form", "other", "value")

    def __init__(self, algebra: Algebra, form: Form, value: int, other: int) -> None:
        self.algebra = algebra
        self.form = form
        self.value = value
        self.other = other

    __class__ = property(lambda self: int)

    def __hash__(self) -> int:
        return hash(self.value)

    def __add__(self, b: Any) -> Any:
        return self.algebra.sum(self, b, 1) if isinstance(b, int) else self._mixed("+", b)

    __radd__ = __add__

    def __sub__(self, b: Any) -> Any:
        return self.algebra.sum(self, b, -1) if isinstance(b, int) else self._mixed("-", b)

    def __rsub__(self, b: Any) -> Any:
        return (-self) + b

    def __mul__(self, b: Any) -> Any:
        return self.algebra.product(self, b) if isinstance(b, int) else self._mixed("*", b)

    __rmul__ = __mul__

    def __neg__(self) -> Any:
        return self.algebra.product(self, -1)

    def __pos__(self) -> Any:
        return self

    def __abs__(self) -> Any:
        return -self if self < 0 else self

    def __floordiv__(self, b: Any) -> Any:
        return self.algebra.quotient(self, b) if isinstance(b, int) else fixed(self) // b

    def __rfloordiv__(self, a: Any) -> Any:
        return self.algebra.quotient(a, self) if isinstance(a, int) else a // fixed(self)

    def __truediv__(self, b: Any) -> Any:
        known = isinstance(b, int | float)
        return self.algebra.combined("/", self, b) if known else NotImplemented

    def __rtruediv__(self, a: Any) -> Any:
        known = isinstance(a, int | float)
        return self.algebra.combined("/", a, self) if known else NotImplemented

    def __mod__(self, b: Any) -> Any:
        return self.algebra.remainder(self, b) if isinstance(b, int) else fixed(self) % b

    def __rmod__(self, a: Any) -> Any:
        return self.algebra.remainder(a, self) if isinstance(a, int) else a % fixed(self)

    def _mixed(self, operation: str, b: Any) -> Any:
        """An operation on what is no integer."""
        return self.algebra.combined(operation, self, b) if isinstance(b, float) else NotImplemented

    def __divmod__(self, b: Any) -> Any:
        return self // b, self % b

    def __rdivmod__(self, a: Any) -> Any:
        return a // self, a % self

    def __eq__(self, b: object) -> bool:
        return self.algebra.equal(self, b) if isinstance(b, int) else False

    def __ne__(self, b: object) -> bool:
        return not self == b

    def __lt__(self, b: Any) -> bool:
        return self.algebra.positive(b - self)

    def __le__(self, b: Any) -> bool:
        return self.algebra.positive(b - self + 1)

    def __gt__(self, b: Any) -> bool:
        return self.algebra.positive(self - b)

    def __ge__(self, b: Any) -> bool:
        return self.algebra.positive(self - b + 1)

    def __bool__(self) -> bool:
        return self != 0

    def __index__(self) -> int:
        return fixed(self)

    __int__ = __trunc__ = __index__

    def _decided(operation: str) -> Any:  # type: ignore[misc]
        """An operation without a formula: it holds for this very number only."""
        plain = getattr(int, operation)

        def method(self: Symbolic, *others: Any) -> Any:
            return plain(fixed(self), *[fixed(x) for x in others])

        return method

    # What integers have besides operators.
    numerator = property(lambda self: self)
    denominator = property(lambda self: 1)

    __pow__ = _decided("__pow__")
    __rpow__ = _decided("__rpow__")
    __and__ = _decided("__and__")
    __rand__ = _decided("__rand__")
    __or__ = _decided("__or__")
    __ror__ = _decided("__ror__")
    __xor__ = _decided("__xor__")
    __rxor__ = _decided("__rxor__")
    __lshift__ = _decided("__lshift__")
    __rlshift__ = _decided("__rlshift__")
    __rshift__ = _decided("__rshift__")
    __rrshift__ = _decided("__rrshift__")
    __invert__ = _decided("__invert__")
    __float__ = _decided("__float__")
    __repr__ = _decided("__repr__")
    __format__ = _decided("__format__")
    bit_length = _decided("bit_length")


class Real(_Floating):
    """A floating-point number that varies: a number of a graph, or what sizes were divided into.

    Among constants it decides nothing, as it is equal to itself alone. Like `Symbolic` it passes
    for a `float` and is none.
    """

    __slots__ = ("algebra", "needs", "text", "value")

    def __init__(self, algebra: Algebra, text: str, value: float, needs: tuple[Any, ...]) -> None:
        self.algebra = algebra
        self.text = text
        self.value = value
        self.needs = needs

    __class__ = property(lambda self: float)

    def _with(operation: str) -> tuple[Any, Any]:  # type: ignore[misc]
        """An operation and its mirror image, as text and as value."""

        def method(self: Real, b: Any) -> Any:
            known = isinstance(b, int | float)
            return self.algebra.combined(operation, self, b) if known else NotImplemented

        def mirrored(self: Real, a: Any) -> Any:
            known = isinstance(a, int | float)
            return self.algebra.combined(operation, a, self) if known else NotImplemented

        return method, mirrored

    __add__, __radd__ = _with("+")
    __sub__, __rsub__ = _with("-")
    __mul__, __rmul__ = _with("*")
    __truediv__, __rtruediv__ = _with("/")
    __pow__, __rpow__ = _with("**")

    def __neg__(self) -> Any:
        return self * -1.0

    def __float__(self) -> float:
        return self.algebra.fix_real(self)

    def __int__(self) -> int:
        return int(float(self))

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        # A number of a graph, unlike one computed from sizes, is equal by chance.
        given = all(type(n) is int for n in self.needs)
        return not (given and not self.algebra.strict) and float(self) == other

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __lt__(self, other: Any) -> bool:
        return float(self) < other

    def __le__(self, other: Any) -> bool:
        return float(self) <= other

    def __gt__(self, other: Any) -> bool:
        return float(self) > other

    def __ge__(self, other: Any) -> bool:
        return float(self) >= other

    def __bool__(self) -> bool:
        return bool(float(self))

    def __hash__(self) -> int:
        return id(self)

    def __repr__(self) -> str:
        return self.text


def real(number: Any) -> Any:
    """`float(number)` that keeps its formula: for a factor, a divisor, what fills a tensor."""
    if type(number) is Symbolic:
        return number.algebra.combined("+", number, 0.0)
    return number if type(number) is Real else float(number)


def fixed(number: int) -> int:
    """A number as it is: what is planned with it holds where it is the same."""
    if type(number) is Symbolic:
        return number.algebra.fix(number)
    return number


def varies(number: int) -> bool:
    """Whether a number has a formula: it may be another one when what is planned is run again."""
    return type(number) is Symbolic


def now(number: int) -> int:
    """The value of a number, for a choice that is right for all values and better for this one."""
    return number.value if type(number) is Symbolic else number.__index__()


def plain(number: Any) -> Any:
    """The value of a number of any kind, without its formula."""
    return number.value if type(number) is Symbolic or type(number) is Real else number


def surely(number: int, least: int) -> bool:
    """Whether a number is that large, also for all other values that its symbols may take."""
    if type(number) is Symbolic:
        return number.algebra.at_least(number, least)
    return number >= least


def integral(number: Any) -> int:
    """A number as an integer that keeps its formula."""
    return number if type(number) is Symbolic else int(number)


def derived(
    function: Callable[..., int], *args: float, least: int = 0, most: int | None = None
) -> int:
    """`function(*args)`, a number that is passed on rather than decided by.

    function: gives an integer from `least` to `most`, which depends on the arguments alone.
    """
    for a in args:
        if isinstance(a, Symbolic | Real):
            return a.algebra.call(function, args, least, most)
    return function(*args)


def derived_all(function: Callable[..., list[int]], *args: int) -> list[int]:
    """As `derived`, for a function that gives a list, of the same length for any arguments."""
    for a in args:
        if type(a) is Symbolic:
            return a.algebra.call_all(function, args)
    return function(*args)
