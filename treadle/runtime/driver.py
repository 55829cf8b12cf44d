"""The native driver as Python sees it: addresses, and the functions behind them."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Callable
from typing import Any

from treadle.codegen.compile import native
from treadle.codegen.driver import driver_ir


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
    """The driver for this processor: compiled once, ever, as kernels are."""
    return Driver(native(driver_ir(platform.machine())))


def _function(address: int, result: Any, *arguments: Any) -> Any:
    return ctypes.CFUNCTYPE(result, *arguments)(address)
