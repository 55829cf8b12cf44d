"""LLVM at work: a module made by a renderer is optimised and becomes an object file."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from treadle.base.errors import CompileError
from treadle.base.lazy import LazyModule
from treadle.codegen.target import Target

_ir = LazyModule("llvmlite.ir")
_llvm = LazyModule("llvmlite.binding")


@dataclass(slots=True)
class Stages:
    """A module on its way to machine code; the readable stages are made when asked for."""

    rendered: str
    object: bytes
    _module: Any
    _machine: Any

    @property
    def optimised(self) -> str:
        """LLVM's text after the passes."""
        return str(self._module)

    @property
    def assembly(self) -> str:
        """The machine code, readable. Asking for it changes `optimised`."""
        return str(self._machine.emit_assembly(self._module))


def new_module(target: Target, name: str = "treadle") -> Any:
    """An empty LLVM module for a target."""
    module = _ir.Module(name=name)
    module.triple = target.triple
    module.data_layout = _data_layout(target)
    return module


def compile_module(text: str, target: Target, name: str = "treadle") -> Stages:
    """Optimises a module of LLVM IR and makes its object file.

    text: the module as LLVM spells it; target: what it is for; name: what errors call it.
    Raises `CompileError` with LLVM's own words where the module is malformed.
    """
    machine = _machine(target)
    try:
        module = _llvm.parse_assembly(text)
        module.verify()
    except RuntimeError as error:
        raise CompileError(f"LLVM refuses the code made for {name}: {error}") from error
    _optimise(module, machine)
    return Stages(text, machine.emit_object(module), module, machine)


def _optimise(module: Any, machine: Any) -> None:
    """A short list of passes: vectors and unrolling are already in the code.

    No pass here turns a loop into a call of `memset` or `memcpy`: the objects call nobody.
    """
    builder = _llvm.create_pass_builder(machine, _llvm.create_pipeline_tuning_options(2))
    passes = _llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_new_gvn_pass()
    passes.add_simplify_cfg_pass()
    passes.add_instruction_combine_pass()
    passes.add_dead_code_elimination_pass()
    for function in module.functions:
        if not function.is_declaration:
            passes.run(function, builder)


@functools.cache
def _machine(target: Target) -> Any:
    _llvm.initialize_all_targets()
    _llvm.initialize_all_asmprinters()
    return _llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=2, reloc="pic", codemodel="small"
    )


@functools.cache
def _data_layout(target: Target) -> str:
    return str(_machine(target).target_data)
