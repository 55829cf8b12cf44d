"""The kernel of an attention pattern: a loop over the tasks of a launch."""

from __future__ import annotations

from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import CompileError
from treadle.codegen.attention.backward import render_backward, render_combine
from treadle.codegen.attention.forward import render_forward
from treadle.codegen.attention.layout import COMBINE
from treadle.codegen.attention.parts import Parts, prepare
from treadle.codegen.contract.flow import call, entry
from treadle.codegen.target import Target
from treadle.ir.attention import Attention


def render_attention(module: Any, pattern: Attention, target: Target, symbol: str) -> Any:
    """Adds the kernel of an attention pattern to a module.

    module:  the `llvmlite.ir.Module`
    pattern: extents and strides come with each launch (see `schedule_attention`)
    target:  what the code is for; `schedule_attention` must be asked about the same one
    symbol:  the function's name, a prefix of its helpers' names

    Returns the function, with the kernel ABI of docs/architecture.md. Raises `CompileError` for a
    dtype that is neither float32 nor float64.
    """
    if pattern.dtype not in (dt.float32, dt.float64):
        raise CompileError(f"attention has no kernel for {pattern.dtype.name}")
    parts = Parts(module, pattern, target, symbol)
    run = render_backward(parts) if pattern.backward else render_forward(parts)
    combine = render_combine(parts) if pattern.find("dq") is not None else None
    function, f, (slots, params, scratch, begin, end) = entry(module, target, symbol)
    frame = parts.frame(f, [slots, params, scratch])
    combining = frame.number("phase").equals(COMBINE)
    with f.when(~combining):
        prepare(frame, parts)
        with f.loop(begin, end) as task:
            call(f, run, slots, params, scratch, task)
    if combine is not None:
        with f.when(combining), f.loop(begin, end) as task:
            call(f, combine, slots, params, scratch, task)
    f.builder.ret(f.index(0).raw)
    return function
