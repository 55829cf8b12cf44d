"""Functions that users hang onto a module: before and after its call, and around its gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from treadle.tensor import Tensor
from treadle.tensor.function import Function
from treadle.tensor.tensor_class import RemovableHandle

Hook = Callable[..., Any]
KINDS = ("forward_pre", "forward", "backward_pre", "backward")


class Hooks:
    """The hooks of one module by kind: each a table from a key to (function, options)."""

    __slots__ = ("count", "tables")

    def __init__(self) -> None:
        self.tables: dict[str, dict[int, tuple[Hook, dict[str, bool]]]] = {k: {} for k in KINDS}
        self.count = 0

    def add(self, kind: str, hook: Hook, prepend: bool, **options: bool) -> RemovableHandle:
        """Adds a hook behind the others of its kind, or before them."""
        key = self.count
        self.count += 1
        table = self.tables[kind]
        table[key] = (hook, options)
        if prepend:
            rest = [(k, v) for k, v in table.items() if k != key]
            for k, _ in rest:
                del table[k]
            table.update(rest)
        return RemovableHandle(lambda: table.pop(key, None))

    def __bool__(self) -> bool:
        return any(self.tables.values())


def call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module.forward(*args, **kwargs)` with the hooks of the module around it."""
    tables = module._hooks.tables
    for hook, options in list(tables["forward_pre"].values()):
        args, kwargs = _before(module, hook, options, args, kwargs)
    passage = _Passage(module, tables) if tables["backward"] or tables["backward_pre"] else None
    if passage is not None:
        args = passage.enter(args)
    pending = dict(tables["forward"])
    try:
        result = module.forward(*args, **kwargs)
        for key, (hook, options) in list(pending.items()):
            del pending[key]
            result = _after(module, hook, options, args, kwargs, result)
    except BaseException:
        for hook, options in pending.values():
            if options["always_call"]:
                _after(module, hook, options, args, kwargs, None)
        raise
    return result if passage is None else passage.leave(result)


def _before(
    module: Any, hook: Hook, options: dict[str, bool], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if options["with_kwargs"]:
        changed = hook(module, args, kwargs)
        if changed is None:
            return args, kwargs
        if not isinstance(changed, tuple) or len(changed) != 2:
            raise RuntimeError(
                f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got "
                f"{changed}."
            )
        return changed
    changed = hook(module, args)
    if changed is None:
        return args, kwargs
    return (changed if isinstance(changed, tuple) else (changed,)), kwargs


def _after(module: Any, hook: Hook, options: dict[str, bool], args: tuple[Any, ...],
           kwargs: dict[str, Any], result: Any) -> Any:  # fmt: skip
    given = (args, kwargs, result) if options["with_kwargs"] else (args, result)
    changed = hook(module, *given)
    return result if changed is None else changed


class _Boundary(Function):
    """The same values; a backward pass gives their gradients to a function, all at once, and goes
    on with what it returns."""

    @staticmethod
    def forward(ctx: Any, function: Callable[[list[Any]], list[Any]], *tensors: Any) -> Any:
        ctx.function = function
        return tensors

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        return (None, *ctx.function(list(grads)))


class _Passage:
    """One call of a module with backward hooks: the gradients at both of its ends."""

    def __init__(self, module: Any, tables: dict[str, Any]) -> None:
        self.module = module
        self.tables = tables
        self.outputs: tuple[Any, ...] | None = None
        self.has_input = False

    def enter(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments behind the boundary at which the gradients of the inputs are known."""
        places = [i for i, x in enumerate(args) if isinstance(x, Tensor)]
        if not any(args[i]._needs for i in places):
            return args
        self.has_input = True

        def at_inputs(grads: list[Any]) -> list[Any]:
            whole: list[Any] = [None] * len(args)
            for i, g in zip(places, grads, strict=True):
                whole[i] = g
            changed = self.call_hooks(tuple(whole))
            return [changed[i] for i in places]

        behind = _Boundary.apply(at_inputs, *[args[i] for i in places])
        out = list(args)
        for i, x in zip(places, behind, strict=True):
            out[i] = x
        return tuple(out)

    def leave(self, result: Any) -> Any:
        """The result behind the boundary at which the gradients of the outputs are known."""
        items = (result,) if isinstance(result, Tensor) else result
        if not isinstance(items, (tuple, list)):
            return result
        places = [i for i, x in enumerate(items) if isinstance(x, Tensor)]
        if not any(items[i]._needs for i in places):
            return result

        def at_outputs(grads: list[Any]) -> list[Any]:
            whole: list[Any] = [None] * len(items)
            for i, g in zip(places, grads, strict=True):
                whole[i] = g
            self.outputs = tuple(whole)
            for hook, _ in list(self.tables["backward_pre"].values()):
                changed = hook(self.module, self.outputs)
                if changed is not None:
                    self.outputs = changed if isinstance(changed, tuple) else (changed,)
            if not self.has_input:
                self.call_hooks((None,))
            return [self.outputs[i] for i in places]

        behind = _Boundary.apply(at_outputs, *[items[i] for i in places])
        if isinstance(result, Tensor):
            return behind[0]
        out = list(items)
        for i, x in zip(places, behind, strict=True):
            out[i] = x
        return type(result)(out)

    def call_hooks(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        """Calls the backward hooks; what one returns replaces the gradients of the inputs."""
        for hook, _ in list(self.tables["backward"].values()):
            changed = hook(self.module, grads, self.outputs)
            if changed is not None:
                changed = changed if isinstance(changed, tuple) else (changed,)
                if len(changed) != len(grads):
                    raise RuntimeError(
                        f"Backward hook returned an invalid number of grad_input, got "
                        f"{len(changed)}, but expected {len(grads)}"
                    )
                grads = changed
        return grads
