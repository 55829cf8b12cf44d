"""Training steps and inference of ResNet-18, GPT and an LSTM: treadle, PyTorch, torch.compile.

`python bench/models.py` times all; with names it times those. `--profile` shows where a step's
time goes instead, `--first` how long the first step of a fresh process takes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from harness import alone, compare, compiled_or_none, report, torch_or_none

Run = Callable[[], Any]


class Workload(NamedTuple):
    """A model of one library, ready to be run."""

    step: Run
    infer: Run


class Case(NamedTuple):
    """A model in both libraries, and what is to be reached."""

    title: str
    make: Callable[[Any, Any], Workload]
    ours: Callable[[], Any]
    theirs: Callable[[Any], Any]
    bars: tuple[str, str]


def workload(library: Any, model: Any, optimizer: Any, loss_of: Run, scores_of: Run) -> Workload:
    """A training step and an inference of a model, under PyTorch's names."""

    def step() -> Any:
        model.train()
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss

    def infer() -> Any:
        model.eval()
        with library.no_grad():
            return scores_of().numpy()

    return Workload(step, infer)


def resnet(library: Any, model: Any) -> Workload:
    """Batch 32 of 3 × 32 × 32, SGD with momentum."""
    rng = np.random.default_rng(0)
    x = library.from_numpy(rng.standard_normal((32, 3, 32, 32), dtype=np.float32))
    y = library.from_numpy(rng.integers(0, 1000, 32))
    optimizer = library.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loss = library.nn.functional.cross_entropy
    return workload(library, model, optimizer, lambda: loss(model(x), y), lambda: model(x))


def gpt(library: Any, model: Any) -> Workload:
    """Batch 16 of 128 tokens, AdamW."""
    rng = np.random.default_rng(0)
    x, y = (library.from_numpy(rng.integers(0, 65, (16, 128))) for _ in range(2))
    optimizer = library.optim.AdamW(model.parameters(), lr=1e-3)
    return workload(library, model, optimizer, lambda: model(x, y)[1], lambda: model(x, y)[0])


def lstm(library: Any, model: Any) -> Workload:
    """Batch 32 of 64 steps of 64 features, Adam."""
    rng = np.random.default_rng(0)
    x = library.from_numpy(rng.standard_normal((64, 32, 64), dtype=np.float32))
    y = library.from_numpy(rng.standard_normal((64, 32, 256), dtype=np.float32))
    optimizer = library.optim.Adam(model.parameters(), lr=1e-3)
    loss = library.nn.functional.mse_loss
    return workload(library, model, optimizer, lambda: loss(model(x)[0], y), lambda: model(x)[0])


def our_resnet() -> Any:
    """ResNet-18 with the stem for small images: 3 x 3 by single pixels, no pooling."""
    import treadle

    model = treadle.vision.models.resnet18()
    model.conv1 = treadle.nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = treadle.nn.Identity()
    return model


def our_gpt() -> Any:
    """4 blocks of 4 heads and 256 features."""
    import treadle

    sizes = treadle.text.models.GPTConfig(128, 65, n_layer=4, n_head=4, n_embd=256)
    return treadle.text.models.GPT(sizes)


def our_lstm() -> Any:
    """2 layers of 256 features."""
    import treadle

    return treadle.nn.LSTM(64, 256, 2)


def their_resnet(torch: Any) -> Any:
    """ResNet-18, as torchvision builds it but for the stem."""
    nn = torch.nn

    class Block(nn.Module):
        def __init__(self, a: int, b: int, stride: int) -> None:
            super().__init__()
            self.f = nn.Sequential(
                nn.Conv2d(a, b, 3, stride, 1, bias=False), nn.BatchNorm2d(b),
                nn.ReLU(inplace=True), nn.Conv2d(b, b, 3, 1, 1, bias=False), nn.BatchNorm2d(b),
            )  # fmt: skip
            self.way = nn.Sequential()
            if stride != 1 or a != b:
                self.way = nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: Any) -> Any:
            return self.relu(self.f(x) + self.way(x))

    widths, blocks = (64, 64, 128, 256, 512), []
    for i in range(4):
        blocks += [Block(widths[i], widths[i + 1], min(i + 1, 2))]
        blocks += [Block(widths[i + 1], widths[i + 1], 1)]
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True),
        *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000),
    )  # fmt: skip


