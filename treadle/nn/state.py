"""What a module saves and loads: `state_dict` and `load_state_dict`."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from treadle.nn.parameter import Parameter
from treadle.tensor import Size, Tensor, flush, no_grad
from treadle.tensor.tensor_class import RemovableHandle

EXTRA = "_extra_state"


class IncompatibleKeys(NamedTuple):
    """The keys that a state lacks, and those that the module has no use for."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return (
            f"_IncompatibleKeys(missing_keys={self.missing_keys}, "
            f"unexpected_keys={self.unexpected_keys})"
        )


class Stateful:
    """The part of `Module` that saves and loads."""

    _version: int = 1
    _parameters: dict[str, Any]
    _buffers: dict[str, Any]
    _modules: dict[str, Any]
    _transient: set[str]

    def get_extra_state(self) -> Any:
        """More to be saved in `state_dict` than tensors; a subclass defines it."""
        raise RuntimeError("a module with extra state defines get_extra_state")

    def set_extra_state(self, state: Any) -> None:
        """Takes back what `get_extra_state` gave; a subclass defines it."""
        raise RuntimeError("a module with extra state defines set_extra_state")

    def _has_extra(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(Stateful, method)

    def _persistent(self) -> Iterator[tuple[str, Any]]:
        yield from self._parameters.items()
        for name, buffer in self._buffers.items():
            if name not in self._transient:
                yield name, buffer

    # --- saving ------------------------------------------------------------------------------

    def state_dict(
        self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by their qualified names, without history.

        Args:
            destination: the mapping to fill (default: a new `OrderedDict`).
            prefix: what the names begin with.
            keep_vars: give the parameters themselves instead of detached views of them.
        """
        if args:
            destination, prefix, keep_vars = (*args, prefix, keep_vars)[:3]
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()
        local = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local
        for hook in self._state_hooks("pre_save"):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        for hook in self._state_hooks("post_save"):
            changed = hook(self, destination, prefix, local)
            destination = destination if changed is None else changed
        out: dict[str, Any] = destination
        return out

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        for name, value in self._persistent():
            if value is not None:
                destination[prefix + name] = value if keep_vars else value.detach()
        if self._has_extra("get_extra_state"):
            destination[prefix + EXTRA] = self.get_extra_state()

    # --- loading -----------------------------------------------------------------------------

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copies parameters and buffers from a state.

        Args:
            state_dict: tensors by qualified name.
            strict: raise where the keys do not agree exactly.
            assign: put the tensors of the state in the place of the module's own.

        Returns:
            The missing and the unexpected keys.

        Raises:
            RuntimeError: a shape differs, or under `strict` a key; the message lists all of them.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(
                f"Expected state_dict to be dict-like, got {type(state_dict).__name__}."
            )
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        metadata = getattr(state_dict, "_metadata", None) or {}
        self._load_children(dict(state_dict), metadata, "", assign, (missing, unexpected, errors))
        # What is loaded belongs to no training step: it must not lengthen the trace of the first.
        flush()
        found = IncompatibleKeys(missing, unexpected)
        self._call_load_hooks(found)
        if strict:
            for title, keys in (("Unexpected", found[1]), ("Missing", found[0])):
                if keys:
                    listed = ", ".join(f'"{k}"' for k in keys)
                    errors.insert(0, f"{title} key(s) in state_dict: {listed}. ")
        if errors:
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t"
                + "\n\t".join(errors)
            )
        return found

    def _load_children(
        self,
        state: dict[str, Any],
        metadata: Mapping[str, Any],
        prefix: str,
        assign: bool,
        problems: tuple[list[str], list[str], list[str]],
    ) -> None:
        local = {**metadata.get(prefix[:-1], {}), "assign_to_params_buffers": assign}
        missing, unexpected, errors = problems
        with no_grad():
            self._load_from_state_dict(state, prefix, local, True, missing, unexpected, errors)
        for name, module in self._modules.items():
            if module is not None:
                start = f"{prefix}{name}."
                part = {k: v for k, v in state.items() if k.startswith(start)}
                module._load_children(part, metadata, start, assign, problems)

    def _call_load_hooks(self, found: IncompatibleKeys) -> None:
        for module in self._modules.values():
            if module is not None:
                module._call_load_hooks(found)
        for hook in self._state_hooks("post_load"):
            hook(self, found)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, local_metadata: dict[str, Any],
        strict: bool, missing_keys: list[str], unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:  # fmt: skip
        """Loads the members of this module alone, whose names in the state begin with `prefix`."""
        for hook in self._state_hooks("pre_load"):
            hook(self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys,
                 error_msgs)  # fmt: skip
        assign = local_metadata.get("assign_to_params_buffers", False)
        own = {name: value for name, value in self._persistent() if value is not None}
        for name, value in own.items():
            key = prefix + name
            if key not in state_dict:
                missing_keys.append(key)
                continue
            problem = self._load_one(name, value, key, state_dict[key], assign)
            if problem:
                error_msgs.append(problem)
        extra = prefix + EXTRA
        if self._has_extra("set_extra_state"):
            if extra in state_dict:
                self.set_extra_state(state_dict[extra])
            else:
                missing_keys.append(extra)
        elif extra in state_dict:
            unexpected_keys.append(extra)
        for key in state_dict:
            if key.startswith(prefix) and key != extra:
                parts = key[len(prefix) :].split(".", 1)
                if parts[0] not in (own if len(parts) == 1 else self._modules):
                    unexpected_keys.append(key)

    def _load_one(self, name: str, value: Any, key: str, given: Any, assign: bool) -> str:
        """Loads one tensor; what is wrong with it, or nothing."""
        if not isinstance(given, Tensor):
            return (
                f'While copying the parameter named "{key}", expected treadle.Tensor or '
                f"Tensor-like object from checkpoint but received {type(given)}"
            )
        if not value._node.shape and tuple(given._node.shape) == (1,):
            given = given[0]
        if tuple(given._node.shape) != tuple(value._node.shape):
            return (
                f"size mismatch for {key}: copying a param with shape {Size(given._node.shape)} "
                f"from checkpoint, the shape in current model is {Size(value._node.shape)}."
            )
        if not assign:
            value.copy_(given)
        elif isinstance(value, Parameter):
            if not isinstance(given, Parameter):
                given = Parameter(given, value.requires_grad)
            setattr(self, name, given)
        else:
            setattr(self, name, given)
        return ""

    # --- hooks -------------------------------------------------------------------------------

    _state_hook_table: dict[str, list[Callable[..., Any]]] | None = None

    def _state_hooks(self, kind: str) -> list[Callable[..., Any]]:
        return list((self._state_hook_table or {}).get(kind, ()))

    def _add_state_hook(self, kind: str, hook: Callable[..., Any]) -> Any:
        from_class = self._state_hook_table
        table = {} if from_class is None else from_class
        object.__setattr__(self, "_state_hook_table", table)
        hooks = table.setdefault(kind, [])
        hooks.append(hook)
        return RemovableHandle(lambda: hooks.remove(hook))

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> Any:
        """Calls `hook(module, prefix, keep_vars)` before the module is saved."""
        return self._add_state_hook("pre_save", hook)

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> Any:
        """Calls `hook(module, state_dict, prefix, local_metadata)` after the module is saved."""
        return self._add_state_hook("post_save", hook)

    _register_state_dict_hook = register_state_dict_post_hook

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> Any:
        """Calls `hook(module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs)` before the module is loaded."""
        return self._add_state_hook("pre_load", hook)

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> Any:
        """Calls `hook(module, incompatible_keys)` after the module is loaded."""
        return self._add_state_hook("post_load", hook)
