"""Lowering of attention: the nodes that one kernel computes, as matrices with strides."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

from treadle.base import shape as sh
from treadle.graph.group import Group
from treadle.graph.layout import Layout
from treadle.graph.plan import Launch, Place
from treadle.graph.strided import Strided
from treadle.ir.attention import Attention, Matrix
from treadle.ir.node import Node
from treadle.ops.attention import ATTENTION, ATTENTION_LSE

_GRADIENTS: Final = ("dq", "dk", "dv")
_BY_HEAD: Final = frozenset({"lse", "delta", "mask"})
"""What lies in the order (batch, head, row, column); all else is (batch, row, head, column)."""


def lower_attention(
    group: Group, stored: Sequence[Node], layouts: Mapping[Node, Layout],
    places: Mapping[Node, Place],
) -> Launch:  # fmt: skip
    """The launch that computes the stored nodes of a group."""
    operands: list[Matrix] = []
    outputs: list[Matrix] = []
    sizes: list[int] = []
    buffers: list[Place] = []
    for name, x in group.strided.items():
        base = x.view.base
        steps, start = x.strides(layouts[base])
        slot, offset = places[base]
        buffers.append((slot, offset + start * base.dtype.itemsize))
        sizes += _by_axis(name, steps)
        operands.append(Matrix(name, base.dtype, _unit(name, x, steps)))
    for node in stored:
        name = _result(node)
        buffers.append(places[node])
        sizes += _by_axis(name, layouts[node].strides)
        outputs.append(Matrix(name, node.dtype, "column"))
    *_, scale, causal = stored[0].attrs
    extents = _extents(group)
    bits = struct.unpack("<q", struct.pack("<d", float(scale)))[0]
    kernel = Attention("attention", stored[0].dtype, causal, tuple(operands), tuple(outputs))
    reads = [x.view.base for x in group.strided.values()]
    return Launch(
        kernel=kernel,
        buffers=tuple(buffers),
        sizes=(*extents, bits, *sizes),
        tasks=0,
        label="attention backward" if kernel.backward else "attention",
        sites=tuple(dict.fromkeys([n.site for n in stored if n.site is not None])),
        flop=_flop(kernel, extents),
        bytes=sum([sh.count(n.shape) * n.dtype.itemsize for n in (*reads, *stored)]),
    )


def _result(node: Node) -> str:
    if node.op is ATTENTION_LSE:
        return "lse"
    return "out" if node.op is ATTENTION else _GRADIENTS[node.attrs[0]]


def _by_axis(name: str, steps: Sequence[int]) -> tuple[int, ...]:
    """Strides along batch, head, row and column."""
    a, b, c, d = (*steps, 0)[:4]
    return (a, b, c, d) if name in _BY_HEAD else (a, c, b, d)


def _unit(name: str, x: Strided, steps: Sequence[int]) -> str:
    if name != "mask":
        return "column"
    wide = [n > 1 and step == 1 for n, step in zip(_shape(x), steps, strict=True)]
    return "column" if wide[3] else "row" if wide[2] else ""


def _shape(x: Strided) -> list[int]:
    return [v.hi + 1 for v in x.variables]


def _extents(group: Group) -> tuple[int, ...]:
    """Batches, heads, queries, keys, features of keys and of values."""
    b, t, h, d = _shape(group.strided["q"])
    v = group.strided.get("v")
    return b, h, t, _shape(group.strided["k"])[1], d, 0 if v is None else _shape(v)[3]


def _flop(kernel: Attention, extents: Sequence[int]) -> int:
    b, h, t, s, d, e = extents
    seen = t * s
    if kernel.causal:
        least = min(t, s)
        seen = least * (least + 1) // 2 + max(0, t - s) * s
    names = {m.name for m in kernel.outputs}
    depth = d + e
    if kernel.backward:
        depth += d * ("dq" in names) + d * ("dk" in names) + e * ("dv" in names)
    return 2 * b * h * seen * depth