def their_gpt(torch: Any) -> Any:
    """GPT, as nanoGPT builds it."""
    nn, f = torch.nn, torch.nn.functional

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ln_1, self.ln_2 = nn.LayerNorm(256), nn.LayerNorm(256)
            self.qkv, self.out = nn.Linear(256, 768), nn.Linear(256, 256)
            self.mlp = nn.Sequential(nn.Linear(256, 1024), nn.GELU(), nn.Linear(1024, 256))

        def forward(self, x: Any) -> Any:
            parts = self.qkv(self.ln_1(x)).split(256, 2)
            q, k, v = (p.unflatten(2, (4, 64)).transpose(1, 2) for p in parts)
            y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).flatten(2))
            return x + self.mlp(self.ln_2(x))

    class GPT(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wte, self.wpe = nn.Embedding(65, 256), nn.Embedding(128, 256)
            self.h = nn.Sequential(*(Block() for _ in range(4)))
            self.ln_f, self.head = nn.LayerNorm(256), nn.Linear(256, 65, bias=False)
            self.head.weight = self.wte.weight
            nn.init.normal_(self.wte.weight, std=0.02)

        def forward(self, x: Any, y: Any) -> Any:
            x = self.h(self.wte(x) + self.wpe(torch.arange(x.shape[1])))
            scores = self.head(self.ln_f(x))
            return scores, f.cross_entropy(scores.flatten(0, 1), y.flatten())

    return GPT()


CASES = {
    "resnet": Case(
        "ResNet-18, 3x32x32, batch 32", resnet, our_resnet, their_resnet,
        ("<= 0.55 s where PyTorch takes 0.608", "<= 0.16 s where PyTorch compiled takes 0.168"),
    ),
    "gpt": Case(
        "GPT, 4 layers, width 256, sequence 128, batch 16", gpt, our_gpt, their_gpt,
        ("<= 0.21 s where PyTorch takes 0.32", "<= 0.07 s where PyTorch takes 0.092"),
    ),
    "lstm": Case(
        "LSTM, 2 layers, hidden 256, sequence 64, batch 32", lstm, our_lstm,
        lambda torch: torch.nn.LSTM(64, 256, 2),
        ("<= 0.055 s where PyTorch compiled takes 0.083", "none"),
    ),
}  # fmt: skip

FIRST = """
import sys, time
sys.path.insert(0, {folder!r})
import treadle, treadle.nn, treadle.optim, treadle.vision, treadle.text
import models
start = time.perf_counter()
case = models.CASES[{name!r}]
case.make(treadle, case.ours()).step().item()
print(time.perf_counter() - start)
"""


def sides_of(case: Case) -> dict[str, Workload]:
    """The model in every library that is here, after a first step and inference of each."""
    import treadle

    sides = {"treadle": case.make(treadle, case.ours())}
    torch = torch_or_none()
    if torch is not None:
        sides["PyTorch eager"] = case.make(torch, case.theirs(torch))
        compiled = compiled_or_none(torch, case.theirs(torch))
        if compiled is not None:
            sides["PyTorch compiled"] = case.make(torch, compiled)
    for side in sides.values():
        side.step()
        side.infer()
    return sides


def time_case(case: Case, rounds: int) -> None:
    """Prints and notes the medians of all libraries."""
    sides = sides_of(case)
    with alone():
        for what, bar in zip(("step", "infer"), case.bars, strict=True):
            runs = {name: getattr(side, what) for name, side in sides.items()}
            seconds = compare(runs, rounds=rounds, warm=1, settle=0.02)
            name = "one training step" if what == "step" else "inference"
            report(f"{case.title}, {name}", seconds, bar=bar)


def profile_case(case: Case) -> None:
    """Prints where the time of three steps goes."""
    import treadle

    side = case.make(treadle, case.ours())
    for what in ("step", "infer"):
        run = getattr(side, what)
        for _ in range(3):
            run()
        with treadle.profile() as profile:
            for _ in range(3):
                run()
        print(f"{case.title}: {what}, three times\n{profile.table()}\n")


def first_step(name: str) -> None:
    """Prints and notes the first step, model included, of fresh processes."""
    code = FIRST.format(folder=str(Path(__file__).parent), name=name)
    with alone(), tempfile.TemporaryDirectory() as cache:
        environment = dict(os.environ, TREADLE_CACHE=cache)
        seconds = {}
        for state in ("empty cache", "warm cache"):
            done = subprocess.run(
                [sys.executable, "-c", code], env=environment, capture_output=True, text=True,
                check=True,
            )  # fmt: skip
            seconds[state] = float(done.stdout.split()[-1])
    report(f"{CASES[name].title}, first step of a process", seconds, ours="empty cache",
           bar="ResNet-18 <= 8 s, warm <= 1 s")  # fmt: skip


def main() -> None:
    """Does what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--first", action="store_true")
    options = parser.parse_args()
    for name in options.names:
        if options.profile:
            profile_case(CASES[name])
        elif options.first:
            first_step(name)
        else:
            time_case(CASES[name], options.rounds)


if __name__ == "__main__":
    main()
