"""Symbolic integers: their formulas and conditions give what the same computation gives anew."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from treadle.base.algebra import SMALLEST, Algebra
from treadle.base.symbolic import Symbolic, derived, derived_all, fixed, now

SIZES = st.integers(SMALLEST, 40)
Number = Callable[[list[int]], int]


def traced(
    body: Callable[[list[int]], list[int]], values: Sequence[int], others: Sequence[int]
) -> Callable[[Sequence[int]], list[int] | None]:
    """The function that `body` becomes when it is traced at some values."""
    algebra = Algebra()
    symbols = [algebra.symbol(v, o) for v, o in zip(values, others, strict=True)]
    found = body(list(symbols))
    assert [now(x) for x in found] == body(list(values))
    return algebra.compile(found)


def _program(draw: Any) -> Callable[[list[int]], list[int]]:
    """A random straight computation with decisions."""
    names = st.sampled_from(["+", "-", "*", "//", "%", "min", "max", "if", "ceil", "call"])
    place = st.integers(0, 30)
    one = st.tuples(names, place, place, st.integers(1, 9))
    operations = draw(st.lists(one, min_size=1, max_size=12))

    def run(values: list[int]) -> list[int]:
        known: list[int] = list(values)
        for name, i, j, n in operations:
            a, b = known[i % len(known)], known[j % len(known)]
            if name == "+":
                known.append(a + b + n)
            elif name == "-":
                known.append(a - n * b)
            elif name == "*" and abs(a) < 10**4 and abs(b) < 10**4:
                known.append(a * b)
            elif name == "//":
                known.append(a // n)
            elif name == "%":
                known.append(a % n)
            elif name == "min":
                known.append(min(a, n * 3))
            elif name == "max":
                known.append(max(a, b))
            elif name == "if":
                known.append(a if a < n * b else b)
            elif name == "ceil" and b > 0:
                known.append(-(-a // b))
            elif name == "call":
                known.append(derived(lambda x, y: x ^ y, a, b, least=-(10**9)))
        return known

    return run


@settings(max_examples=300, deadline=None)
@given(st.data(), *[st.tuples(SIZES, SIZES, SIZES)] * 3)
def test_formulas_hold_wherever_the_conditions_do(
    data: Any, values: tuple[int, ...], others: tuple[int, ...], new: tuple[int, ...]
) -> None:
    body = _program(data.draw)
    evaluate = traced(body, values, others)
    assert evaluate(values) == body(list(values))
    found = evaluate(new)
    assert found is None or found == body(list(new))


def test_polynomials_have_one_form() -> None:
    algebra = Algebra()
    b, t = algebra.symbol(8, 4), algebra.symbol(64, 33)
    assert b * t * 6 is t * 6 * b
    assert (b * t * 256) // t is b * 256
    assert (b * 64 + 63) // 64 is b
    assert type(b * t - t * b) is int
    assert (b * 12) % 4 == 0
    assert algebra.conditions() == []


def test_what_is_always_so_is_no_condition() -> None:
    algebra = Algebra()
    b, t = algebra.symbol(8, 4), algebra.symbol(64, 33)
    assert b > 1 and b != 0 and b * t > t and b * t >= b and -b < 0 and b * t != 0
    assert b // (b * t) == 0 and (b + 1) // b >= 1
    assert algebra.conditions() == []


def test_decisions_are_conditions() -> None:
    def body(sizes: list[int]) -> list[int]:
        (n,) = sizes
        return [n * 4 if n * 3 < 100 else 0]

    evaluate = traced(body, [10], [20])
    assert evaluate([33]) == [132]
    assert evaluate([34]) is None


def test_extents_of_one_are_a_case_of_their_own() -> None:
    evaluate = traced(lambda sizes: [sizes[0] + 1], [10], [20])
    assert evaluate([2]) == [3]
    assert evaluate([1]) is None


def test_numbers_that_are_equal_by_chance_are_different() -> None:
    algebra = Algebra()
    b, t = algebra.symbol(8, 4), algebra.symbol(8, 9)
    assert b != t and b != 8 and t % 4 != 0
    assert algebra.conditions() == []


def test_numbers_that_are_equal_must_stay_so() -> None:
    algebra = Algebra()
    b, s = algebra.symbol(8, 4), algebra.symbol(16, 8)
    assert s == 2 * b
    evaluate = algebra.compile([s])
    assert evaluate([5, 10]) == [10]
    assert evaluate([5, 11]) is None


@pytest.mark.parametrize(
    "use", [int, str, repr, bool, lambda n: n & 3, lambda n: n / 2, fixed, lambda n: f"{n}"]
)
def test_what_has_no_formula_holds_for_one_number(use: Callable[[int], Any]) -> None:
    algebra = Algebra()
    n = algebra.symbol(10, 20)
    assert use(n) == use(10)
    assert not isinstance(use(n), Symbolic)
    assert algebra.compile([n])([10]) == [10]
    if use is not bool:
        assert algebra.compile([n])([11]) is None


def test_functions_of_numbers_are_called_again() -> None:
    def body(sizes: list[int]) -> list[int]:
        low, high = derived_all(lambda a, b: sorted([a, b]), *sizes)
        return [low, high, derived(max, low, 7)]

    evaluate = traced(body, [3, 5], [4, 9])
    assert evaluate([9, 2]) == [2, 9, 7]
    assert evaluate([20, 30]) == [20, 30, 20]
