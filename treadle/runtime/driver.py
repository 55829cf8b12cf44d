"""The native driver as Python sees it: addresses, and the functions behind them."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable, Sequence
from typing import Any

from treadle.base.lazy import LazyModule
from treadle.codegen.driver import ENTRIES, driver_ir

_llvm = LazyModule("llvmlite.binding")


class Driver:
    """The entries of the driver, callable; each call lets go of the interpreter lock."""

    def __init__(self, addresses: dict[str, int]) -> None:
        i64, ptr = ctypes.c_int64, ctypes.c_void_p
        self.run: Callable[[int, int, int, int], int] = _function(
            addresses["run"], i64, ptr, ptr, i64, ptr
        )
        self.run_timed: Callable[[int, int, int, int, int], int] = _function(
            addresses["run_timed"], i64, ptr, ptr, i64, ptr, ptr
        )
        self.enter: Callable[[int], int] = _function(addresses["enter"], i64, ptr)
        self.worker: Callable[[int, int], None] = _function(addresses["worker"], None, ptr, i64)
        self.wake: Callable[[int], None] = _function(addresses["wake"], None, ptr)
        self.configure: Callable[[int, int, int, int, int], None] = _function(
            addresses["configure"], None, ptr, i64, ptr, i64, i64
        )


@functools.cache
def driver() -> Driver:
    """The driver for this processor, compiled once per process."""
    return Driver(load_ir(driver_ir(platform.machine()), ENTRIES))


def load_ir(source: str, names: Sequence[str]) -> dict[str, int]:
    """Compiles a module of LLVM IR for this processor; returns the addresses of its functions."""
    _llvm.initialize_native_target()
    _llvm.initialize_native_asmprinter()
    module = _llvm.parse_assembly(source)
    machine = _llvm.Target.from_default_triple().create_target_machine(opt=2)
    engine = _llvm.create_mcjit_compiler(module, machine)
    engine.finalize_object()
    # Workers may still run this code while the interpreter shuts down: never unload it.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    return {name: engine.get_function_address(name) for name in names}


def _function(address: int, result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)(address)
