"""Index arithmetic: sums of `coefficient * atom`, with intervals, kept in one normal form.

An atom is a loop variable, or what does not come apart: `e // n`, `e % n`, `min(e, n)`,
`max(e, n)`, or a value read from memory. Knowing the interval of every atom lets `(i*b + j) // b`
become `i`, guards that always hold vanish, and `e // n * n + e % n` become `e` again, so a chain
of reshapes ends as the plain address that it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.ir.loop import Expr

FAR = 2**62


class Atom:
    """What a sum is made of. `kind` is var, div, mod, min, max or value; equal only to itself."""

    __slots__ = ("arg", "hi", "kind", "lo", "mask", "n", "number")

    def __init__(
        self, number: int, kind: str, lo: int, hi: int, mask: int, arg: Any = None, n: int = 0
    ) -> None:
        self.number = number
        self.kind = kind
        self.lo = lo
        self.hi = hi
        self.mask = mask
        self.arg = arg
        self.n = n

    def __repr__(self) -> str:
        return f"d{self.number}" if self.kind == "var" else f"{self.kind}({self.arg!r}, {self.n})"


Terms = tuple[tuple[Atom, int], ...]


class Affine(Expr):
    """`const + sum of coefficient * atom`, within `[lo, hi]`; interned, so equal means identical.

    `mask` has the bit of every variable that the value depends on.
    """

    __slots__ = ("const", "hi", "lo", "mask", "terms")
    dtype: ClassVar[DType] = dt.int64  # type: ignore[misc]

    def __init__(self, terms: Terms, const: int) -> None:
        self.terms = terms
        self.const = const
        lo = hi = const
        mask = 0
        for atom, k in terms:
            mask |= atom.mask
            if k > 0:
                lo += k * atom.lo
                hi += k * atom.hi
            else:
                lo += k * atom.hi
                hi += k * atom.lo
        self.lo = lo
        self.hi = hi
        self.mask = mask

    def __repr__(self) -> str:
        parts = [f"{k}*{atom!r}" if k != 1 else repr(atom) for atom, k in self.terms]
        return " + ".join([*parts, str(self.const)] if self.const or not parts else parts)

    def coefficient(self, atom: Atom) -> int:
        """What multiplies an atom."""
        for found, k in self.terms:
            if found is atom:
                return k
        return 0

    @property
    def single(self) -> Atom | None:
        """The variable that this index is, and nothing else."""
        if self.const == 0 and len(self.terms) == 1:
            atom, k = self.terms[0]
            if k == 1 and atom.kind == "var":
                return atom
        return None

    @property
    def is_linear(self) -> bool:
        """Whether every atom is a loop variable."""
        return all(atom.kind == "var" for atom, _ in self.terms)


class Space:
    """The loop variables of one kernel, and every index made of them."""

    def __init__(self) -> None:
        self._affines: dict[tuple[Terms, int], Affine] = {}
        self._atoms: dict[tuple[Any, ...], Atom] = {}
        self._count = 0
        self._bits = 0
        self.zero = self.const(0)

    def _atom(self, kind: str, lo: int, hi: int, mask: int, arg: Any, n: int) -> Atom:
        key = (kind, arg, n)
        atom = self._atoms.get(key)
        if atom is None:
            self._count += 1
            atom = self._atoms[key] = Atom(self._count, kind, lo, hi, mask, arg, n)
        return atom

    def make(self, terms: Terms, const: int) -> Affine:
        """The one object of a sum whose terms are sorted and have no zero coefficient."""
        key = (terms, const)
        found = self._affines.get(key)
        if found is None:
            found = self._affines[key] = Affine(terms, const)
        return found

    def const(self, value: int) -> Affine:
        """A number."""
        return self.make((), value)

    def var(self, extent: int) -> Affine:
        """A fresh variable over `0 .. extent-1`; the number 0 where that is all it can be."""
        if extent == 1:
            return self.zero
        self._count += 1
        atom = Atom(self._count, "var", 0, max(extent - 1, 0), 1 << self._bits)
        self._bits += 1
        return self.make(((atom, 1),), 0)

    def opaque(self, value: Any, lo: int, hi: int, mask: int = 0) -> Affine:
        """A value of the kernel used as an index."""
        return self.make(((self._atom("value", lo, hi, mask, value, 0), 1),), 0)

    def _sum(self, terms: dict[Atom, int], const: int) -> Affine:
        for atom in terms:
            if atom.kind == "mod":
                const = self._recombine(terms, const)
                break
        if len(terms) > 1:
            items = sorted(terms.items(), key=_number)
        else:
            items = list(terms.items())
        return self.make(tuple([item for item in items if item[1]]), const)

    def _recombine(self, terms: dict[Atom, int], const: int) -> int:
        """Replaces `k*n * (e // n) + k * (e % n)` by `k * e` wherever both are there."""
        again = True
        while again:
            again = False
            for atom, k in list(terms.items()):
                if atom.kind != "mod" or k == 0:
                    continue
                quotient = self.floordiv(atom.arg, atom.n)
                if len(quotient.terms) != 1 or quotient.terms[0][1] != 1:
                    continue
                partner = quotient.terms[0][0]
                if terms.get(partner, 0) != k * atom.n:
                    continue
                del terms[atom], terms[partner]
                const += k * (atom.arg.const - atom.n * quotient.const)
                for inner, c in atom.arg.terms:
                    terms[inner] = terms.get(inner, 0) + k * c
                again = True
                break
        return const

    def add(self, a: Affine, b: Affine) -> Affine:
        """`a + b`"""
        if not b.terms:
            return a if b.const == 0 else self.make(a.terms, a.const + b.const)
        if not a.terms:
            return b if a.const == 0 else self.make(b.terms, a.const + b.const)
        terms = dict(a.terms)
        for atom, k in b.terms:
            terms[atom] = terms.get(atom, 0) + k
        return self._sum(terms, a.const + b.const)

    def scale(self, a: Affine, k: int) -> Affine:
        """`a * k`"""
        if k == 1:
            return a
        if k == 0:
            return self.zero
        return self.make(tuple([(atom, c * k) for atom, c in a.terms]), a.const * k)

    def dot(self, index: Sequence[Affine], strides: Sequence[int]) -> Affine:
        """The address of an index: the sum of `index * stride`."""
        terms: dict[Atom, int] = {}
        const = 0
        for a, stride in zip(index, strides, strict=True):
            const += a.const * stride
            for atom, k in a.terms:
                terms[atom] = terms.get(atom, 0) + k * stride
        return self._sum(terms, const)

    def _split(self, a: Affine, n: int) -> tuple[Affine, Affine]:
        """`a = n * q + r` where `r` keeps what is no multiple of `n`."""
        whole = tuple([(atom, k // n) for atom, k in a.terms if k % n == 0])
        rest = tuple([(atom, k) for atom, k in a.terms if k % n])
        return self.make(whole, a.const // n), self.make(rest, a.const % n)

    def floordiv(self, a: Affine, n: int) -> Affine:
        """`floor(a / n)` for a positive `n`"""
        if n == 1:
            return a
        q, r = self._split(a, n)
        if r.lo >= 0 and r.hi < n:
            return q
        low, high = r.lo // n, r.hi // n
        if low == high:
            return self.add(q, self.const(low))
        if len(r.terms) == 1 and r.const == 0 and r.terms[0][1] == 1:
            atom = r.terms[0][0]
            if atom.kind == "div":
                return self.add(q, self.floordiv(atom.arg, atom.n * n))
        atom = self._atom("div", low, high, r.mask, r, n)
        return self.add(q, self.make(((atom, 1),), 0))

    def mod(self, a: Affine, n: int) -> Affine:
        """`a - n * floor(a / n)` for a positive `n`"""
        if n == 1:
            return self.zero
        _, r = self._split(a, n)
        low = r.lo // n
        if low == r.hi // n:
            return self.add(r, self.const(-low * n))
        if len(r.terms) == 1 and r.const == 0 and r.terms[0][1] == 1:
            atom = r.terms[0][0]
            if atom.kind == "mod" and atom.n % n == 0:
                return self.mod(atom.arg, n)
        return self.make(((self._atom("mod", 0, n - 1, r.mask, r, n), 1),), 0)

    def minimum(self, a: Affine, n: int) -> Affine:
        """`min(a, n)` for a number `n`"""
        if a.hi <= n:
            return a
        if a.lo >= n:
            return self.const(n)
        return self.make(((self._atom("min", a.lo, n, a.mask, a, n), 1),), 0)

    def maximum(self, a: Affine, n: int) -> Affine:
        """`max(a, n)` for a number `n`"""
        if a.lo >= n:
            return a
        if a.hi <= n:
            return self.const(n)
        return self.make(((self._atom("max", n, a.hi, a.mask, a, n), 1),), 0)

    def unflatten(self, flat: Affine, shape: Sequence[int]) -> tuple[Affine, ...]:
        """The index of a row-major position."""
        out: list[Affine] = []
        for extent in reversed(shape[1:]):
            out.append(self.mod(flat, extent))
            flat = self.floordiv(flat, extent)
        if shape:
            out.append(flat if shape[0] != 1 else self.zero)
        return tuple(reversed(out))


def _number(item: tuple[Atom, int]) -> int:
    return item[0].number


def atoms_of(a: Affine) -> list[Atom]:
    """Every atom of an index, also those inside of others."""
    found: list[Atom] = []
    stack = [a]
    while stack:
        for atom, _ in stack.pop().terms:
            found.append(atom)
            if isinstance(atom.arg, Affine):
                stack.append(atom.arg)
    return found
