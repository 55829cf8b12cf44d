"""Members of modules that are computed: `module.weight` becomes a function of parameters.

The parameters lie in `module.parametrizations.weight`, under the names that PyTorch gives them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from treadle.nn.containers import ModuleDict, ModuleList
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor import Tensor, no_grad

_cache: dict[tuple[int, str], Any] | None = None


@contextmanager
def cached() -> Iterator[None]:
    """Within the block, each computed member is computed once."""
    global _cache
    before = _cache
    _cache = {} if before is None else before
    try:
        yield
    finally:
        _cache = before


class ParametrizationList(ModuleList):
    """The functions that compute one member, and the parameters that they compute it from."""

    def __init__(self, modules: list[Module], original: Any) -> None:
        super().__init__(modules)
        value = original.detach().clone()
        with no_grad():
            for module in reversed(list(self)):
                inverse = getattr(module, "right_inverse", None)
                if inverse is not None:
                    value = inverse(value)
        self.is_tensor = isinstance(value, Tensor)
        parts = [value] if self.is_tensor else list(value)
        self.names = ["original"] if self.is_tensor else [f"original{i}" for i in range(len(parts))]
        trainable = isinstance(original, Parameter)
        for name, part in zip(self.names, parts, strict=True):
            if trainable:
                self.register_parameter(name, Parameter(part, original.requires_grad))
            else:
                self.register_buffer(name, part)

    def forward(self) -> Any:
        """The member."""
        functions = iter(self)
        value = next(functions)(*[getattr(self, name) for name in self.names])
        for function in functions:
            value = function(value)
        return value


def _computed(name: str) -> property:
    def get(self: Any) -> Any:
        if _cache is None:
            return self.parametrizations[name]()
        key = (id(self), name)
        if key not in _cache:
            _cache[key] = self.parametrizations[name]()
        return _cache[key]

    def put(self: Any, value: Any) -> None:
        table = self.parametrizations[name]
        fresh = ParametrizationList(list(table), Parameter(value))
        with no_grad():
            for part in table.names:
                getattr(table, part).copy_(getattr(fresh, part))

    return property(get, put)


def is_parametrized(module: Any, tensor_name: str | None = None) -> bool:
    """Whether a module has computed members, or whether one member is computed."""
    table = getattr(module, "parametrizations", None)
    if not isinstance(table, ModuleDict) or not len(table):
        return False
    return tensor_name is None or tensor_name in table


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Lets a member be computed by a module from what the member was.

    Args:
        module: the owner of the member.
        tensor_name: a parameter or buffer of it.
        parametrization: gives the member from its parameters; a method `right_inverse` gives
            parameters from a member.
        unsafe: let the member change its shape or dtype.

    Returns:
        The module, now of a class of its own.
    """
    if is_parametrized(module, tensor_name):
        module.parametrizations[tensor_name].append(parametrization)
        return module
    if tensor_name not in module._parameters and tensor_name not in module._buffers:
        raise ValueError(
            f"Module '{type(module).__name__}' does not have a parameter, a buffer, or a "
            f"parametrized element with name '{tensor_name}'"
        )
    original = getattr(module, tensor_name)
    table = ParametrizationList([parametrization], original)
    value = table()
    if not unsafe and (tuple(value.shape), value.dtype) != (tuple(original.shape), original.dtype):
        raise ValueError(
            f"A parametrization may not change the shape or dtype of the tensor, unless the "
            f"`unsafe` flag is enabled: {tuple(original.shape)} became {tuple(value.shape)}"
        )
    if not is_parametrized(module):
        base = type(module)
        module.__class__ = type(f"Parametrized{base.__name__}", (base,), {"__module__":
                                base.__module__})  # fmt: skip
        module.parametrizations = ModuleDict()
    delattr(module, tensor_name)
    module.parametrizations[tensor_name] = table
    setattr(type(module), tensor_name, _computed(tensor_name))
    return module


def remove_parametrizations(
    module: Module, tensor_name: str, leave_parametrized: bool = True
) -> Module:
    """Makes a computed member a parameter again.

    Args:
        leave_parametrized: of its computed value; otherwise of what it was computed from.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    table = module.parametrizations[tensor_name]
    if leave_parametrized:
        with no_grad():
            value = table().detach().clone()
    elif table.is_tensor:
        value = table.original.detach()
    else:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is "
            "parametrized in terms of a sequence of tensors."
        )
    trainable = bool(table._parameters)
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    if trainable:
        setattr(module, tensor_name, Parameter(value))
    else:
        module.register_buffer(tensor_name, value)
    if not len(module.parametrizations):
        del module.parametrizations
        module.__class__ = type(module).__mro__[1]
    return module
