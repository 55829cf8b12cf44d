"""How tensors print, against strings recorded from PyTorch 2.13."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import treadle

RECORDED = [
    block.split("\n", 1)
    for block in re.split(
        r"^>>> ", (Path(__file__).parent / "data" / "printed_tensors.txt").read_text(), flags=re.M
    )[1:]
]


@pytest.mark.parametrize(("text", "printed"), RECORDED, ids=[text for text, _ in RECORDED])
def test_prints_as_recorded(text: str, printed: str) -> None:
    assert repr(eval(text, {"t": treadle})) == printed.rstrip("\n")


OPTIONS: list[dict[str, Any]] = [
    {"precision": 2},
    {"threshold": 5, "edgeitems": 1},
    {"linewidth": 30},
    {"profile": "short"},
    {"profile": "full"},
    {"sci_mode": True},
    {"sci_mode": False},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_options_act_as_in_torch(options: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    rows = ("t.arange(30).reshape(5, 6) / 7", "t.arange(2000).reshape(20, 100)", "t.ones(3) * 1e6")
    torch.set_printoptions(**options)
    try:
        wanted = [repr(eval(row, {"t": torch})) for row in rows]
    finally:
        torch.set_printoptions(profile="default")
    with treadle.printoptions(**options):
        got = [repr(eval(row, {"t": treadle})) for row in rows]
    assert got == wanted
    assert treadle.get_printoptions()["precision"] == 4


def test_an_unknown_profile_is_refused() -> None:
    with pytest.raises(ValueError, match="default, short, full"):
        treadle.set_printoptions(profile="long")


def test_printing_does_not_change_what_is_printed() -> None:
    x = treadle.tensor([1.0, 2.0], requires_grad=True)
    y = (x * x).sum()
    assert repr(y) == "tensor(5., grad_fn=<SumBackward0>)"
    z = y * 2
    assert repr(y) == "tensor(5., grad_fn=<SumBackward0>)"
    z.backward()
    assert repr(x.grad) == "tensor([4., 8.])"


def test_random_tensors_print_as_in_torch() -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    for scale in (1e-6, 1e-3, 1.0, 1e3, 1e7):
        for shape in ((), (3,), (2, 5), (2, 3, 4), (1100,)):
            value = torch.randn(shape) * scale
            assert repr(treadle.from_numpy(value.numpy())) == repr(value)
