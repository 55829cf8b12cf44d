"""Attention as machine code: blocks of keys and panels of queries around the sweep of contractions,
with the softmax in between."""

from treadle.codegen.attention.render import render_attention
from treadle.codegen.attention.schedule import schedule_attention

__all__ = ["render_attention", "schedule_attention"]
