"""Differentiation: gradients are recorded like everything else, so they may be differentiated.

A backward pass walks the values of a trace from last to first and records what the gradient rules
of the op table build. Where a value came from an earlier trace that has already run, the walk goes
on there, with the values that were kept for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from treadle.base.errors import GradientError
from treadle.graph.capture import DERIVED, LEAF, Shortcut, State, Trace
from treadle.graph.history import loops_in, reachable
from treadle.ir.node import Node
from treadle.ops.pointwise import ADD
from treadle.ops.recurrence import RECURRENCE
from treadle.ops.recurrence_gradient import gradients
from treadle.ops.source import FULL
from treadle.ops.table import INPUT, input_node
from treadle.ops.view import ALIAS
from treadle.tensor.backward import learn, taken
from treadle.tensor.grad_mode import set_grad_enabled
from treadle.tensor.record import hold, position, rebind, record, recorder, walking

_SAVES_NOTHING: Final = frozenset({"add", "sub", "neg", "sum", "cast"})


# --- the walk ----------------------------------------------------------------------------------


class _Walk:
    """The backward pass through one trace: gradients by position, recorded in the current trace.

    `grads` maps a position of `trace` to the position of its gradient in the current trace.
    """

    def __init__(self, trace: Trace, grads: dict[int, int]) -> None:
        self.trace = trace
        self.grads = grads
        self.states = trace.state.path()
        self.current = recorder().trace
        self.values: dict[Node, int] = {}
        self.place = {state.node: pos for pos, state in enumerate(self.states)}
        self.recorded = self.states if trace is self.current else self.current.state.path()

    def state(self, pos: int) -> State:
        """The state of a value of the current trace."""
        if pos >= len(self.recorded):
            self.recorded = self.current.state.path()
        return self.recorded[pos]

    def run(self) -> tuple[list[tuple[int, int]], frozenset[int]]:
        """The (position, gradient position) of each leaf reached, and all positions visited."""
        leaves: list[int] = []
        visited: list[int] = []
        order = reachable(self.states, list(self.grads))
        # The histories of one loop are done at the first of them, which is walked last.
        found = set(order)
        loops = {
            min(found.intersection(members)): members
            for members in loops_in(self.states).values()
            if not found.isdisjoint(members)
        }
        for pos in order:
            state = self.states[pos]
            if pos not in self.grads and pos not in self.trace.functions and pos not in loops:
                continue
            self._call_hooks(pos)
            if state.needs == LEAF:
                leaves.append(pos)
                continue
            visited.append(pos)
            self._refuse_freed(pos, state)
            if pos in self.trace.functions:
                self._through_function(pos)
            elif state.node is not None and state.node.op is RECURRENCE:
                self._through_loop(loops.get(pos, []))
            else:
                self._through_op(pos, state)
        return [(pos, self.grads[pos]) for pos in leaves], frozenset(visited)

    def _refuse_freed(self, pos: int, state: State) -> None:
        op = state.node.op if state.node is not None else None
        if op is None or op.kind == "view" or op.name in _SAVES_NOTHING:
            return
        if self.trace.is_freed(pos):
            raise GradientError(
                "Trying to backward through the graph a second time: what it needs was freed by "
                "the first; hint: pass retain_graph=True to the first backward()"
            )

    def _call_hooks(self, pos: int) -> None:
        for hook in list(self.trace.hooks.get(pos, ())):
            if pos in self.grads:
                changed = self._call(hook, self._gradient(pos))
                if changed is not None:
                    self.grads[pos] = position(self.current, changed)

    def _gradient(self, pos: int) -> Any:
        return hold(self.current, self.state(self.grads[pos]))

    def _call(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Calls what a user wrote: it may read a value, which runs what is recorded so far."""
        kept = {pos: self._gradient(pos) for pos in self.grads}
        result = function(argument)
        if recorder().trace is not self.current:
            self.current = recorder().trace
            self.grads = {pos: position(self.current, g) for pos, g in kept.items()}
            self.recorded = self.current.state.path()
            self.values = {}
        return result

    def _through_op(self, pos: int, state: State) -> None:
        node = state.node
        assert node is not None
        g = input_node(node.shape, node.dtype)
        self.values[g] = self.grads[pos]
        for i, source in enumerate(state.inputs):
            if self.states[source].needs:
                gradient = node.op.vjp(node, g, i)
                if gradient is not None:
                    self.add(source, self._transplant(gradient))

    def _through_loop(self, members: Sequence[int]) -> None:
        """The gradients of all histories of a loop at once, by one loop back."""
        known = [node for pos in members if (node := self.states[pos].node) is not None]
        given = [pos for pos in members if pos in self.grads]
        nodes = [node for pos, node in zip(members, known, strict=True) if pos in self.grads]
        if not nodes:
            return
        gs = [input_node(node.shape, node.dtype) for node in nodes]
        self.values.update(zip(gs, [self.grads[pos] for pos in given], strict=True))
        sources = self.states[given[0]].inputs
        wanted = {i for i, source in enumerate(sources) if self.states[source].needs}
        for i, gradient in gradients(nodes, gs, wanted, known).items():
            self.add(sources[i], self._transplant(gradient))

    def _through_function(self, pos: int) -> None:
        """The custom backward, once for all outputs: at the first of them, which is walked last."""
        call = self.trace.functions[pos]
        if pos != call.first:
            return
        known = [self._gradient(out) if out in self.grads else None for out in call.outputs]
        for source, gradient in zip(call.inputs, self._call(call.backward, known), strict=True):
            if source is not None and gradient is not None and self.states[source].needs:
                self.add(source, position(self.current, gradient))

    def add(self, pos: int, gradient: int) -> None:
        """Adds a contribution to the gradient of a value."""
        known = self.grads.get(pos)
        self.grads[pos] = (
            gradient if known is None else self._append(ADD, (), (known, gradient)).pos
        )

    def _append(self, op: Any, attrs: tuple[Any, ...], inputs: tuple[int, ...]) -> State:
        def sources() -> list[tuple[Node, int]]:
            states = [self.state(i) for i in inputs]
            return [(s.node, s.needs) for s in states if s.node is not None]

        state = self.current.append(op, attrs, inputs, sources, recorder().grad)
        if len(self.recorded) == state.pos:
            self.recorded.append(state)
        return state

    def _transplant(self, gradient: Node) -> int:
        """Records the nodes that a rule built, on values of the current trace."""
        stack = [gradient]
        while stack:
            node = stack[-1]
            if node in self.values:
                stack.pop()
                continue
            pos = self.place.get(node)
            if pos is not None:
                self.values[node] = self._import(pos)
                continue
            missing = [i for i in node.inputs if i not in self.values]
            if missing:
                stack.extend(reversed(missing))
                continue
            inputs = tuple(self.values[i] for i in node.inputs)
            self.values[node] = self._append(node.op, node.attrs, inputs).pos
        return self.values[gradient]

    def _import(self, pos: int) -> int:
        """The position in the current trace of a value of the walked one."""
        if self.trace is self.current:
            return pos
        state = self.states[pos]
        node = state.node
        assert node is not None
        if pos not in self.trace.saved:
            raise GradientError(
                "the values that this gradient needs were freed; hint: pass retain_graph=True "
                "to the first backward()"
            )
        value = self.trace.saved[pos]
        if not hasattr(value, "address"):
            return self.current.scalar(value, node.dtype).pos
        entered = self.current.buffer(value, node.shape, node.dtype, min(state.needs, LEAF))
        if state.needs:
            self.current.origins[entered.pos] = (self.trace, pos)
        return entered.pos


