"""placeholder: reference engine"""

from __future__ import annotations

import numpy as np

from treadle.ops.reference import evaluate
from treadle.runtime.buffer import Buffer, empty


class Reference:
    def __init__(self, outputs, inputs, donated):
        self.outputs, self.inputs = outputs, inputs

    def run(self, leaves):
        feeds = {}
        for n, v in zip(self.inputs, leaves, strict=True):
            feeds[n] = (
                v.view(n.dtype, n.shape) if isinstance(v, Buffer) else np.array(v, n.dtype.numpy)
            )
        out = []
        for v in evaluate(self.outputs, feeds):
            v = np.ascontiguousarray(v)
            b = empty(v.nbytes)
            import ctypes

            ctypes.memmove(b.address, v.ctypes.data, v.nbytes)
            out.append(b)
        return out


def prepare(outputs, inputs, donated, numbers):
    return Reference(outputs, inputs, donated)
