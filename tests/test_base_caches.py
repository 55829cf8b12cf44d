"""The size of the caches, over descriptions as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from treadle.base.caches import cache_bytes, last_level


def describe(root: Path, processor: int, caches: dict[str, tuple[str, str]]) -> None:
    for name, (size, shared) in caches.items():
        folder = root / f"cpu{processor}" / "cache" / name
        folder.mkdir(parents=True)
        (folder / "size").write_text(f"{size}\n")
        (folder / "shared_cpu_list").write_text(f"{shared}\n")


@pytest.mark.parametrize(
    ("shared", "expected"), [(["0-3"] * 4, 32 << 20), (["0-1", "0-1", "2-3", "2-3"], 64 << 20)]
)
def test_what_processors_share_counts_once(
    tmp_path: Path, shared: list[str], expected: int
) -> None:
    for i, group in enumerate(shared):
        describe(tmp_path, i, {"index0": ("32K", str(i)), "index3": ("32768K", group)})
    assert cache_bytes(frozenset(range(4)), tmp_path) == expected
    assert cache_bytes(frozenset([0]), tmp_path) == 32 << 20


def test_what_is_not_described_is_guessed(tmp_path: Path) -> None:
    guess = cache_bytes(frozenset([0]), tmp_path)
    assert guess >= 1 << 20
    describe(tmp_path, 0, {"index0": ("odd", "0")})
    assert cache_bytes(frozenset([0]), tmp_path) == guess
    describe(tmp_path, 1, {"index0": ("odd", "1"), "index2": ("2M", "1")})
    assert cache_bytes(frozenset([1]), tmp_path) == 2 << 20


def test_this_machine_has_caches() -> None:
    assert last_level() >= 1 << 15
