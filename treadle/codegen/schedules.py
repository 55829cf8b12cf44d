"""The launches of patterns that decide themselves how they are cut into tasks."""

from __future__ import annotations

from collections.abc import Sequence

from treadle.codegen.attention import schedule_attention
from treadle.codegen.contract import Schedule, schedule
from treadle.codegen.target import Target
from treadle.ir.attention import Attention
from treadle.ir.contraction import Contraction


def schedule_of(
    pattern: Contraction | Attention, sizes: Sequence[int], target: Target, processors: int = 16
) -> Schedule:
    """The launches of a contraction or of attention of known sizes; no result depends on the number
    of `processors` that will share them."""
    if isinstance(pattern, Attention):
        return schedule_attention(pattern, sizes, target)
    return schedule(pattern, sizes, target, processors)
