"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from treadle.base.settings import settings


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real data sets; a test that needs it is skipped, with a reason, without."""
    named = os.environ.get("TREADLE_DATA")
    folder = Path(named) if named else Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data sets are not here: set TREADLE_DATA (looked in {folder})")
    return folder


@pytest.fixture(scope="module")
def checked() -> Iterator[None]:
    """Every graph and plan is verified after every pass."""
    before, settings.check = settings.check, True
    yield
    settings.check = before
