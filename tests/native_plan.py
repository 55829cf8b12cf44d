"""Graphs planned, compiled and run on given arrays: what the runtime does, without recording."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from treadle.graph.build import build
from treadle.ir.node import Node
from treadle.runtime.buffer import Buffer, empty
from treadle.runtime.engine import Bound


def to_buffer(array: Any) -> Buffer:
    """A copy of an array in memory of the runtime."""
    array = np.ascontiguousarray(array)
    buffer = empty(max(array.nbytes, 8))
    ctypes.memmove(buffer.address, array.ctypes.data, array.nbytes)
    return buffer


def run_natively(
    outputs: Sequence[Node], inputs: Sequence[Node], arrays: Sequence[Any]
) -> list[Any]:
    """The values of the outputs, by machine code."""
    plan = build(outputs, inputs)
    buffers = Bound(plan, inputs, ()).run([to_buffer(a) for a in arrays])
    results = []
    for buffer, out in zip(buffers, plan.outputs, strict=True):
        raw = np.empty(out.nbytes, np.uint8)
        ctypes.memmove(raw.ctypes.data, buffer.address, out.nbytes)
        results.append(raw.view(out.dtype.numpy).reshape(out.shape))
    return results
