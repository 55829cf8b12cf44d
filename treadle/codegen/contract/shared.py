"""Functions that many kernels call: each is compiled by itself, once, and linked to all of them.

What a pattern decides is little code: its epilogue, its dimensions, the order of its steps. The
loops that do the work depend on types and tile alone, and their compilation would be most of the
time that each new pattern takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from treadle.base.errors import CompileError
from treadle.codegen import cache, jit
from treadle.codegen.contract.flow import function_type
from treadle.codegen.image import Image, link
from treadle.codegen.target import Target
from treadle.codegen.value import ir

_PREFIX: Final = "shared."
_makers: Final[dict[tuple[str, str], Callable[[Any, str], Any]]] = {}
_images: Final[dict[tuple[str, str], Image]] = {}


def share(
    module: Any, target: Target, name: str, kinds: str, make: Callable[[Any, str], Any]
) -> Any:
    """Declares a shared function in a module that calls it.

    name:  tells it from all others, with everything that its code depends on but the target
    kinds: its arguments (see `flow.function`)
    make:  adds it to a module under a symbol, and returns it
    """
    symbol = _PREFIX + name
    found = module.globals.get(symbol)
    if found is not None:
        return found
    _makers[target.name, symbol] = make
    return ir.Function(module, function_type(kinds), symbol)


def linked(data: bytes, target: Target) -> Image:
    """An object as an image, together with the shared functions that it calls."""
    return link(data, lambda symbol: _image(symbol, target))


def _image(symbol: str, target: Target) -> Image:
    image = _images.get((target.name, symbol))
    if image is not None:
        return image
    make = _makers.get((target.name, symbol))
    if make is None:
        raise CompileError(f"the kernel calls {symbol!r}, which nobody provides")
    key = cache.key_of(symbol, target)
    image = cache.find(key)
    if image is None:
        module = jit.new_module(target, symbol)
        make(module, symbol).linkage = "external"
        image = link(jit.compile_module(str(module), target, symbol).object)
        cache.keep(key, image)
    _images[target.name, symbol] = image
    return image
