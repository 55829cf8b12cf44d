"""What all optimisers share: parameter groups, state, saving, and how a step is recorded.

A step of a whole group is one transition of the trace (`record.update`): a rule gives the new value
of one parameter from its gradient, its state and the hyper-parameters. These are inputs of the
plan, so that a learning rate that changes compiles nothing. `step()` ends with `flush()`: forward
pass, backward pass and update run as one plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial, wraps
from itertools import chain
from typing import Any, Final

from treadle.base import dtype as dt
from treadle.tensor import Tensor, flush, set_grad_enabled, tensor, zeros_like
from treadle.tensor import primitive as pr
from treadle.tensor.record import on_replay, recorder, step_done, update
from treadle.tensor.tensor_class import RemovableHandle

Rule = Callable[..., tuple[Any, ...]]
Numbers = tuple[float, ...]
Group = dict[str, Any]


class _Required:
    def __repr__(self) -> str:
        return "<required parameter>"


required: Final = _Required()


def number(value: Any) -> float:
    """A hyper-parameter as a Python number."""
    return float(value.item()) if isinstance(value, Tensor) else value


def zeros_for(p: Any) -> Any:
    """Zeros of a parameter's shape, in memory at once.

    The first step is then recorded as all later ones are, and compiles one plan for all.
    """
    return filled_for(p, 0.0)


def filled_for(p: Any, value: float) -> Any:
    """One value in a parameter's shape, in memory at once."""
    return pr.in_memory(tuple(p._node.shape), value, p._node.dtype)


def _group_body(*args: Any) -> tuple[Any, ...]:
    """The update of a group: its rule applied to each parameter."""
    *tensors, rule, n, states, flags = args
    numbers = tensors[(2 + states) * n :]
    by_dtype: dict[Any, list[Any]] = {}
    out: list[list[Any]] = [[] for _ in range(1 + states)]
    for i in range(n):
        p, g, *kept = (tensors[j * n + i] for j in range(2 + states))
        dtype = p._node.dtype
        wide = dtype if dtype.itemsize >= 4 else dt.float32
        if wide not in by_dtype:
            by_dtype[wide] = [pr.cast(x, wide) for x in numbers]
        news = rule(*(pr.cast(x, wide) for x in (p, g, *kept)), *by_dtype[wide], *flags)
        for values, old, new in zip(out, (p, *kept), news, strict=True):
            values.append(pr.cast(new, old._node.dtype))
    return tuple(chain.from_iterable(out))


