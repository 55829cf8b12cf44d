"""Contractions as machine code: one micro-kernel, panels packed for it, and a schedule by size."""

from treadle.codegen.contract.render import render_contraction
from treadle.codegen.contract.scheduling import Schedule, Step, schedule

__all__ = ["Schedule", "Step", "render_contraction", "schedule"]
