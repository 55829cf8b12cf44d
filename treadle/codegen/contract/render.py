"""The kernel of a contraction: a loop over the tasks of a launch."""

from __future__ import annotations

from typing import Any

from treadle.base import dtype as dt
from treadle.base.errors import CompileError
from treadle.codegen.contract.block import prepare, render_block_task
from treadle.codegen.contract.finish import RenderValue
from treadle.codegen.contract.flow import call, entry
from treadle.codegen.contract.layout import PACK
from treadle.codegen.contract.panel import render_pack_group, render_pack_task
from treadle.codegen.contract.parts import Frame, Parts
from treadle.codegen.contract.winograd import render_winograd
from treadle.codegen.expressions import render_value as render_expression
from treadle.codegen.target import Target
from treadle.ir.contraction import Contraction


def render_contraction(
    module: Any,
    contraction: Contraction,
    target: Target,
    symbol: str,
    render_value: RenderValue = render_expression,
) -> Any:
    """Adds the kernel of a contraction to a module.

    module:       the `llvmlite.ir.Module`
    contraction:  the pattern; extents and strides come with each launch (see `schedule`)
    target:       what the code is for; `schedule` must be asked about the same one
    symbol:       the function's name, a prefix of its helpers' names
    render_value: makes the LLVM value of an epilogue's expression

    Returns the function, with the kernel ABI of docs/architecture.md. Raises `CompileError` for
    an accumulator that cannot accumulate.
    """
    if contraction.accumulator is dt.bool_ or contraction.accumulator in (dt.float16, dt.bfloat16):
        raise CompileError(f"a contraction cannot accumulate in {contraction.accumulator.name}")
    if contraction.winograd:
        return render_winograd(module, contraction, target, symbol, render_value)
    parts = Parts(module, contraction, target, symbol, render_value)
    pack_group = render_pack_group(parts)
    pack, block = render_pack_task(parts, pack_group), render_block_task(parts, pack_group)
    function, f, (slots, params, scratch, begin, end) = entry(module, target, symbol)
    frame = Frame(f, parts.layout, slots, params, scratch)
    prepare(frame, parts)
    with f.choose(frame.number("phase").equals(PACK)) as (packing, computing):
        for branch, task_function in ((packing, pack), (computing, block)):
            with branch, f.loop(begin, end) as task:
                call(f, task_function, slots, params, scratch, task)
    f.builder.ret(f.index(0).raw)
    return function
