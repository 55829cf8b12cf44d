"""What differs from PyTorch, and why: the honest list behind the coverage figures.

A row of `KNOWN` excuses failures of an operator by their message; `MISSING` names operators that
treadle does not have. A row that excuses nothing any more is to be taken out.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Difference(NamedTuple):
    """Failures that are known: of which operators, in which dtypes, with which message."""

    names: re.Pattern[str]
    dtypes: str
    message: re.Pattern[str]
    reason: str


def _row(names: str, dtypes: str, message: str, reason: str) -> Difference:
    return Difference(re.compile(names), dtypes, re.compile(message), reason)


ALL = "float32 float64 int64 bool"
FLOATS = "float32 float64"
WHOLE = "int64 bool"

KNOWN: tuple[Difference, ...] = (
    _row(r"linalg\..*|norm\.nuc|logdet|svd|qr", FLOATS, r".", "linear algebra is a later issue"),
)

MISSING: tuple[re.Pattern[str], ...] = tuple(
    re.compile(pattern)
    for pattern in (
        # Later issues: complex numbers, transforms, sparse, linear algebra, masked tensors.
        r"fft\..*", r"linalg\..*", r"sparse\..*", r"masked\..*", r"signal\.windows\..*",
        r"to_sparse|stft|istft|chalf|cfloat|cdouble|complex|polar|imag|view_as_(real|complex)",
        # Inside of PyTorch: nobody calls them by these names.
        r"_.*|torch\..*|jiterator_.*|native_.*|.*_copy|slice|max_pool2d_with_indices_backward",
    )
)  # fmt: skip


def known(name: str, dtype: str, message: str) -> str | None:
    """Why a failure is expected; `None` where it is not."""
    for row in KNOWN:
        if row.names.fullmatch(name) and dtype in row.dtypes and row.message.search(message):
            return row.reason
    return None


LAYERS: tuple[tuple[re.Pattern[str], re.Pattern[str], str], ...] = ()


def known_layer(name: str, message: str) -> str | None:
    """Why a failure of a layer is expected; `None` where it is not."""
    for names, text, reason in LAYERS:
        if names.fullmatch(name) and text.search(message):
            return reason
    return None


OPTIMIZERS_WITHOUT_CASE = {
    "Optimizer": "the base class",
    "SparseAdam": "sparse gradients are a later issue",
}

SCHEDULES_WITHOUT_CASE = {
    "LRScheduler": "the base class",
    "ChainedScheduler": "tests/test_optim_parity.py",
    "SequentialLR": "tests/test_optim_parity.py",
}