class Optimizer:
    """The base of all optimisers.

    Args:
        params: parameters, pairs of name and parameter, or groups: dictionaries with `"params"`
            and options of the group.
        defaults: the options of groups that do not say otherwise.
    """

    _opt_called = False
    param_groups: list[Group]

    def __init__(self, params: Any, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                f"but got {type(params).__name__}"
            )
        self.state: defaultdict[Any, Any] = defaultdict(dict)
        self.param_groups = []
        # While a compiled function is recorded: the numbers of this step, which replays renew;
        # while it is replayed: those collected so far.
        self._fresh: list[float] | None = None
        self._numbers: list[float] | None = None
        self._hooks: dict[str, dict[int, Callable[..., Any]]] = {"pre": {}, "post": {}}
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(dict(group))
        # Initial values belong to no training step: they must not lengthen the trace of the first.
        flush()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "step" in cls.__dict__:
            cls.step = _submitting(cls.__dict__["step"])  # type: ignore[method-assign]

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__dict__.setdefault("_hooks", {"pre": {}, "post": {}})
        for group in self.param_groups:
            for name, value in self.defaults.items():
                group.setdefault(name, value)

    def __repr__(self) -> str:
        out = f"{type(self).__name__} ("
        for i, group in enumerate(self.param_groups):
            out += f"\nParameter Group {i}\n"
            for name in sorted(group):
                if name != "params":
                    out += f"    {name}: {group[name]}\n"
        return out + ")"

    # --- groups ------------------------------------------------------------------------------

    def add_param_group(self, param_group: Group) -> None:
        """Adds a group: a dictionary with `"params"` and options that differ from the defaults."""
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        given = param_group["params"]
        if isinstance(given, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the "
                "ordering of tensors in sets will change between runs. Please use a list instead."
            )
        params = [given] if isinstance(given, Tensor) else list(given)
        if params and all(isinstance(x, tuple) for x in params):
            param_group["param_names"] = [name for name, _ in params]
            params = [p for _, p in params]
        for p in params:
            if not isinstance(p, Tensor):
                raise TypeError(f"optimizer can only optimize Tensors, but one of the params is "
                                f"{type(p).__name__}")  # fmt: skip
            if not p.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(
                    f"parameter group didn't specify a value of required optimization parameter "
                    f"{name}"
                )
            param_group.setdefault(name, default)
        seen = {id(p) for group in self.param_groups for p in group["params"]}
        if seen & {id(p) for p in params}:
            raise ValueError("some parameters appear in more than one parameter group")
        if len({id(p) for p in params}) != len(params):
            raise ValueError("optimizer contains a parameter group with duplicate parameters")
        names = param_group.pop("param_names", None)
        options = {k: v for k, v in param_group.items() if k != "params"}
        group = {"params": params, **({"param_names": names} if names else {}), **options}
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drops the gradients of all parameters, or fills them with zeros."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p._grad = None
                elif p._grad is not None:
                    p._grad = zeros_like(p._grad)

    # --- a step ------------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Changes the parameters by their gradients, and runs what is pending.

        Args:
            closure: computes the loss and its gradients anew.

        Returns:
            The loss that the closure gave.
        """
        loss = self._evaluate(closure)
        mode = recorder()
        before, mode.grad = mode.grad, False
        fresh = self._fresh = [] if mode.capture is not None else None
        try:
            parts = []
            for group in self.param_groups:
                params = [p for p in group["params"] if p._grad is not None]
                if params:
                    parts.append((group, params))
                    self._update(group, params)
            if fresh is not None:
                on_replay(lambda: self._renumber(parts, fresh))
        finally:
            mode.grad = before
        return loss

    def _evaluate(self, closure: Callable[[], Any] | None) -> Any:
        if closure is None:
            return None
        with set_grad_enabled(True):
            return closure()

    def _renumber(self, parts: list[tuple[Group, list[Any]]], fresh: list[float]) -> None:
        """Goes through a step for its numbers alone: what a replayed step must be given anew."""
        self._numbers = []
        try:
            for group, params in parts:
                self._update(group, params)
            fresh[:] = self._numbers
        finally:
            self._numbers = None

    def _update(self, group: Group, params: list[Any]) -> None:
        """Records the update of the parameters of a group that have a gradient."""
        raise NotImplementedError(f"{type(self).__name__} does not define step()")

    def _record(
        self, rule: Rule, params: list[Any], names: tuple[str, ...], numbers: Numbers,
        flags: tuple[Any, ...],
    ) -> None:  # fmt: skip
        """Records `rule(p, gradient, *state, *numbers, *flags) -> (p, *state)` for parameters.

        Args:
            names: of the tensors of the state that the rule takes and gives.
            numbers: hyper-parameters that may change from step to step.
            flags: what decides the form of the computation.
        """
        if self._numbers is not None:
            self._numbers.extend(numbers)
            return
        state = self.state
        kept = [[state[p][name] for p in params] for name in names]
        targets = [*params, *chain.from_iterable(kept)]
        tensors = [*params, *[p._grad for p in params], *targets[len(params) :]]
        dtype = dt.float64 if params[0]._node.dtype is dt.float64 else dt.float32
        attrs = (rule, len(params), len(names), flags)
        fresh, sources = self._fresh, None
        if fresh is not None:
            sources = [partial(fresh.__getitem__, len(fresh) + i) for i in range(len(numbers))]
            fresh.extend(numbers)
        update(_group_body, tensors, numbers, dtype, attrs, targets, sources)

    def _keep(
        self, params: list[Any], names: tuple[str, ...], fresh: Callable[[Any], Any] = zeros_for
    ) -> None:
        """Makes the state of parameters that have none yet."""
        for p in params:
            state = self.state[p]
            for name in names:
                if name not in state:
                    state[name] = fresh(p)

    def _advance(
        self, params: list[Any], names: tuple[str, ...], fresh: Callable[[Any], Any] = zeros_for
    ) -> list[list[Any]]:
        """Counts the step of each parameter, makes its state at the first, and gives the
        parameters in parts of one count."""
        states = [self.state[p] for p in params]
        for p, state in zip(params, states, strict=True):
            if "step" not in state:
                state["step"] = 0
                self._keep([p], names, fresh)

        parts: dict[int, list[Any]] = {}
        for p, state in zip(params, states, strict=True):
            state["step"] = step = state["step"] + 1
            parts.setdefault(step, []).append(p)
        return list(parts.values())

    # --- hooks -------------------------------------------------------------------------------

    def _add_hook(self, kind: str, hook: Callable[..., Any]) -> RemovableHandle:
        table = self._hooks[kind]
        key = max(table, default=-1) + 1
        table[key] = hook
        return RemovableHandle(lambda: table.pop(key, None))

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls `hook(optimizer, args, kwargs)` before each step; what it returns replaces them."""
        return self._add_hook("pre", hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Calls `hook(optimizer, args, kwargs)` after each step."""
        return self._add_hook("post", hook)

    # --- saving ------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The state and the options, with parameters as numbers in the order of the groups."""
        index: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                index.setdefault(id(p), len(index))
            packed = {k: v for k, v in group.items() if k != "params"}
            packed["params"] = [index[id(p)] for p in group["params"]]
            groups.append(packed)
        state = {
            (index[id(k)] if isinstance(k, Tensor) else k): _saved(v) for k, v in self.state.items()
        }
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave.

        Raises:
            ValueError: the groups differ in number or size.
        """
        groups = self.param_groups
        saved = state_dict["param_groups"]
        if len(groups) != len(saved):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(a["params"]) != len(b["params"]) for a, b in zip(groups, saved, strict=True)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of "
                "optimizer's group"
            )
        params = list(chain.from_iterable(g["params"] for g in groups))
        keys = chain.from_iterable(g["params"] for g in saved)
        by_key = dict(zip(keys, params, strict=True))
        state: defaultdict[Any, Any] = defaultdict(dict)
        for key, value in state_dict["state"].items():
            p = by_key.get(key)
            state[key if p is None else p] = _loaded(value, p)
        new = [
            {"params": old["params"], **{k: v for k, v in group.items() if k != "params"}}
            for old, group in zip(groups, saved, strict=True)
        ]
        self.__setstate__({"state": state, "param_groups": new})
        flush()


def _submitting(step: Callable[..., Any]) -> Callable[..., Any]:
    """A `step` with hooks around it, after which what is pending runs."""

    @wraps(step)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        self._opt_called = True
        hooks = self._hooks
        if hooks["pre"]:
            for hook in list(hooks["pre"].values()):
                changed = hook(self, args, kwargs)
                if changed is not None:
                    args, kwargs = changed
        out = step(self, *args, **kwargs)
        if hooks["post"]:
            for hook in list(hooks["post"].values()):
                hook(self, args, kwargs)
        step_done()
        return out

    return wrapper


Optimizer.step = _submitting(Optimizer.step)  # type: ignore[method-assign]


_NUMBERS: Final[dict[str, Any]] = {"step": int, "mu_product": float, "eta": float, "mu": float}
"""What is a number in the state: it is an input of the plan, not a tensor."""


def _saved(value: Any) -> Any:
    """State as it is saved: numbers become tensors, as they are in PyTorch."""
    if not isinstance(value, dict):
        return value
    return {k: tensor(float(v)) if k in _NUMBERS else v for k, v in value.items()}


def _loaded(value: Any, p: Any, key: str = "") -> Any:
    """State as it is used: copies in the dtype of the parameter, and the count as a number."""
    if isinstance(value, Tensor):
        if key in _NUMBERS:
            return _NUMBERS[key](value.item())
        copy = value.detach().clone()
        return copy.to(p.dtype) if p is not None and p.dtype.is_floating_point else copy
    if isinstance(value, dict):
        return {k: _loaded(v, p, k) for k, v in value.items()}
    if key in _NUMBERS:
        return _NUMBERS[key](value)
    if isinstance(value, (list, tuple)):
        return type(value)(_loaded(v, p) for v in value)
    return value
