"""Plans on disk: a later process runs what an earlier one planned, and notices all damage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.base.settings import settings
from treadle.codegen import cache, compile
from treadle.graph.capture import TRIE
from treadle.runtime import engine


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(settings, "cache", tmp_path)
    monkeypatch.setattr(settings, "check", False)
    monkeypatch.setattr(cache, "_warned", set())
    monkeypatch.setattr(engine, "_WORTH_KEEPING", 0.0)
    forget(monkeypatch)
    yield tmp_path / "objects"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a new process does not know."""
    monkeypatch.setattr(engine, "_bound", {})
    monkeypatch.setattr(engine, "_families", {})
    monkeypatch.setattr(compile, "_placed", {})
    TRIE.forget()


def trained(model: Any, x: Any) -> list[Any]:
    """The parameters after a step."""
    optimizer = treadle.optim.Adam(model.parameters(), lr=0.01)
    loss = nn.functional.cross_entropy(model(x), treadle.tensor([0, 4, 2]))
    loss.backward()
    optimizer.step()
    return [p.detach().numpy().copy() for p in model.parameters()]


def step() -> list[Any]:
    """A step of a small model."""
    treadle.manual_seed(0)
    return trained(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 5)), treadle.ones(3, 6))


class Reader(nn.Module):
    """A convolution before a recurrence."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 4, 3)
        self.rnn = nn.RNN(4, 8, batch_first=True)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Any) -> Any:
        return self.head(self.rnn(self.conv(x).transpose(1, 2))[0][:, -1])


def step_of_a_recurrence() -> list[Any]:
    treadle.manual_seed(0)
    return trained(Reader(), treadle.randn(3, 2, 9))


def no_planning(*_: Any) -> None:
    raise AssertionError("this was planned before")


@pytest.mark.parametrize("run", [step, step_of_a_recurrence])
def test_a_later_process_plans_nothing_and_gives_the_same_bits(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run()
    forget(monkeypatch)
    monkeypatch.setattr(engine, "build", no_planning)
    for got, want in zip(run(), first, strict=True):
        np.testing.assert_array_equal(got, want)


def test_what_is_damaged_or_missing_is_planned_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = step()
    for entry in sorted(folder.iterdir())[::2]:
        entry.unlink()
    for entry in sorted(folder.iterdir())[::3]:
        entry.write_bytes(entry.read_bytes()[:-1])
    forget(monkeypatch)
    for got, want in zip(step(), first, strict=True):
        np.testing.assert_array_equal(got, want)


def test_kernels_that_are_gone_are_compiled_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bytes] = []
    write = cache.write

    def noted(key: bytes, payload: bytes) -> None:
        made.append(key)
        write(key, payload)

    monkeypatch.setattr(cache, "write", noted)
    x = treadle.arange(12.0).reshape(3, 4)
    want = (x @ x.T).tolist()
    for key in list(made):
        (folder / key.hex()).unlink()
        forget(monkeypatch)
        assert (x @ x.T).tolist() == want


def test_a_fault_still_names_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    table = treadle.randn(4, 3)
    treadle.flush()
    for _ in range(2):
        with pytest.raises(IndexError, match=r"out of range[\s\S]*test_runtime_plan_store"):
            table[treadle.tensor([0, 7])].tolist()
        forget(monkeypatch)


def test_a_profile_names_the_launches_of_a_stored_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for _ in range(2):
        x = treadle.ones(64, 64)
        with treadle.profile() as profile:
            (x @ x).relu().sum().item()
        names.append([e.name for e in profile.events if e.category == "run"])
        forget(monkeypatch)
    assert names[0] == names[1] and any("contract" in name for name in names[0])


def test_other_sizes_after_a_stored_plan_are_planned_as_without_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sums() -> list[list[float]]:
        rng = np.random.default_rng(0)
        given = [rng.standard_normal((n, 300), dtype=np.float32) for n in (40, 700, 90, 5000)]
        return [treadle.from_numpy(a).exp().sum(0).tolist() for a in given]

    first = sums()
    forget(monkeypatch)
    assert sums() == first


def test_what_is_checked_is_not_taken_from_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    step()
    forget(monkeypatch)
    monkeypatch.setattr(settings, "check", True)
    monkeypatch.setattr(engine, "build", no_planning)
    with pytest.raises(AssertionError, match="planned before"):
        step()
