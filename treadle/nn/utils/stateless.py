"""Calling a module with other parameters than its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


@contextmanager
def _exchanged(module: Any, values: Mapping[str, Any]) -> Iterator[None]:
    """The module with members replaced for a while; plain tensors may stand for parameters."""
    before: list[tuple[Any, str, Any]] = []
    try:
        for key, value in values.items():
            path, _, name = key.rpartition(".")
            owner = module.get_submodule(path)
            if name not in owner._parameters and name not in owner._buffers:
                raise KeyError(f"{key!r} is no parameter or buffer of the module")
            before.append((owner, name, owner.__dict__[name]))
            owner.__dict__[name] = value
        yield
    finally:
        for owner, name, value in reversed(before):
            owner.__dict__[name] = value


def functional_call(
    module: Any, parameter_and_buffer_dicts: Any, args: Any = (), kwargs: Any = None,
    *, tie_weights: bool = True, strict: bool = False,
) -> Any:  # fmt: skip
    """The result of a module with given parameters and buffers in the place of its own.

    Args:
        module: the module.
        parameter_and_buffer_dicts: tensors by qualified name, or several mappings of them.
        args: the argument, or a tuple of them.
        kwargs: named arguments.
        tie_weights: also replace members that are the same tensor under another name.
        strict: raise where a member is missing.
    """
    given = parameter_and_buffer_dicts
    values: dict[str, Any] = {}
    for part in [given] if isinstance(given, Mapping) else given:
        values.update(part)
    own = dict(module.named_parameters(remove_duplicate=False))
    own.update(module.named_buffers(remove_duplicate=False))
    if strict and set(own) != set(values):
        raise RuntimeError(
            f"Missing key(s): {sorted(set(own) - set(values))}; Unexpected key(s): "
            f"{sorted(set(values) - set(own))}"
        )
    if tie_weights:
        tied = {id(own[key]): value for key, value in values.items() if key in own}
        for key, member in own.items():
            if id(member) in tied:
                values.setdefault(key, tied[id(member)])
    with _exchanged(module, values):
        return module(*(args if isinstance(args, tuple) else (args,)), **(kwargs or {}))
