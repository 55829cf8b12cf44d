"""Square matrix products, float32: treadle and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import alone, compare, report, torch_or_none


def main() -> None:
    """Prints the medians for 256, 1024 and 2048."""
    import treadle

    torch = torch_or_none()
    for n, inner in ((256, 50), (1024, 3), (2048, 1)):
        rng = np.random.default_rng(n)
        a, b = (rng.standard_normal((n, n), np.float32) for _ in range(2))
        ta, tb = treadle.from_numpy(a), treadle.from_numpy(b)

        def ours(ta: Any = ta, tb: Any = tb) -> None:
            product = ta @ tb
            treadle.flush()
            del product

        contenders: dict[str, Any] = {"treadle": ours}
        if torch is not None:
            pa, pb = torch.from_numpy(a), torch.from_numpy(b)
            contenders["PyTorch"] = lambda pa=pa, pb=pb: pa @ pb
        with alone():
            seconds = compare(contenders, rounds=15, inner=inner, settle=0.02)
        report(f"matmul {n} x {n} x {n}", seconds, bar="not slower")


if __name__ == "__main__":
    main()
