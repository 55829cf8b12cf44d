"""The module: a function of tensors that owns parameters, buffers and other modules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from treadle.base.dtype import DType, bfloat16, float16, float32, float64
from treadle.nn.hooks import Hooks, call
from treadle.nn.parameter import Buffer, Parameter
from treadle.nn.registry import Registry
from treadle.nn.state import Stateful
from treadle.tensor import Tensor, no_grad, zeros_like
from treadle.tensor.record import mode_changed
from treadle.tensor.tensor_class import RemovableHandle

T = TypeVar("T", bound="Module")
Named = Iterator[tuple[str, Any]]


class Module(Stateful):
    """The base of all layers and models: assign parameters and modules as attributes, and define
    `forward`.

    Example:
        >>> import treadle
        >>> from treadle import nn
        >>> class Double(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.layer = nn.Linear(2, 2)
        ...     def forward(self, x):
        ...         return self.layer(x) * 2
        >>> Double()(treadle.ones(3, 2)).shape
        treadle.Size([3, 2])
    """

    training: bool
    _hooks: Hooks | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        home = self.__dict__
        home["training"] = True
        home["_parameters"] = Registry(home)
        home["_buffers"] = Registry(home)
        home["_modules"] = Registry(home)
        home["_transient"] = set()

    def _unimplemented(self, *args: Any) -> Any:
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    forward: Callable[..., Any] = _unimplemented

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """`forward`, with the hooks of the module around it."""
        if self._hooks is None:
            return self.forward(*args, **kwargs)
        return call(self, args, kwargs)

    # --- attributes --------------------------------------------------------------------------
    # Members are plain attributes too (see `Registry`), so `__getattr__` is for what is missing.

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        home = self.__dict__
        if isinstance(value, Parameter):
            self._displace(name, "_parameters")
            self.register_parameter(name, value)
        elif isinstance(value, Module):
            self._displace(name, "_modules")
            self.add_module(name, value)
        elif isinstance(value, Buffer):
            self._displace(name, "_buffers")
            self.register_buffer(name, value, value.persistent)
        elif name in home and self._assign_member(name, value):
            pass
        else:
            object.__setattr__(self, name, value)

    def _assign_member(self, name: str, value: Any) -> bool:
        """Replaces a member by a buffer or by nothing; `False` where the name is no member."""
        home = self.__dict__
        kinds = (("_parameters", "parameter", "nn.Parameter"), ("_modules", "child module",
                 "nn.Module"), ("_buffers", "buffer", "Tensor"))  # fmt: skip
        for table, kind, wanted in kinds:
            members = home.get(table)
            if members is None or name not in members:
                continue
            if value is not None and not (kind == "buffer" and isinstance(value, Tensor)):
                raise TypeError(
                    f"cannot assign '{_type_name(value)}' as {kind} '{name}' "
                    f"(treadle.{wanted} or None expected)"
                )
            members[name] = value
            return True
        return False

    def __delattr__(self, name: str) -> None:
        for table in (self._parameters, self._buffers, self._modules):
            if name in table:
                del table[name]
                self._transient.discard(name)
                return
        object.__delattr__(self, name)

    def _new_member(self, kind: str, name: Any, table: str) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError(f"cannot assign {kind} before Module.__init__() call")
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {_type_name(name)}")
        if "." in name:
            raise KeyError(f'{kind} name can\'t contain ".", got: {name}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')
        if (name in self.__dict__ or hasattr(type(self), name)) and name not in getattr(
            self, table
        ):
            raise KeyError(f"attribute '{name}' already exists")

    def _displace(self, name: str, table: str) -> None:
        """Takes a name away from whatever held it, so that another kind of member may."""
        home = self.__dict__
        if name not in home or table not in home or name in home[table]:
            return
        for other in ("_parameters", "_buffers", "_modules"):
            home[other].pop(name, None)
        home.pop(name, None)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Adds a parameter under a name.

        Raises:
            KeyError: the name is empty, has a dot, or is an attribute already.
            TypeError: the value is no `Parameter`.
        """
        if param is not None and not isinstance(param, Parameter):
            raise TypeError(
                f"cannot assign '{_type_name(param)}' object to parameter '{name}' "
                f"(treadle.nn.Parameter or None required)"
            )
        if param is not None and not param.is_leaf:
            raise ValueError(
                f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must be "
                f"created explicitly."
            )
        self._new_member("parameter", name, "_parameters")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Adds a tensor that is state but no parameter; `persistent` ones are in `state_dict`."""
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{_type_name(tensor)}' object to buffer '{name}' "
                f"(treadle.Tensor or None required)"
            )
        self._new_member("buffer", name, "_buffers")
        self._buffers[name] = tensor
        (self._transient.discard if persistent else self._transient.add)(name)

    def add_module(self, name: str, module: Module | None) -> None:
        """Adds a child module under a name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{_type_name(module)} is not a Module subclass")
        self._new_member("module", name, "_modules")
        self._modules[name] = module

    register_module = add_module

    # --- traversal ---------------------------------------------------------------------------

    def named_modules(
        self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Named:
        """This module and all below it, with qualified names, each once."""
        memo = set() if memo is None else memo
        if self in memo:
            return
        if remove_duplicate:
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                below = f"{prefix}.{name}" if prefix else name
                yield from module.named_modules(memo, below, remove_duplicate)

    def modules(self) -> Iterator[Module]:
        """This module and all below it, each once."""
        for _, module in self.named_modules():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules directly below, by name, each once."""
        seen = set()
        for name, module in self._modules.items():
            if module is not None and module not in seen:
                seen.add(module)
                yield name, module

    def children(self) -> Iterator[Module]:
        """The modules directly below, each once."""
        for _, module in self.named_children():
            yield module

    def _named_members(
        self, members: Callable[[Any], Any], prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Named:
        seen = set()
        modules = (
            self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)
            if recurse
            else [(prefix, self)]
        )
        for start, module in modules:
            for name, value in members(module):
                if value is None or id(value) in seen:
                    continue
                if remove_duplicate:
                    seen.add(id(value))
                yield (f"{start}.{name}" if start else name), value

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters by qualified name, each once."""
        return self._named_members(
            lambda m: m._parameters.items(), prefix, recurse, remove_duplicate
        )

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, each once."""
        for _, value in self.named_parameters(recurse=recurse):
            yield value

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers by qualified name, each once."""
        return self._named_members(lambda m: m._buffers.items(), prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers, each once."""
        for _, value in self.named_buffers(recurse=recurse):
            yield value

    def get_submodule(self, target: str) -> Module:
        """The module under a qualified name; `""` is this one."""
        module: Any = self
        for name in target.split(".") if target else ():
            if not hasattr(module, name):
                raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Replaces the module under a qualified name."""
        if not target:
            raise ValueError("Cannot set the submodule without a target name!")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{type(parent).__name__} has no attribute `{name}`")
        setattr(parent, name, module)

    def _get_member(self, target: str, table: str, kind: str) -> Any:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{type(module).__name__} has no attribute `{name}`")
        members = getattr(module, table)
        if name not in members:
            raise AttributeError(f"`{name}` is not {kind}")
        return members[name]

    def get_parameter(self, target: str) -> Parameter:
        """The parameter under a qualified name."""
        return self._get_member(target, "_parameters", "an nn.Parameter")

    def get_buffer(self, target: str) -> Tensor:
        """The buffer under a qualified name."""
        return self._get_member(target, "_buffers", "a buffer")

    # --- changing all of it ------------------------------------------------------------------

    def apply(self: T, fn: Callable[[Module], Any]) -> T:
        """Calls a function with every module below and then with this one; returns the module."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    def _apply(self: T, fn: Callable[[Any], Any], recurse: bool = True) -> T:
        """Replaces every parameter, gradient and buffer by a function of it, in place."""
        if recurse:
            for module in self.children():
                module._apply(fn)
        with no_grad():
            for param in self._parameters.values():
                if param is None:
                    continue
                gradient = param.grad
                _replace(param, fn(param))
                if gradient is not None:
                    param.grad = fn(gradient)
            for name, buffer in self._buffers.items():
                if buffer is not None:
                    self._buffers[name] = fn(buffer)
        return self

    def to(self: T, *args: Any, device: Any = None, dtype: DType | None = None,
           non_blocking: bool = False, memory_format: Any = None) -> T:  # fmt: skip
        """Moves to a device, or converts floating-point parameters and buffers to a dtype.

        Args:
            args: a device, a dtype, or a tensor whose dtype is taken.
        """
        for arg in args:
            if isinstance(arg, DType):
                dtype = arg
            elif isinstance(arg, Tensor):
                dtype = arg.dtype
            elif not isinstance(arg, bool):
                device = arg
        if dtype is not None and not dtype.is_floating_point:
            raise TypeError(f"nn.Module.to only accepts floating point dtypes, but got {dtype}")

        def convert(t: Any) -> Any:
            return t.to(dtype=dtype if t.is_floating_point() else None, device=device)

        return self._apply(convert)

    def type(self: T, dst_type: DType) -> T:
        """Converts all parameters and buffers to a dtype."""
        return self._apply(lambda t: t.to(dst_type))

    def float(self: T) -> T:
        """Converts floating-point parameters and buffers to float32."""
        return self.to(float32)

    def double(self: T) -> T:
        """Converts floating-point parameters and buffers to float64."""
        return self.to(float64)

    def half(self: T) -> T:
        """Converts floating-point parameters and buffers to float16."""
        return self.to(float16)

    def bfloat16(self: T) -> T:
        """Converts floating-point parameters and buffers to bfloat16."""
        return self.to(bfloat16)

    def cpu(self: T) -> T:
        """Moves to the CPU."""
        return self.to("cpu")

    def train(self: T, mode: bool = True) -> T:
        """Sets this module and all below it to training (or to evaluation)."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        if self.training != mode:
            mode_changed()
        self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: T) -> T:
        """Sets this module and all below it to evaluation."""
        return self.train(False)

    def requires_grad_(self: T, requires_grad: bool = True) -> T:
        """Turns the gradients of all parameters on or off."""
        for param in self.parameters():
            param.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or fills them with zeros."""
        for param in self.parameters():
            if param.grad is not None:
                param.grad = None if set_to_none else zeros_like(param.grad)

    # --- hooks -------------------------------------------------------------------------------

    def _add_hook(self, kind: str, hook: Any, prepend: bool, **options: bool) -> RemovableHandle:
        if self._hooks is None:
            object.__setattr__(self, "_hooks", Hooks())
        mode_changed()
        assert self._hooks is not None
        return self._hooks.add(kind, hook, prepend, **options)

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Calls `hook(module, args)` before `forward`; what it returns replaces the arguments."""
        return self._add_hook("forward_pre", hook, prepend, with_kwargs=with_kwargs)

    def register_forward_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:  # fmt: skip
        """Calls `hook(module, args, output)` after `forward`; what it returns replaces that."""
        return self._add_hook(
            "forward", hook, prepend, with_kwargs=with_kwargs, always_call=always_call
        )

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Calls `hook(module, grad_output)` before the gradients of the inputs are computed; what
        it returns replaces the gradients of the outputs."""
        return self._add_hook("backward_pre", hook, prepend)

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Calls `hook(module, grad_input, grad_output)` when the gradients of the inputs are known;
        what it returns replaces them."""
        return self._add_hook("backward", hook, prepend)

    # --- printing and copying ----------------------------------------------------------------

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What is printed between the parentheses: the arguments of the layer."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        children = [f"({k}): {_indent(repr(m))}" for k, m in self._modules.items()]
        if len(lines) == 1 and not children:
            return f"{self._get_name()}({lines[0]})"
        if not lines and not children:
            return f"{self._get_name()}()"
        body = "\n  ".join(lines + children)
        return f"{self._get_name()}(\n  {body}\n)"

    def __dir__(self) -> list[str]:
        return sorted(name for name in {*dir(type(self)), *self.__dict__} if not name[:1].isdigit())

    def __getstate__(self) -> dict[str, Any]:
        members = {*self._parameters, *self._buffers, *self._modules}
        return {k: v for k, v in self.__dict__.items() if k not in members}

    def __setstate__(self, state: dict[str, Any]) -> None:
        home = self.__dict__
        home.update(state)
        for table in ("_parameters", "_buffers", "_modules"):
            members = Registry(home)
            members.update(home[table])
            home[table] = members


def _replace(param: Any, value: Any) -> None:
    if value is not param:
        param.data = value


def _type_name(value: Any) -> str:
    return f"treadle.{value.dtype.name}" if isinstance(value, Tensor) else type(value).__name__


def _indent(text: str) -> str:
    return text.replace("\n", "\n  ")
