"""Runs every comparison, one process each, one after the other; results go to the ledger."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPTS = (
    "digit_step", "epoch", "conv_step", "matmul", "kernels", "models", "dynamic", "recording",
    "startup", "accuracy", "reproducible",
)  # fmt: skip


def main() -> None:
    """Runs all scripts, or those that are named as arguments; fails if one does."""
    failed = []
    for name in sys.argv[1:] or SCRIPTS:
        print(f"== {name}", flush=True)
        script = Path(__file__).parent / f"{name}.py"
        done = subprocess.run([sys.executable, str(script)], check=False)
        if done.returncode:
            failed.append(name)
    raise SystemExit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
