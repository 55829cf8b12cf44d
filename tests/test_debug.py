"""The debugging tools: every stage can be looked at, and faults name the user's line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.graph.text import read


def _loss() -> treadle.Tensor:
    x = treadle.from_numpy(np.ones((4, 6), np.float32))
    w = treadle.from_numpy(np.full((3, 6), 0.5, np.float32))
    return ((x @ w.T) * 2).relu().sum()


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        ("graph", ["contract(", "relu(", "float32[4, 3]", "return v"]),
        ("plan", ["plan: ", "contract", "FLOP"]),
        ("loops", ["kernel"]),
        ("llvm", ["define", "ret i64"]),
        ("asm", ["ret"]),
    ],
)
def test_every_stage_shows(stage: str, words: list[str]) -> None:
    shown = treadle.show(_loss(), stage)
    assert all(w in shown for w in words), shown


def test_a_shown_graph_is_read_back() -> None:
    outputs, inputs = read(treadle.show(_loss(), "graph"))
    assert len(outputs) == 1
    assert len(inputs) == 3


def test_sites_name_the_users_line() -> None:
    assert "x @ w.T" in treadle.show(_loss(), "graph", sites=True)


def test_explain_names_what_changed() -> None:
    def f(n: int) -> float:
        return float((treadle.from_numpy(np.ones(n, np.float32)) * 3).sum().item())

    treadle.flush()
    f(11)
    f(12)
    why = treadle.explain()
    assert "float32[12]" in why
    assert "float32[11]" in why


def test_profile_tells_the_shares(tmp_path: Path) -> None:
    with treadle.profile(peak_flops=1e12, peak_bandwidth=1e11) as p:
        _loss().item()
    assert {"run", "record"} <= {e.category for e in p.events}
    assert any(e.flop for e in p.events)
    assert "contract" in p.table()
    p.save(tmp_path / "trace.json")
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert any("share of limit" in e["args"] for e in events)


def test_check_names_the_operation_that_made_a_nan() -> None:
    with treadle.check(), pytest.raises(FloatingPointError, match=r"log.*NaN") as caught:
        (treadle.from_numpy(np.array([-1.0, 1.0], np.float32)).log() + 1).sum()
    assert "test_debug.py" in str(caught.value)


def test_eager_gives_the_same_results() -> None:
    want = _loss().item()
    with treadle.eager():
        assert _loss().item() == pytest.approx(want, rel=1e-6)


def test_a_shape_error_names_both_shapes_and_the_line() -> None:
    a, b = treadle.ones(2, 3), treadle.ones(4, 5)
    with pytest.raises(RuntimeError, match=r"\(2, 3\).*\(4, 5\)"):
        a @ b
    with pytest.raises(RuntimeError, match=r"\(2, 3\).*\(4, 5\)") as caught:
        a + b
    assert any("test_debug.py" in note for note in caught.value.__notes__)


def test_every_turn_of_a_loop_counts_in_a_profile() -> None:
    x, start = treadle.ones(50, 64), treadle.zeros(64)

    def step(carry: Any, x: Any) -> tuple[Any, Any]:
        carry = carry * 0.5 + x
        return carry, carry

    with treadle.profile() as profile:
        treadle.scan(step, start, x)[1].tolist()
    turns = [e for e in profile.events if e.category == "run" and "mul" in e.name]
    assert len(turns) == 50 and sum(e.flop for e in turns) == 50 * 64 * 2


def test_a_contraction_of_several_launches_is_one_event() -> None:
    a = treadle.ones(600, 300)
    a.tolist()
    with treadle.profile() as profile:
        (a @ a.t()).tolist()
    flop = [e.flop for e in profile.events if e.name == "contract"]
    assert len(flop) == 1 and flop[0] < 1.01 * 2 * 600 * 600 * 300
