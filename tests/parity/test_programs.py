"""Random programs of a user: views, writes through them, reads in between, gradients.

Each program runs in PyTorch and in treadle on several sizes of a batch, so that the later ones are
recorded and planned from what the earlier ones left. Where PyTorch refuses a program, because it
changes what a gradient needs, there is nothing to compare: treadle keeps the old value.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

import treadle

torch = pytest.importorskip("torch")

BATCHES = (3, 1, 7, 16)
Shape = tuple[int, ...]
Library = Any


class Instruction(NamedTuple):
    """What is done: a function of a library and the values so far, which it may add to."""

    name: str
    run: Callable[[Library, list[Any]], None]


class Program:
    """Instructions that suit the shapes of the values before them."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        # Extents of 3 stand for the batch: no other extent is 3.
        self.shapes: list[Shape] = [(3, 4), (3, 4), (4, 6), (4,)]
        self.instructions: list[Instruction] = []
        for _ in range(self.rng.randrange(4, 25)):
            getattr(self, self.rng.choice(KINDS))()
        last = len(self.shapes) - 1
        self.read = sorted({last, *(self.rng.randrange(last + 1) for _ in range(3))})

    def some(self) -> tuple[int, Shape]:
        """A value made so far."""
        i = self.rng.randrange(len(self.shapes))
        return i, self.shapes[i]

    def alike(self, shape: Shape) -> int:
        """A value of a shape that there is."""
        return self.rng.choice([i for i, s in enumerate(self.shapes) if s == shape])

    def axis(self, shape: Shape, least: int = 1) -> int | None:
        """An axis, not the batch where it is to have at least so many elements."""
        fit = [d for d, n in enumerate(shape) if least == 1 or (n >= least and n != 3)]
        return self.rng.choice(fit) if fit else None

    def add(self, name: str, run: Callable[[Library, list[Any]], Any], *shapes: Shape) -> None:
        """An instruction, and the shapes of the values that it gives."""

        def step(lib: Library, values: list[Any]) -> None:
            made = run(lib, values)
            if shapes:
                values += made if len(shapes) > 1 else [made]

        self.shapes += shapes
        self.instructions.append(Instruction(name, step))

    def unary(self) -> None:
        i, shape = self.some()
        name = self.rng.choice(["tanh", "sigmoid", "relu", "abs", "neg", "sin", "erf"])
        self.add(name, lambda lib, v: getattr(lib, name)(v[i]), shape)

    def binary(self) -> None:
        i, shape = self.some()
        j, name = self.alike(shape), self.rng.choice(["add", "sub", "mul", "maximum"])
        self.add(name, lambda lib, v: getattr(lib, name)(v[i], v[j]), shape)

    def number(self) -> None:
        i, shape = self.some()
        factor = self.rng.choice([-1.5, 0.3, 2.0])
        self.add("number", lambda lib, v: factor - v[i] * factor, shape)

    def reduction(self) -> None:
        i, shape = self.some()
        d, keep = self.axis(shape), self.rng.random() < 0.5
        name = self.rng.choice(["sum", "mean", "amax", "logsumexp"])
        if d is not None:
            rest = shape[:d] + ((1,) if keep else ()) + shape[d + 1 :]
            self.add(name, lambda lib, v: getattr(lib, name)(v[i], dim=d, keepdim=keep), rest)

    def product(self) -> None:
        i, shape = self.some()
        fit = [
            j for j, s in enumerate(self.shapes) if len(shape) == len(s) == 2 and s[0] == shape[1]
        ]
        if fit:
            j = self.rng.choice(fit)
            self.add("matmul", lambda lib, v: v[i] @ v[j], (shape[0], self.shapes[j][1]))

    def softmax(self) -> None:
        i, shape = self.some()
        d = self.axis(shape)
        if d is not None:
            self.add("softmax", lambda lib, v: v[i].softmax(d), shape)

    def cumulation(self) -> None:
        i, shape = self.some()
        d = self.axis(shape)
        if d is not None:
            self.add("cumsum", lambda lib, v: v[i].cumsum(d), shape)

    def stack(self) -> None:
        i, shape = self.some()
        j, d = self.alike(shape), self.rng.randrange(len(shape) + 1)
        if len(shape) < 4:
            self.add(
                "stack", lambda lib, v: lib.stack([v[i], v[j]], d), (*shape[:d], 2, *shape[d:])
            )

    def lookup(self) -> None:
        i, shape = self.some()
        d = self.axis(shape, 2)
        if d is not None:
            at = [self.rng.randrange(shape[d]) for _ in range(5)]
            self.add(
                "index_select", lambda lib, v: v[i].index_select(d, lib.tensor(at)),
                (*shape[:d], 5, *shape[d + 1 :]),
            )  # fmt: skip

    def transposition(self) -> None:
        i, shape = self.some()
        if len(shape) > 1:
            a, b = self.rng.sample(range(len(shape)), 2)
            turned = list(shape)
            turned[a], turned[b] = turned[b], turned[a]
            self.add("transpose", lambda lib, v: v[i].transpose(a, b), tuple(turned))

    def part(self) -> None:
        i, shape = self.some()
        d = self.axis(shape, 2)
        if d is not None:
            at = (slice(None),) * d + (slice(self.rng.randrange(2), None, 2),)
            left = len(range(shape[d])[at[-1]])
            if left != 3:
                self.add("part", lambda lib, v: v[i][at], (*shape[:d], left, *shape[d + 1 :]))

    def copy(self) -> None:
        i, shape = self.some()
        name = self.rng.choice(["clone", "detach"])
        self.add(name, lambda lib, v: getattr(v[i], name)(), shape)

    def write(self) -> None:
        i, shape = self.some()
        j, name = self.alike(shape), self.rng.choice(["add_", "mul_", "sub_"])
        self.add(name, lambda lib, v: getattr(v[i], name)(v[j].clone()))

    def fill(self) -> None:
        i, _ = self.some()
        name = self.rng.choice(["zero_", "tanh_", "neg_"])
        self.add(name, lambda lib, v: getattr(v[i], name)())

    def write_part(self) -> None:
        i, shape = self.some()
        d = self.axis(shape, 2)
        if d is not None:
            at = (slice(None),) * d + (self.rng.randrange(shape[d]),)
            rest = shape[:d] + shape[d + 1 :]
            fit = [j for j, s in enumerate(self.shapes) if s == rest]
            j = self.rng.choice(fit) if fit else None
            self.add(
                "setitem",
                lambda lib, v: v[i].__setitem__(at, 0.25 if j is None else v[j].clone()),
            )

    def look(self) -> None:
        i, _ = self.some()
        self.add("item", lambda lib, v: v[i].detach().sum().item())

    def look_quietly(self) -> None:
        i, _ = self.some()

        def run(lib: Library, v: list[Any]) -> None:
            with lib.no_grad():
                v[i].sum().item()

        self.add("no_grad", run)

    def run(self, lib: Library, given: list[np.ndarray], grad: bool) -> list[np.ndarray]:
        """The values that are read, and the gradients of the given ones."""
        leaves = [lib.from_numpy(a.copy()).requires_grad_(grad) for a in given]
        values = [leaf * 1.0 for leaf in leaves]
        for instruction in self.instructions:
            instruction.run(lib, values)
        read = [values[i] for i in self.read]
        roots = [x.tanh().sum() for x in read if x.requires_grad]
        if roots:
            sum(roots[1:], roots[0]).backward()
        # A gradient of zeros may be no gradient at all, where a value was written over.
        gradients = [
            np.zeros_like(a) if leaf.grad is None else leaf.grad.numpy()
            for leaf, a in zip(leaves, given, strict=True)
        ]
        return [x.detach().numpy() for x in read] + gradients


KINDS = [
    name
    for name, value in vars(Program).items()
    if callable(value) and name not in ("__init__", "some", "alike", "axis", "add", "run")
    and not name.startswith("__")
]  # fmt: skip


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_a_program_gives_what_pytorch_gives(seed: int, grad: bool) -> None:
    program = Program(seed)
    names = " ".join(i.name for i in program.instructions)
    for batch in BATCHES:
        rng = np.random.default_rng(seed)
        shapes = ((batch, 4), (batch, 4), (4, 6), (4,))
        given = [rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
        try:
            expected = program.run(torch, given, grad)
        except RuntimeError as error:
            pytest.skip(f"PyTorch refuses it: {str(error)[:60]}")
        for got, want in zip(program.run(treadle, given, grad), expected, strict=True):
            if np.isfinite(want).all():
                atol = 1e-4 * max(1.0, float(np.abs(want).max(initial=0)))
                np.testing.assert_allclose(got, want, rtol=1e-4, atol=atol, err_msg=names)
