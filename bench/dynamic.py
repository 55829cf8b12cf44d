"""A hundred shapes in a row: what a shape costs that was not seen before.

Each model is warmed up with a few shapes; then come 100 pairs of batch and length in a random
order. The first step of each pair is compared with later ones of the same pair, which have the
same arithmetic and nothing to plan. `python bench/dynamic.py` runs all models, with names those;
`--profile` shows where the time of new shapes goes.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from harness import alone, report

import treadle
import treadle.nn.functional as f
from treadle import nn
from treadle.codegen.compile import counts

Step = Callable[[int, int], float]
Shape = tuple[int, int]


class Case(NamedTuple):
    """A model, the shapes that warm it up, and the ranges of batch and length."""

    title: str
    make: Callable[[], Step]
    warm: list[Shape]
    batches: tuple[int, int]
    lengths: tuple[int, int]


def trainer(model: Any, optimizer: Any, batch_of: Any, loss_of: Any) -> Step:
    """A training step on random data of a batch and a length."""

    def step(n: int, length: int) -> float:
        x, y = (treadle.from_numpy(a) for a in batch_of(n, length))
        optimizer.zero_grad()
        loss = loss_of(x, y)
        loss.backward()
        optimizer.step()
        return float(loss.item())

    return step


def digits() -> Step:
    """The multilayer perceptron of the digit script."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return trainer(
        model, optimizer,
        lambda n, _: (rng.standard_normal((n, 784), dtype=np.float32), rng.integers(0, 10, n)),
        lambda x, y: f.cross_entropy(model(x), y),
    )  # fmt: skip


def pictures() -> Step:
    """Two convolutions with pooling and dropout; the length is the side of the picture."""
    rng = np.random.default_rng(0)
    model = nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.25), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10),
    )  # fmt: skip
    optimizer = treadle.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return trainer(
        model, optimizer,
        lambda n, side: (rng.standard_normal((n, 1, side, side), dtype=np.float32),
                         rng.integers(0, 10, n)),
        lambda x, y: f.cross_entropy(model(x), y),
    )  # fmt: skip


def gpt() -> Step:
    """4 layers, 4 heads, width 256, AdamW."""
    rng = np.random.default_rng(0)
    sizes = treadle.text.models.GPTConfig(128, 65, n_layer=4, n_head=4, n_embd=256)
    model = treadle.text.models.GPT(sizes)
    optimizer = treadle.optim.AdamW(model.parameters(), lr=1e-3)
    return trainer(
        model, optimizer,
        lambda n, length: rng.integers(0, 65, (2, n, length)), lambda x, y: model(x, y)[1],
    )  # fmt: skip


