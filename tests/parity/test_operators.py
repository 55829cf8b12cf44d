"""Every operator that both libraries have, on the samples that PyTorch ships for it."""

from __future__ import annotations

import pytest
from gaps import KNOWN, MISSING, known
from operators import DTYPES, entries, failures, function, has_dtype

ENTRIES = entries()
HERE = {name: info for name, info in ENTRIES.items() if function(info.name) is not None}
ROWS = [(name, dtype) for name in HERE for dtype in DTYPES if has_dtype(HERE[name], dtype)]


@pytest.mark.parametrize(("name", "dtype"), ROWS)
def test_operator(name: str, dtype: str) -> None:
    """Values in four dtypes; first gradients in float32, first and second in float64."""
    _, failed = failures(name, HERE[name], dtype)
    unknown = [(s, reason) for s, reason in failed if known(name, dtype, reason) is None]
    listed = "\n".join(f"  {reason}\n    {s.summary():.400}" for s, reason in unknown[:5])
    assert not unknown, f"{len(unknown)} samples of {name} in {dtype} differ:\n{listed}"


def test_what_is_missing_is_listed() -> None:
    """An operator of PyTorch's table is here or has a reason; what is here has left the list."""
    absent = {info.name for info in ENTRIES.values() if function(info.name) is None}
    unlisted = sorted(name for name in absent if not any(p.fullmatch(name) for p in MISSING))
    assert not unlisted, f"neither here nor excused: {unlisted}"
    stale = [p.pattern for p in MISSING if not any(p.fullmatch(name) for name in absent)]
    assert not stale, f"excused, but here (or unknown to PyTorch): {stale}"


def test_known_differences_name_operators() -> None:
    """A row of `KNOWN` matches an operator."""
    for row in KNOWN:
        assert any(row.names.fullmatch(name) for name in HERE), row