def _walk(
    trace: Trace, gradients: dict[int, Any]
) -> tuple[list[tuple[int, State]], frozenset[int], dict[int, int]]:
    """The leaves of one trace with their gradients; a known walk is one transition."""
    current = recorder().trace
    grads = {pos: position(current, g) for pos, g in gradients.items()}
    plain = trace is current and not trace.hooks and not trace.functions
    start = current.state
    key = ("backward", recorder().grad, tuple(sorted(grads.items())))
    if plain:
        found = start.next.get(key)
        if found is not None:
            leaves, visited, by_position = found.result
            if not any(not visited.isdisjoint(part) for part in trace.freed):
                current.state = found.end
                current.leaves.extend(found.scalars)
                return leaves, visited, by_position
    known = len(current.leaves)
    walk = _Walk(trace, grads)
    reached, visited = walk.run()
    leaves = [(pos, walk.state(g)) for pos, g in reached]
    if plain:
        scalars = tuple(current.leaves[known:])
        start.next[key] = Shortcut(current.state, (leaves, visited, walk.grads), scalars)
    return leaves, visited, walk.grads


def origin(t: Any) -> tuple[Trace, int]:
    """The trace and position in which a tensor was computed."""
    trace, pos = t._trace, t._pos
    while pos in trace.origins:
        trace, pos = trace.origins[pos]
    return trace, pos