class Classifier(nn.Module):
    """An embedding, one encoder layer, and the mean over the words."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 128)
        self.encoder = nn.TransformerEncoderLayer(128, 4, 256, 0.1, batch_first=True)
        self.out = nn.Linear(128, 4)

    def forward(self, words: Any) -> Any:
        """The scores of a batch of texts."""
        return self.out(self.encoder(self.embedding(words)).mean(1))


def texts() -> Step:
    """A classifier of texts with attention, Adam."""
    rng = np.random.default_rng(0)
    model = Classifier()
    optimizer = treadle.optim.Adam(model.parameters(), lr=1e-3)
    return trainer(
        model, optimizer,
        lambda n, length: (rng.integers(0, 1000, (n, length)), rng.integers(0, 4, n)),
        lambda x, y: f.cross_entropy(model(x), y),
    )  # fmt: skip


def cache() -> Step:
    """One token of a layer of attention over the keys and values of all tokens before it."""
    rng = np.random.default_rng(0)
    width, heads = 256, 4
    project, out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def step(n: int, length: int) -> float:
        with treadle.no_grad():
            past = [
                treadle.from_numpy(rng.standard_normal((n, heads, length, 64), dtype=np.float32))
                for _ in range(2)
            ]
            x = treadle.from_numpy(rng.standard_normal((n, 1, width), dtype=np.float32))
            parts = project(x).reshape(n, 1, 3, heads, 64).permute(2, 0, 3, 1, 4)
            keys = treadle.cat([past[0], parts[1]], 2)
            values = treadle.cat([past[1], parts[2]], 2)
            mixed = f.scaled_dot_product_attention(parts[0], keys, values)
            return float(out(mixed.transpose(1, 2).reshape(n, 1, width)).sum().item())

    return step


CASES = {
    "digits": Case("multilayer perceptron", digits, [(64, 0), (50, 0), (9, 0)], (2, 128), (0, 0)),
    "pictures": Case(
        "small convolutional net", pictures, [(n, 28) for n in (16, 5, 9, 3, 30, 20)],
        (2, 128), (28, 28),
    ),
    "texts": Case(
        "embedding and attention", texts, [(16, 40), (7, 9), (25, 60), (3, 50), (30, 11)],
        (2, 32), (4, 64),
    ),
    "gpt": Case(
        "GPT, 4 layers, width 256", gpt, [(8, 64), (4, 33), (2, 9), (12, 100), (3, 50), (5, 120)],
        (2, 12), (8, 128),
    ),
    "cache": Case(
        "one token with a growing cache", cache, [(2, 8), (2, 9), (2, 10), (2, 100)],
        (2, 2), (11, 110),
    ),
}  # fmt: skip


def shapes_of(case: Case, count: int) -> list[Shape]:
    """Pairs in a random order; a cache grows by one token at a time."""
    (low, high), (short, long) = case.batches, case.lengths
    if low == high:
        return [(low, short + i) for i in range(count)]
    rng = np.random.default_rng(1)
    pairs = {
        (int(rng.integers(low, high + 1)), int(rng.integers(short, long + 1)))
        for _ in range(4 * count)
    } - set(case.warm)
    ordered = sorted(pairs)
    rng.shuffle(ordered)
    return [(n, length) for n, length in ordered[:count]]


def timed(step: Step, shape: Shape) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    step(*shape)
    return time.perf_counter() - start


def run(case: Case, count: int, again: int) -> None:
    """Prints and notes what new shapes cost."""
    step = case.make()
    for shape in case.warm:
        for _ in range(3):
            step(*shape)
    before = counts.compiled
    first, later = [], []
    for shape in shapes_of(case, count):
        first.append(timed(step, shape))
        step(*shape)
        later.append(median(timed(step, shape) for _ in range(again)))
    ratios = sorted(a / b for a, b in zip(first, later, strict=True))
    extra = sorted(1e3 * (a - b) for a, b in zip(first, later, strict=True))
    at = min(len(ratios) - 1, int(0.95 * len(ratios)))
    print(
        f"{case.title}: {len(first)} shapes, {counts.compiled - before} kernels compiled after "
        f"warm-up\n  a new shape takes {median(ratios):.2f}x of a known one (95 %: "
        f"{ratios[at]:.2f}x, worst {ratios[-1]:.2f}x), {median(extra):.2f} ms more (95 %: "
        f"{extra[at]:.2f} ms)"
    )
    report(
        f"{case.title}, new shapes", {"treadle": median(first), "known shapes": median(later)},
        bar="<= 1.3x known shapes, nothing compiled",
    )  # fmt: skip


def profile(case: Case, count: int) -> None:
    """Prints where the time of new shapes goes."""
    step = case.make()
    for shape in case.warm:
        for _ in range(3):
            step(*shape)
    profiler = cProfile.Profile()
    for shape in shapes_of(case, count):
        profiler.runcall(step, *shape)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(40)


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--again", type=int, default=3)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    for name in options.names:
        if options.profile:
            profile(CASES[name], options.count)
        else:
            with alone():
                run(CASES[name], options.count, options.again)


if __name__ == "__main__":
    main()
