"""Runs of this folder: `make parity`, or `pytest tests/parity` where PyTorch is installed.

The default test command does not come here (`norecursedirs` in pyproject.toml).
"""

from __future__ import annotations

import importlib.util

# PyTorch's own test tables, which the rows are drawn from, import `expecttest`.
_NEEDED = ("torch", "expecttest")

if any(importlib.util.find_spec(name) is None for name in _NEEDED):
    collect_ignore_glob = ["test_*.py"]