def differentiate(
    roots: Sequence[Any],
    seeds: Sequence[Any],
    targets: Sequence[Any] = (),
    retain_graph: bool = False,
    create_graph: bool = False,
) -> tuple[list[tuple[Any, Any]], list[Any | None]]:
    """Gradients of the roots, weighted by the seeds.

    Returns the pairs (leaf, gradient) in the order reached, and the gradients of the targets.
    """
    with set_grad_enabled(create_graph), walking():
        pending: dict[Trace, dict[int, Any]] = {}
        for root, seed in zip(roots, seeds, strict=True):
            current = recorder().trace
            trace, pos = (current, position(current, root)) if root._needs == LEAF else (
                root._trace, root._pos)  # fmt: skip
            _accumulate(pending.setdefault(trace, {}), pos, seed)
        places = [origin(t) if t._needs == DERIVED else None for t in targets]
        found: list[Any | None] = [None] * len(targets)
        leaves: dict[int, tuple[Any, Any]] = {}
        while pending:
            trace = max(pending, key=lambda each: each.serial)
            reached, visited, grads = _walk(trace, pending.pop(trace))
            current = recorder().trace
            for i, place in enumerate(places):
                if place is not None and place[0] is trace and place[1] in grads:
                    found[i] = _result(current, current.state.path()[grads[place[1]]])
            for pos, state in reached:
                if pos in trace.origins:
                    older, at = trace.origins[pos]
                    _accumulate(pending.setdefault(older, {}), at, hold(current, state))
                    continue
                leaf, gradient = trace.leaf_handles[pos], _result(current, state)
                if id(leaf) in leaves:
                    gradient = record(ADD, (leaves[id(leaf)][1], gradient))
                leaves[id(leaf)] = (leaf, gradient)
            if not retain_graph:
                trace.freed.append(visited)
                trace.saved.clear()
                for pos in visited & trace.functions.keys():
                    trace.functions[pos].free()
        _call_leaf_hooks(leaves)
        for i, t in enumerate(targets):
            if t._needs == LEAF and id(t) in leaves:
                found[i] = leaves[id(t)][1]
        return list(leaves.values()), found


def _result(current: Trace, state: State) -> Any:
    """The tensor of a gradient. One that is the weight of a root itself is another value than
    that: no leaf, and with a history only if gradients have one."""
    gradient = hold(current, state)
    if state.needs == LEAF or (state.needs and not recorder().grad):
        return record(ALIAS, (gradient,))
    return gradient


def _accumulate(grads: dict[int, Any], pos: int, gradient: Any) -> None:
    known = grads.get(pos)
    grads[pos] = gradient if known is None else record(ADD, (known, gradient))


def _call_leaf_hooks(leaves: dict[int, tuple[Any, Any]]) -> None:
    for key, (leaf, gradient) in leaves.items():
        for hook in list((leaf._extra or {}).get("hooks", {}).values()):
            changed = hook(gradient)
            gradient = gradient if changed is None else changed
        leaves[key] = (leaf, gradient)


def _seed(root: Any, given: Any | None) -> Any:
    if given is not None:
        if given._node.shape != root._node.shape:
            raise GradientError(
                f"Mismatch in shape: the gradient has {tuple(given._node.shape)}, "
                f"the output {tuple(root._node.shape)}"
            )
        return given
    if root._node.shape not in ((), (1,), (1, 1)):
        raise GradientError(
            f"grad can be implicitly created only for scalar outputs, this one has shape "
            f"{tuple(root._node.shape)}; hint: reduce it, or pass gradient="
        )
    return record(FULL, (), (root._node.shape, 1, root._node.dtype))


def _refuse_constant(root: Any) -> None:
    if not root._needs:
        raise GradientError(
            "element 0 of tensors does not require grad and does not have a grad_fn; hint: no "
            "input of it has requires_grad=True, or it was made under no_grad()"
        )


def backward(
    roots: Sequence[Any],
    gradients: Sequence[Any | None],
    retain_graph: bool = False,
    create_graph: bool = False,
    inputs: Sequence[Any] | None = None,
) -> None:
    """Adds the gradients of the roots to `.grad` of the leaves that they were computed from.

    Args:
        roots: the tensors to differentiate.
        gradients: for each the weight of its elements, of its shape; `None` for a scalar is 1.
        retain_graph: keep what the pass needs, so that it may be repeated.
        create_graph: record the gradients with history, so that they may be differentiated.
        inputs: collect gradients at these tensors only.

    Raises:
        GradientError: a root has no history, needs a gradient given, or was freed.
    """
    for root in roots:
        _refuse_constant(root)
    keep = retain_graph or create_graph
    plain = inputs is None and not create_graph and len(roots) == 1 and gradients[0] is None
    if plain and _known_backward(roots[0], keep):
        return
    start = recorder().trace.state
    seeds = [_seed(root, g) for root, g in zip(roots, gradients, strict=True)]
    pairs, found = differentiate(roots, seeds, inputs or (), keep, create_graph)
    if plain:
        _learn_backward(start, roots[0], pairs)
    if inputs is not None:
        pairs = [(t, g) for t, g in zip(inputs, found, strict=True) if g is not None]
    for leaf, gradient in pairs:
        _collect(leaf, gradient, create_graph)


