"""Convolutions that may go by transformed tiles, with what they give in double precision."""

from __future__ import annotations

from typing import Any

import numpy as np
from contract_launch import guarded

from treadle.base.dtype import DType
from treadle.ir.contraction import Contraction, Operand
from treadle.ir.loop import Binary, Unary, Var


def strided(array: np.ndarray, *axes: int) -> list[int]:
    """Strides in elements along some axes, 0 for the axis -1."""
    return [array.strides[a] // array.itemsize if a >= 0 else 0 for a in axes]


def epilogue(dtype: DType) -> tuple[Any, ...]:
    """`acc + e0` and `-acc`."""
    acc = Var("acc", dtype)
    return Binary("add", acc, Var("e0", dtype)), Unary("neg", acc)


def numbers(seed: int, *shape: int, dtype: DType) -> np.ndarray:
    values = np.random.default_rng(seed).standard_normal(shape).astype(dtype.numpy)
    return guarded(values).reshape(shape)


def windows(x: np.ndarray) -> np.ndarray:
    """(n, y, x, 3, 3, c) of an image (n, y, x, c)."""
    wide = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    return wide.transpose(0, 1, 2, 4, 5, 3).astype(np.float64)


def pair(strides: list[int]) -> list[int]:
    """The strides of (n, y, x) as those of (n, y / 2, x / 2, 2, 2)."""
    n, y, x = strides
    return [n, 2 * y, 2 * x, y, x]


class Data:
    """An image, filters, and the pixels of the result."""

    kind = "data"

    def __init__(self, shape: tuple[int, ...], dtype: DType, unit: str) -> None:
        n, h, w, c, o = shape
        x = numbers(0, n, h + 2, w + 2, c, dtype=dtype)
        if self.kind == "dilated":
            x[:, ::2], x[:, :, ::2] = 0, 0
        order = (2, 3, 1, 0) if unit == "n" else (0, 1, 2, 3)
        weight = numbers(1, *[(o, c, 3, 3)[d] for d in order], dtype=dtype)
        extra, out = numbers(2, o, dtype=dtype), numbers(3, n, h, w, o, dtype=dtype)
        second = numbers(3, n, o, h, w, dtype=dtype)
        f = [order.index(d) for d in (0, 2, 3, 1)]
        kind = Operand(dtype, "n")
        self.pattern = Contraction(
            "test", (0, 5, 1, 3), Operand(dtype, "k"), Operand(dtype, unit), (kind,),
            (kind, Operand(dtype, "")), dtype, epilogue(dtype), self.kind,
        )  # fmt: skip
        nothing = [0] * 5
        self.sizes = [n, h // 2, w // 2, 2, 2, o, 3, 3, c]
        self.sizes += [*pair(strided(x, 0, 1, 2)), 0, *strided(x, 1, 2, 3)]
        self.sizes += [*nothing, *strided(weight, *f)]
        self.sizes += [*nothing, 1, 0, 0, 0]
        self.sizes += [*pair(strided(out, 0, 1, 2)), 1, 0, 0, 0]
        self.sizes += [*pair(strided(second, 0, 2, 3)), *strided(second, 1), 0, 0, 0]
        self.buffers = [x, weight, extra, out, second]
        plain = weight.transpose(*[order.index(d) for d in range(4)]).astype(np.float64)
        acc = np.einsum("nyxpqc,ocpq->nyxo", windows(x), plain)
        self.expected = [acc + extra, -acc.transpose(0, 3, 1, 2)]


class Dilated(Data):
    """An image whose even rows and columns are zero."""

    kind = "dilated"


class Filter:
    """An image, a gradient of pixels, and the gradient of the filters."""

    def __init__(self, shape: tuple[int, ...], dtype: DType, _: str) -> None:
        n, h, w, c, o = shape
        x, g = numbers(0, n, h + 2, w + 2, c, dtype=dtype), numbers(1, n, h, w, o, dtype=dtype)
        extra, out, second = (numbers(2 + i, o, c, 3, 3, dtype=dtype) for i in range(3))
        kind = Operand(dtype, "n")
        self.pattern = Contraction(
            "test", (0, 1, 3, 5), Operand(dtype, "m"), Operand(dtype, ""), (kind,), (kind, kind),
            dtype, epilogue(dtype), "filter",
        )  # fmt: skip
        self.sizes = [o, c, 3, 3, n, h // 2, w // 2, 2, 2]
        self.sizes += [*strided(g, 3), 0, 0, 0, *pair(strided(g, 0, 1, 2))]
        self.sizes += [0, *strided(x, 3, 1, 2), *pair(strided(x, 0, 1, 2))]
        for each in (extra, out, second):
            self.sizes += [*strided(each, 0, 1, 2, 3), 0, 0, 0, 0, 0]
        self.buffers = [g, x, extra, out, second]
        acc = np.einsum("nyxpqc,nyxo->ocpq", windows(x), g.astype(np.float64))
        self.expected = [acc + extra, -acc]
