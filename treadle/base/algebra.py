"""Formulas over symbols, and the conditions that were decided with them.

Every `Symbolic` belongs to an `Algebra`, which keeps its formula: a polynomial in atoms. Equal
formulas are one object, so that what is equal for all values is found equal without a condition.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from treadle.base.symbolic import Form, Monomial, Real, Symbolic

_REAL: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
    "**": operator.pow,
}  # fmt: skip
SMALLEST: Final = 2
"""What a symbol is at least: extents of 0 and 1 are cases of their own."""


@dataclass(slots=True)
class _Atom:
    """What formulas are made of: a symbol, or a number that has no formula of its own.

    `text` is Python for its value over the names `a0`, `a1` ... of earlier atoms, `needs`.
    `chance`: a remainder (`rest`), or what a function gave: it is another number only by chance.
    """

    value: int
    other: int
    least: int | None
    most: int | None
    text: str
    needs: tuple[int, ...]
    chance: bool = False
    rest: bool = False


class Algebra:
    """Symbols, the formulas made of them, and the conditions that were decided on the way."""

    def __init__(self, strict: bool = False) -> None:
        # Whether it is a condition that numbers are different: for whom a program decides that,
        # rather than a planner.
        self.strict = strict
        self.symbols = 0
        self._extents: list[int] = []
        self._named: dict[int, Symbolic] = {}
        # Identities of numbers are keys below, so no number may go.
        self._kept: list[Symbolic] = []
        self._atoms: list[_Atom] = []
        self._formed: dict[Form, Symbolic] = {}
        self._known: dict[Any, Any] = {}
        self._functions: list[Callable[..., Any]] = []
        # For each formula without its constant: the interval that it must lie in.
        self._within: dict[Form, list[int | None]] = {}
        self._given: list[tuple[int, float]] = []

    def symbol(self, value: int, other: int) -> Symbolic:
        """A fresh number, of at least `SMALLEST`."""
        text = f"v[{self.symbols}]"
        self._extents.append(self.symbols)
        self.symbols += 1
        return self._atom(_Atom(value, other, SMALLEST, None, text, ()))

    def real(self, value: float) -> Real:
        """A fresh floating-point number."""
        found = Real(self, f"v[{self.symbols}]", value, (self.symbols,))
        self.symbols += 1
        return found

    def combined(self, operation: str, a: float, b: float) -> Real:
        """An operation on numbers of which one at least varies, as a floating-point number."""
        apply = _REAL[operation]
        texts: list[str] = []
        needs: list[Any] = []
        for x in (a, b):
            texts.append(self.text(x) if type(x) in (Real, Symbolic) else repr(x))
            needs += x.needs if type(x) is Real else [x] if type(x) is Symbolic else []
        text = f"(({texts[0]}) {operation} ({texts[1]}))"
        return Real(self, text, apply(_plain(a), _plain(b)), tuple(needs))

    def fix_real(self, number: Real) -> float:
        """A floating-point number that must be the same."""
        for each in number.needs:
            if type(each) is Symbolic:
                self.fix(each)
            else:
                self._given.append((each, number.value))
        return number.value

    def given(self, number: Symbolic) -> None:
        """One more value that is given, and must be that of a number."""
        self._given.append((self.symbols, number))
        self.symbols += 1

    def extent(self, number: Symbolic) -> Symbolic:
        """A number as the extent of something, at least `SMALLEST`: sums get an atom of their own,
        so that products of extents stay products."""
        number = self._named.get(id(number), number)
        if len(number.form) == 1 and number.form[0][1] == 1 and self.at_least(number, SMALLEST):
            return number
        if _value(number) < SMALLEST or not self.positive(number - SMALLEST + 1):
            return number
        atom = _Atom(_value(number), number.other, SMALLEST, None, self.text(number),
                     self._needs((number,)))  # fmt: skip
        found = self._atom(atom)
        self._named[id(number)] = self._formed[number.form] = found
        return found

    # --- making numbers ------------------------------------------------------------------------

    def _atom(self, atom: _Atom) -> Symbolic:
        number = len(self._atoms)
        self._atoms.append(atom)
        return self._make((((number,), 1),), atom.value, atom.other)

    def _make(self, form: Form, value: int, other: int) -> Any:
        """The one object of a form; a plain integer where it is a constant."""
        if not form or (len(form) == 1 and not form[0][0]):
            return value
        found = self._formed.get(form)
        if found is None:
            found = self._formed[form] = Symbolic(self, form, value, other)
            self._kept.append(found)
        return found

    def sum(self, a: int, b: int, sign: int) -> Any:
        """`a + sign * b`"""
        if type(b) is not Symbolic and not b:
            return a
        key = (sign, id(a), id(b)) if type(b) is Symbolic else (sign, id(a), None, b.__index__())
        found = self._known.get(key)
        if found is None:
            terms = dict(_form(a))
            for monomial, k in _form(b):
                terms[monomial] = terms.get(monomial, 0) + sign * k
            form = tuple(sorted([term for term in terms.items() if term[1]]))
            value, other = _value(a) + sign * _value(b), _other(a) + sign * _other(b)
            found = self._known[key] = self._make(form, value, other)
        return self._named.get(id(found), found)

    def product(self, a: Symbolic, b: int) -> Any:
        """`a * b`"""
        if type(b) is not Symbolic:
            if b in (0, 1):
                return a if b else 0
            form = tuple([(monomial, k * b) for monomial, k in a.form])
            return self._make(form, _value(a) * b, a.other * b)
        key = ("mul", id(a), id(b))
        found = self._known.get(key)
        if found is None:
            terms: dict[Monomial, int] = {}
            for m, k in a.form:
                for n, c in b.form:
                    both = tuple(sorted(m + n))
                    terms[both] = terms.get(both, 0) + k * c
            form = tuple(sorted([term for term in terms.items() if term[1]]))
            found = self._make(form, _value(a) * _value(b), a.other * b.other)
            self._known[key] = found
        return found

    def quotient(self, a: int, b: int) -> Any:
        """`a // b` for a positive `b`: what is a multiple as a formula, the rest as an atom."""
        whole, rest = self._divided(a, b)
        return whole + self._floor(rest, b)

    def remainder(self, a: int, b: int) -> Any:
        """`a % b` for a positive `b`."""
        _, rest = self._divided(a, b)
        if type(rest) is not Symbolic and type(b) is not Symbolic:
            return rest % b
        if self.at_least(rest, 0) and self.at_least(b - rest, 1):
            return rest
        value, other = _value(rest) % _value(b), _other(rest) % (_other(b) or 1)
        return self._operation("%", rest, b, value, other, 0, None)

    def _divided(self, a: int, b: int) -> tuple[int, int]:
        """`a = whole * b + rest`, with as much in the whole as formulas tell."""
        if not b > 0:
            raise ZeroDivisionError(f"a size is divided by {_value(b)}")
        divisor = _form(b)
        if len(divisor) > 1:
            return 0, a
        (under, n), whole, rest = divisor[0], [], []
        for monomial, k in _form(a):
            left = _without(monomial, under)
            if left is None or k % n:
                rest.append((monomial, k))
            else:
                whole.append((left, k // n))
        return self.number(tuple(sorted(whole))), self.number(tuple(rest))

    def _floor(self, a: int, b: int) -> Any:
        if type(a) is not Symbolic and type(b) is not Symbolic:
            return a // b
        if self.at_least(a, 0):
            if self.at_least(b - a, 1):
                return 0
        elif type(a) is not Symbolic or all(k < 0 for m, k in a.form if m):
            # A form that is known not to be negative.
            return -self.quotient(b - 1 - a, b)
        least = 1 if self.at_least(a - b, 0) else 0 if self.at_least(a, 0) else None
        below = self._least(_form(-a))
        most = None if below is None else -below
        value, other = _value(a) // _value(b), _other(a) // (_other(b) or 1)
        return self._operation("//", a, b, value, other, least, most)

    def _operation(
        self, sign: str, a: int, b: int, value: int, other: int, least: int | None, most: int | None
    ) -> Any:
        key = (sign, *[id(x) if type(x) is Symbolic else (x,) for x in (a, b)])
        found = self._known.get(key)
        if found is None:
            text = f"({self.text(a)}){sign}({self.text(b)})"
            needs = self._needs((a, b))
            chance = sign == "%" or any(self._atoms[i].chance for i in needs)
            atom = _Atom(value, other, least, most, text, needs, chance, sign == "%")
            found = self._known[key] = self._atom(atom)
        return found

    def number(self, form: Form) -> Any:
        """The number of a form."""
        if not form:
            return 0
        if len(form) == 1 and not form[0][0]:
            return form[0][1]
        found = self._formed.get(form)
        if found is not None:
            return found
        atoms = self._atoms
        value = other = 0
        for monomial, k in form:
            value += k * math.prod([atoms[i].value for i in monomial])
            other += k * math.prod([atoms[i].other for i in monomial])
        return self._make(form, value, other)

    def call(
        self, function: Callable[..., int], args: Sequence[float], least: int, most: int | None
    ) -> Any:
        """The result of a function, as an atom."""
        key = (function, tuple([id(a) if isinstance(a, Symbolic | Real) else (a,) for a in args]))
        found = self._known.get(key)
        if found is None:
            text, value, other = self._called(function, args)
            atom = _Atom(value, other, least, most, text, self._needs(args), True)
            found = self._known[key] = self._atom(atom)
        return found

    def call_all(self, function: Callable[..., list[int]], args: Sequence[float]) -> list[int]:
        """The results of a function, each as an atom."""
        text, values, others = self._called(function, args)
        whole = len(self._atoms)
        self._atoms.append(_Atom(0, 0, None, None, text, self._needs(args)))
        return [
            self._atom(_Atom(value, other, 0, None, f"a{whole}[{i}]", (whole,)))
            for i, (value, other) in enumerate(zip(values, others, strict=True))
        ]

    def _called(self, function: Callable[..., Any], args: Sequence[float]) -> tuple[str, Any, Any]:
        self._functions.append(function)
        text = f"f{len(self._functions) - 1}({', '.join(map(self.text, args))})"
        return text, function(*map(_plain, args)), function(*map(_other, args))

    # --- conditions ----------------------------------------------------------------------------

    def _least(self, form: Form) -> int | None:
        """What a form is at least, where that is easily told."""
        if not form:
            return 0
        total, form = _parted(form)
        if len(form) > 1 and (common := self._common([m for m, _ in form])):
            inner = self._least(tuple(sorted([(_without(m, common) or (), k) for m, k in form])))
            if inner is None or inner < 0:
                return None
            return total + inner * math.prod([self._atoms[i].least or 0 for i in common])
        for monomial, k in form:
            for i in monomial:
                atom = self._atoms[i]
                bound = atom.least if k > 0 else atom.most
                if bound is None or atom.least is None or atom.least < 0:
                    return None
                k *= bound
            total += k
        return total

    def at_least(self, a: int, bound: int) -> bool:
        """Whether a number is known to be that large."""
        least = self._least(_form(a))
        return least is not None and least >= bound

    def positive(self, a: int) -> bool:
        """Whether a number is above 0: what follows holds where the answer is the same."""
        value = _value(a)
        if type(a) is not Symbolic:
            return value > 0
        least = self._least(a.form)
        if least is not None and least > 0:
            return True
        least = self._least(tuple([(m, -k) for m, k in a.form]))
        if least is not None and least >= 0:
            return False
        sign, factor, form, constant = self._reduced(a.form)
        # sign * factor * form + constant > 0, solved for the form.
        if sign > 0:
            edge = -constant // factor
        else:
            edge = -(-constant // factor) - 1
        if (value > 0) == (sign > 0):
            self._bound(form, edge + 1, None)
        else:
            self._bound(form, None, edge)
        return value > 0

    def _reduced(self, whole: Form) -> tuple[int, int, Form, int]:
        """`sign * factor * form + constant`, without atoms that are a factor of all."""
        constant, terms = _parted(whole)
        if not constant:
            common = self._common([m for m, _ in terms])
            parted = tuple(sorted([(_without(m, common) or (), k) for m, k in terms]))
            constant, terms = _parted(parted)
        factor = math.gcd(*[k for _, k in terms])
        sign = 1 if terms[0][1] > 0 else -1
        form = tuple([(m, k * sign // factor) for m, k in terms])
        return sign, factor, form, constant

    def _common(self, monomials: Sequence[Monomial]) -> Monomial:
        """The positive atoms that divide every monomial."""
        common = list(monomials[0])
        for monomial in monomials[1:]:
            left = list(monomial)
            kept = []
            for atom in common:
                if atom in left:
                    left.remove(atom)
                    kept.append(atom)
            common = kept
        return tuple([i for i in common if (self._atoms[i].least or 0) > 0])

    def _bound(self, form: Form, low: int | None, high: int | None) -> None:
        within = self._within.setdefault(form, [None, None])
        if low is not None:
            within[0] = low if within[0] is None else max(within[0], low)
        if high is not None:
            within[1] = high if within[1] is None else min(within[1], high)

    def equal(self, a: Symbolic, b: int) -> bool:
        """Whether two numbers are equal, and not by chance; if they are, that is a condition."""
        if a is b:
            return True
        difference = a - b
        if self.strict:
            if _value(a) == _value(b):
                self.require(difference)
                return True
            self.positive(difference if _value(difference) > 0 else -difference)
            return False
        if _value(a) != _value(b) or a.other != _other(b) or self._by_chance(difference):
            if type(b) is not Symbolic and b == 0 and _value(a) > 0 and not self._is_rest(a):
                # Extents of 0 are no coincidence: there is nothing to read then. That nothing is
                # left of a division is one.
                self.positive(a)
            return False
        self.require(difference)
        return True

    def _by_chance(self, difference: int) -> bool:
        return any(self._atoms[i].chance for monomial, _ in _form(difference) for i in monomial)

    def _is_rest(self, number: int) -> bool:
        form = _form(number)
        return len(form) == 1 and len(form[0][0]) == 1 and self._atoms[form[0][0][0]].rest

    def require(self, difference: int) -> None:
        """Makes it a condition that a number is 0, which it is."""
        if type(difference) is Symbolic:
            constant, terms = _parted(difference.form)
            factor = math.gcd(*[k for _, k in terms])
            sign = 1 if terms[0][1] > 0 else -1
            form = tuple([(m, k * sign // factor) for m, k in terms])
            self._bound(form, -constant * sign // factor, -constant * sign // factor)

    def fix(self, number: Symbolic) -> int:
        """A number that must be the same."""
        value = _value(number)
        self.require(number - value)
        return value

    # --- the function --------------------------------------------------------------------------

    def text(self, number: float) -> str:
        """A number as Python over the names of atoms."""
        if type(number) is Real:
            return number.text
        parts: list[str] = []
        for monomial, k in _form(number):
            factors = [f"a{i}" for i in monomial]
            if k != 1 or not factors:
                factors.append(str(k) if k >= 0 else f"({k})")
            parts.append("*".join(factors))
        return "+".join(parts) or "0"

    def _needs(self, numbers: Iterable[float]) -> tuple[int, ...]:
        found: set[int] = set()
        for x in numbers:
            if type(x) is Real:
                found.update(self._needs([n for n in x.needs if type(n) is Symbolic]))
            else:
                found.update([i for monomial, _ in _form(x) for i in monomial])
        return tuple(found)

    def compile(self, numbers: Any) -> Callable[[Sequence[float]], Any]:
        """A function from the symbols' values to the numbers', which are a list or a tuple of
        numbers and tuples, or to `None` where the conditions do not hold."""
        lines = [f"if {' or '.join(f'v[{i}] < {SMALLEST}' for i in self._extents)}:",
                 "    return None"] if self._extents else []  # fmt: skip
        done: set[int] = set()
        for i, given in self._given:
            lines += self._definitions(self._needs((given,)), done)
            lines += [f"if v[{i}] != {self.text(given)}:", "    return None"]
        for form, (low, high) in self._within.items():
            number = self.number(form)
            lines += self._definitions(self._needs((number,)), done)
            text = self.text(number)
            left = "" if low is None else f"{low} <= "
            right = "" if high is None else f" <= {high}"
            lines += [f"if not {left}{text}{right}:", "    return None"]
        names: dict[int, str] = {}
        result = self._listed(numbers, names, lines, done)
        lines.append(f"return {result}")
        source = "def evaluate(v):\n" + "\n".join([f"    {line}" for line in lines])
        scope: dict[str, Any] = {f"f{i}": f for i, f in enumerate(self._functions)}
        scope |= {"inf": math.inf, "nan": math.nan}
        exec(compile(source, "<sizes of a plan>", "exec"), scope)
        evaluate: Callable[[Sequence[float]], Any] = scope["evaluate"]
        return evaluate

    def _listed(self, tree: Any, names: dict[int, str], lines: list[str], done: set[int]) -> str:
        """Numbers as text; those with a formula are given names by lines before."""
        if type(tree) in (list, tuple):
            parts = [self._listed(each, names, lines, done) for each in tree]
            if type(tree) is list:
                return f"[{', '.join(parts)}]"
            return f"({''.join([f'{part}, ' for part in parts])})"
        if type(tree) not in (Symbolic, Real):
            return repr(tree)
        if id(tree) not in names:
            lines += self._definitions(self._needs((tree,)), done)
            names[id(tree)] = f"x{len(names)}"
            lines.append(f"{names[id(tree)]} = {self.text(tree)}")
        return names[id(tree)]

    def _definitions(self, atoms: Iterable[int], done: set[int]) -> list[str]:
        """The assignments of atoms not done yet, and of those that they need."""
        wanted: set[int] = set()
        stack = [i for i in atoms if i not in done]
        while stack:
            i = stack.pop()
            if i not in wanted and i not in done:
                wanted.add(i)
                stack += self._atoms[i].needs
        done |= wanted
        return [f"a{i} = {self._atoms[i].text}" for i in sorted(wanted)]

    def conditions(self) -> list[str]:
        """What was decided, as text."""
        return [
            f"{low if low is not None else ''} <= {self.text(self.number(form))} <= "
            f"{high if high is not None else ''}"
            for form, (low, high) in self._within.items()
        ]


def both(number: int) -> tuple[int, int]:
    """The value of a number, and what it would be for the second set of values."""
    return _value(number), _other(number)


def _form(a: Any) -> Form:
    if type(a) is Real:
        return ()
    if type(a) is Symbolic:
        return a.form
    return (((), a),) if a else ()


def _parted(form: Form) -> tuple[int, Form]:
    """The constant of a form, and the rest."""
    return (0, form) if form[0][0] else (form[0][1], form[1:])


def _plain(a: float) -> float:
    """The value of an argument, without its formula."""
    if type(a) is Real:
        return a.value
    return float(a) if isinstance(a, float) else _value(a)


def _value(a: Any) -> int:
    return a.value if type(a) is Symbolic else int.__index__(a)


def _other(a: Any) -> Any:
    return a.other if type(a) is Symbolic else _plain(a)


def _without(monomial: Monomial, factor: Monomial) -> Monomial | None:
    """A monomial divided by another, if it is a multiple."""
    left = list(monomial)
    for atom in factor:
        if atom not in left:
            return None
        left.remove(atom)
    return tuple(left)