def _collect(leaf: Any, gradient: Any, create_graph: bool) -> None:
    """Adds a gradient to `.grad` of a leaf."""
    if leaf._grad is None:
        leaf._grad = gradient
    elif create_graph:
        leaf._grad = record(ADD, (leaf._grad, gradient))
    else:
        with set_grad_enabled(False):
            rebind(leaf._grad, record(ADD, (leaf._grad, gradient)))
    for hook in list((leaf._extra or {}).get("after", {}).values()):
        hook(leaf)


def _known_backward(root: Any, keep: bool) -> bool:
    """Takes the backward pass of a scalar of the current trace as one transition, where the same
    pass was recorded before and nothing asks for a closer look."""
    current = recorder().trace
    if root._trace is not current or current.hooks or current.functions or current.origins:
        return False
    key = ("backward", root._pos)
    found = current.state.next.get(key)
    if found is None:
        found = taken(current, root._pos)
        if found is None:
            return False
        current.state.next[key] = found
    leaves, visited = found.result
    if current.freed and any(not visited.isdisjoint(part) for part in current.freed):
        return False
    handles = current.leaf_handles
    collectors = [handles[pos] for pos, _ in leaves]
    if any(leaf._extra for leaf in collectors):
        return False
    current.state = found.end
    current.leaves.extend(found.scalars)
    if not keep:
        current.freed.append(visited)
    for leaf, (_, state) in zip(collectors, leaves, strict=True):
        gradient = hold(current, state)
        if leaf._grad is None:
            leaf._grad = gradient
        else:
            _collect(leaf, gradient, False)
    return True


def _learn_backward(start: State, root: Any, pairs: Sequence[tuple[Any, Any]]) -> None:
    """Remembers a backward pass that stayed within one trace, from one scalar, for
    `_known_backward`."""
    current = recorder().trace
    if root._trace is not current or current.hooks or current.functions or current.origins:
        return
    states = current.state.path()
    place = {id(leaf): pos for pos, leaf in current.leaf_handles.items()}
    if len(place) != len(current.leaf_handles) or any(g._trace is not current for _, g in pairs):
        # A leaf that stands in the trace twice gets the sum of two gradients.
        return
    known = sum(s.node is not None and s.node.op is INPUT for s in start.path())
    visited = frozenset(reachable(states, [root._pos])) - set(place.values())
    leaves = [(place[id(leaf)], states[g._pos]) for leaf, g in pairs]
    scalars = tuple(current.leaves[known:])
    start.next["backward", root._pos] = Shortcut(current.state, (leaves, visited), scalars)
    if current.sources is None:
        learn(current, start, root._pos, [(pos, s.pos) for pos, s in leaves], visited, scalars,
              _backward_again)  # fmt: skip


def _backward_again(root: Any) -> list[tuple[Any, Any]]:
    """The backward pass of a scalar, of which nothing is kept."""
    return differentiate([root], [_seed(root, None)])[0]


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool = False,
) -> tuple[Any, ...]:
    """The gradients of the sum of the outputs with respect to the inputs.

    Args:
        outputs: a tensor or a sequence of them.
        inputs: the tensors to differentiate by, leaves or not.
        grad_outputs: for each output the weight of its elements; `None` for a scalar is 1.
        retain_graph: keep what the pass needs (default: as `create_graph`).
        create_graph: record the gradients with history, so that they may be differentiated.
        allow_unused: give `None` for an input that the outputs do not depend on.

    Returns:
        A tuple of tensors of the shapes of the inputs.

    Raises:
        GradientError: an output has no history, or an input was not used.

    Example:
        >>> import treadle
        >>> x = treadle.tensor(3.0, requires_grad=True)
        >>> (g,) = treadle.autograd.grad(x * x * x, x, create_graph=True)
        >>> treadle.autograd.grad(g, x)[0].item()
        18.0
    """
    outs = [outputs] if hasattr(outputs, "_node") else list(outputs)
    ins = [inputs] if hasattr(inputs, "_node") else list(inputs)
    given = [grad_outputs] if hasattr(grad_outputs, "_node") else grad_outputs
    weights = list(given) if given is not None else [None] * len(outs)
    for out in outs:
        _refuse_constant(out)
    for t in ins:
        if not t._needs:
            raise GradientError("One of the differentiated tensors does not require grad")
    seeds = [_seed(out, g) for out, g in zip(outs, weights, strict=True)]
    keep = create_graph if retain_graph is None else retain_graph
    _, found = differentiate(outs, seeds, ins, keep, create_graph)
    if not allow_unused and any(g is None for g in found):
        raise GradientError(
            "One of the differentiated tensors appears to not have been used in the graph; "
            "hint: pass allow_unused=True"
        )
    return tuple(found)
