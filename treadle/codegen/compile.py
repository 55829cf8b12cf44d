"""From kernels to addresses."""

from __future__ import annotations

from treadle.codegen.contract import render_contraction
from treadle.codegen.image import Memory, link
from treadle.codegen.jit import compile_module, new_module
from treadle.codegen.render import render
from treadle.ir.contraction import Contraction
from treadle.ir.show import canonical
import os, time

_memory = Memory()
_known = {}
stats = []


def bind(kernels, target):
    out = []
    for k in kernels:
        key = canonical(k)
        if key not in _known:
            t = time.perf_counter()
            m = new_module(target)
            (render_contraction if isinstance(k, Contraction) else render)(m, k, target, "kernel")
            t1 = time.perf_counter()
            st = compile_module(m, target)
            t2 = time.perf_counter()
            im = link(st.object)
            (base,) = _memory.place([im])
            _known[key] = base + im.symbols["kernel"]
            stats.append((getattr(k, "name", "?"), t1 - t, t2 - t1))
        out.append(_known[key])
    return out
