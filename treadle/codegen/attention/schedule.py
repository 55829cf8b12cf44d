"""The schedule of an attention launch: tasks and blocks by size, never by the number of threads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from treadle.codegen.attention.layout import COMBINE, NUMBERS, WHOLE
from treadle.codegen.contract.address import TABLE_SLACK
from treadle.codegen.contract.cuts import up
from treadle.codegen.contract.flow import WORD
from treadle.codegen.contract.scheduling import Schedule, Step
from treadle.codegen.contract.tile import Machine, Tile, choose
from treadle.ir.attention import EXTENTS, Attention

KEYS: Final = 16
"""Tiles of keys in a block: what is read of K and V for it stays in the second-level cache."""
CHUNK: Final = 4
"""Tiles of keys whose gradients are summed at once: those that a causal mask hides are skipped."""
_PANELS: Final = 8
"""Panels of queries that share a block of keys, in one task or in one sum."""
_TASKS: Final = 32
"""Tasks for any number of threads that we expect, with slack for uneven ones."""
_PIECES: Final = 16
"""Tasks into which a backward pass cuts keys, if there are not as many heads."""
_CLAIM: Final = 1 << 16
"""Multiply-adds worth claiming by themselves: about a microsecond."""


def schedule_attention(pattern: Attention, sizes: Sequence[int], target: Machine) -> Schedule:
    """Cuts a launch into tasks.

    A forward task is a stretch of queries of one head. A backward task is a stretch of keys of one
    head; where there are several, each leaves what it adds to dq, and a second step sums it up.
    """
    n = dict(zip(EXTENTS, sizes, strict=False))
    tile = choose(target, pattern.dtype)
    numbers = dict.fromkeys(NUMBERS, 0)
    heads = n["batches"] * n["heads"]
    panels = math.ceil(n["t"] / tile.width)
    blocks = math.ceil(n["s"] / (KEYS * tile.rows))
    chunk = CHUNK * tile.rows
    block = up(math.ceil(n["s"] / blocks), chunk if pattern.backward else tile.rows)
    if pattern.backward:
        pieces = min(max(1, _PIECES // heads), max(1, blocks // 2))
        stretch = up(math.ceil(n["s"] / pieces), block)
        pieces = math.ceil(n["s"] / stretch)
    else:
        wanted = math.ceil(_TASKS / heads)
        stretch = max(1, min(_PANELS, math.ceil(panels / wanted))) * tile.width
        pieces = math.ceil(n["t"] / stretch)
    numbers.update(block=block, stretch=stretch, pieces=pieces, panels=panels)
    numbers["group"] = min(_PANELS, panels)
    scratch = _place(pattern, n, numbers, tile)
    work = heads * n["t"] * n["s"] * (n["d"] + n["e"])
    steps = [_step(sizes, numbers, WHOLE, heads * pieces, work)]
    workspace = 0
    if pattern.backward and pieces > 1 and pattern.find("dq") is not None:
        workspace = heads * pieces * numbers["dq_bytes"]
        steps.append(_step(sizes, numbers, COMBINE, heads * panels, heads * n["t"] * n["d"] * 8))
    return Schedule(tuple(steps), scratch, workspace)


def _step(sizes: Sequence[int], numbers: dict[str, int], phase: int, tasks: int, work: int) -> Step:
    numbers["phase"] = phase
    claims = max(1, min(tasks, work // _CLAIM))
    return Step(tasks, math.ceil(tasks / claims), (*sizes, *numbers.values()))


def _place(pattern: Attention, n: dict[str, int], numbers: dict[str, int], tile: Tile) -> int:
    """Fills in the places of the scratch memory; returns its size."""
    row = tile.width * tile.itemsize
    block, group = numbers["block"], numbers["group"]
    d, e = up(n["d"], tile.rows), up(n["e"], tile.rows)
    d_panels, e_panels = math.ceil(n["d"] / tile.width), math.ceil(n["e"] / tile.width)
    slack = TABLE_SLACK
    keys, features = (block + slack) * WORD, (max(d, e) + slack) * WORD
    places = {
        "streams": (tile.width + slack) * WORD,
        "d_steps": features, "e_steps": features, "key_d": keys, "key_e": keys,
        "k_rows": keys, "v_columns": features, "mask_steps": keys,
        "zeros": tile.rows * row, "factors": row,
        "k": block * n["d"] * tile.itemsize + row, "v": block * n["e"] * tile.itemsize + row,
        "mask": (block * row + row) * (pattern.find("mask") is not None),
    }  # fmt: skip
    if pattern.backward:
        panels, count = numbers["panels"], numbers["panels"] * tile.width
        numbers["dq_bytes"] = panels * d * row
        places |= {
            "k_columns": features, "v_rows": keys, "p_rows": keys, "s_rows": keys,
            "q_steps": (group * tile.width + slack) * WORD,
            "lse": panels * row, "delta": panels * row,
            "p": group * block * row, "ds": group * block * row,
            "q_t": panels * n["d"] * row + row, "g_t": panels * n["e"] * row + row,
            "q": d_panels * count * row + row, "g": e_panels * count * row + row,
            "dq_t": numbers["dq_bytes"] * (numbers["pieces"] == 1),
            "dk": d_panels * block * row, "dv": e_panels * block * row,
        }  # fmt: skip
    else:
        panels = numbers["stretch"] // tile.width
        places |= {
            "peaks": panels * row, "sums": panels * row, "p": block * row,
            "q_t": panels * n["d"] * row + row, "out_t": panels * e * row,
        }  # fmt: skip
    total = 0
    for name, size in places.items():
        numbers[name] = total
        total = up(total + size, 64)
    return total
