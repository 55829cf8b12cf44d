"""Random contractions in random layouts, and what NumPy says of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from contract_launch import Compiled, guarded

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.ir.contraction import Contraction, Operand
from treadle.ir.loop import Expr, Var

CLASSES = "bmnk"


@dataclass
class Ends:
    """An epilogue, and what NumPy says that it is."""

    extras: tuple[Operand, ...]
    out: tuple[Operand, ...]
    outputs: tuple[Expr, ...]
    numpy: Callable[..., Sequence[np.ndarray]]


def identity(dtype: DType, unit: str = "n") -> Ends:
    return Ends((), (Operand(dtype, unit),), (Var("acc", dtype),), lambda acc: [acc])


def contraction(
    dims: tuple[int, int, int, int],
    a: tuple[DType, str],
    b: tuple[DType, str],
    accumulator: DType,
    ends: Ends | None = None,
) -> Contraction:
    ends = ends or identity(accumulator)
    return Contraction(
        "test", dims, Operand(*a), Operand(*b), ends.extras, ends.out, accumulator, ends.outputs
    )


class Case:
    """Random operands in random layouts for one contraction, and the expected outputs."""

    def __init__(
        self, c: Contraction, extents: Sequence[int], seed: int, whole: bool = True
    ) -> None:
        self.c = c
        self.extents = tuple(extents)
        self.random = np.random.default_rng(seed)
        self.whole = whole
        self.kinds = "".join(k * n for k, n in zip(CLASSES, c.dims, strict=True))
        self.strides: list[tuple[int, ...]] = []
        self.views: list[np.ndarray] = []
        self.buffers: list[np.ndarray] = []
        for operand, along in (
            (c.a, "bmk"),
            (c.b, "bkn"),
            *((e, "bmn") for e in c.extras),
            *((o, "bmn") for o in c.out),
        ):
            self._operand(operand, along)

    @property
    def sizes(self) -> tuple[int, ...]:
        return (*self.extents, *itertools.chain(*self.strides))

    def _operand(self, operand: Operand, along: str) -> None:
        """Dimensions in random order in memory, the unit one last, with gaps between rows."""
        dims = [d for d, kind in enumerate(self.kinds) if kind in along]
        order = [int(d) for d in self.random.permutation(dims)]
        unit = [d for d in dims if self.kinds[d] == operand.unit]
        if unit:
            order.remove(unit[-1])
            order.append(unit[-1])
        elif operand.unit == "" and order and len(self.views) >= 2 + len(self.c.extras):
            order.append(-1)  # An output without unit stride: every second element.
        strides = [0] * len(self.kinds)
        step = 1
        for d in reversed(order):
            if d < 0:
                step *= 2
                continue
            strides[d] = step
            step = step * self.extents[d] + int(self.random.integers(0, 3)) * (step > 1)
        if (
            operand.unit in ("", "0")
            and len(self.views) >= 2
            and len(self.views) < 2 + len(self.c.extras)
        ):
            strides = [0 if kind == "n" else s for kind, s in zip(self.kinds, strides, strict=True)]
        self._add(operand, tuple(strides))

    def _add(self, operand: Operand, strides: tuple[int, ...]) -> None:
        reach = sum(s * (e - 1) for s, e in zip(strides, self.extents, strict=True) if e > 1)
        flat = self._numbers(operand.dtype, max(1, reach + 1))
        flat = guarded(flat)
        bytes_ = tuple(s * flat.itemsize for s in strides)
        self.strides.append(strides)
        self.buffers.append(flat)
        self.views.append(np.lib.stride_tricks.as_strided(flat, self.extents, bytes_))

    def _numbers(self, dtype: DType, count: int) -> np.ndarray:
        if dtype is dt.bool_:
            return self.random.integers(0, 2, count).astype(bool)
        if self.whole or dtype.kind != "f":
            low = 0 if dtype.kind == "u" else -3
            return self.random.integers(low, 4, count).astype(dtype.numpy)
        return self.random.standard_normal(count).astype(dtype.numpy)

    def expected(self, ends: Ends) -> list[np.ndarray]:
        """The flat buffers of the outputs as they should be afterwards."""
        wide = np.float64 if self.c.accumulator.kind == "f" else np.int64
        axes = tuple(d for d, kind in enumerate(self.kinds) if kind == "k")
        a, b = (v.astype(wide) for v in self.views[:2])
        acc = (a * b).sum(axis=axes, keepdims=True) if axes else a * b
        acc = acc.astype(self.c.accumulator.numpy)
        one_k = tuple(slice(0, 1) if kind == "k" else slice(None) for kind in self.kinds)
        # Along an empty k the operands addressed like the result have no element to show.
        extents = tuple(1 if k == "k" else e for k, e in zip(self.kinds, self.extents, strict=True))
        views = [np.lib.stride_tricks.as_strided(v, extents, v.strides) for v in self.views[2:]]
        extras = [v[one_k].copy() for v in views[: len(self.c.extras)]]
        results = ends.numpy(acc, *extras)
        flats = []
        for view, flat, result in zip(
            views[len(self.c.extras) :], self.buffers[2 + len(self.c.extras) :], results,
            strict=True,
        ):  # fmt: skip
            copy = flat.copy()
            target = np.lib.stride_tricks.as_strided(copy, extents, view.strides)
            target[...] = np.broadcast_to(result, extents).astype(copy.dtype)
            flats.append(copy)
        return flats

    @property
    def outputs(self) -> list[np.ndarray]:
        return self.buffers[2 + len(self.c.extras) :]


def check(code: Compiled, ends: Ends, extents: Sequence[int], seed: int) -> None:
    """Whole numbers make every order of summation exact: results must be equal."""
    case = Case(code.pattern, extents, seed)
    expected = case.expected(ends)
    code.bind(case.sizes, case.buffers).run()
    for got, want in zip(case.outputs, expected, strict=True):
        np.testing.assert_array_equal(got, want)
