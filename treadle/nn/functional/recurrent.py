"""Recurrent layers: a cell applied along a sequence.

The products with the inputs of all steps are one matmul; the steps themselves are one `scan`.
"""

from __future__ import annotations

from typing import Any

from treadle.nn.functional.common import shape_of
from treadle.nn.functional.linear import linear
from treadle.tensor import primitive as pr
from treadle.tensor import scan

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
State = tuple[Any, ...]


def cell(kind: str, x: Any, h: Any, state: State, w: Any, b: Any, project: Any) -> State:
    """One step: the new state from the mapped input and the old state."""
    mapped = linear(h, w, b)
    if kind == "GRU":
        xr, xz, xn = x.chunk(3, 1)
        hr, hz, hn = mapped.chunk(3, 1)
        r, z = (xr + hr).sigmoid(), (xz + hz).sigmoid()
        new = (xn + r * hn).tanh()
        return (new + z * (h - new),)
    total = x + mapped
    if kind == "LSTM":
        i, f, g, o = total.chunk(4, 1)
        c = f.sigmoid() * state[1] + i.sigmoid() * g.tanh()
        out = o.sigmoid() * c.tanh()
        return (out if project is None else linear(out, project), c)
    return (total.relu() if kind == "RNN_RELU" else total.tanh(),)


def layer(*args: Any) -> Any:
    """One layer in one direction, within a block.

    Takes the input `(length, n, features)`, the state tensors `(n, hidden)`, the weights of input
    and state, their biases, a projection, and the lengths of the sequences, as flags say; gives the
    outputs `(length, n, hidden)` and the last state.
    """
    *tensors, kind, flags, reverse = args
    has_bias, has_projection, has_lengths = flags
    items = list(tensors)
    x = items.pop(0)
    state = tuple(items.pop(0) for _ in range(2 if kind == "LSTM" else 1))
    w_input, w_state = items.pop(0), items.pop(0)
    b_input = items.pop(0) if has_bias else None
    b_state = items.pop(0) if has_bias else None
    project = items.pop(0) if has_projection else None
    lengths = items.pop(0) if has_lengths else None
    if kind != "GRU" and b_state is not None:
        # Both biases are added to the products with the inputs, in all steps at once.
        b_input, b_state = b_input + b_state, None
    mapped = linear(x, w_input, b_input)

    def step(state: State, now: Any) -> tuple[State, Any]:
        new = cell(kind, now, state[0], state, w_state, b_state, project)
        return new, new[0]

    def masked(state: State, now: Any) -> tuple[State, Any]:
        inputs, t = now
        new = cell(kind, inputs, state[0], state, w_state, b_state, project)
        going = pr.shaped(lengths, (shape_of(lengths)[0], 1)) > t
        kept = tuple(pr.select(going, a, b) for a, b in zip(new, state, strict=True))
        return kept, pr.select(going, new[0], pr.constant(0, new[0]._node.dtype))

    if lengths is None:
        last, out = scan(step, state, mapped, reverse=reverse)
    else:
        turns = pr.counter((shape_of(x)[0],), 0)
        last, out = scan(masked, state, (mapped, turns), reverse=reverse)
    return (out, *last)


def one_step(*args: Any) -> Any:
    """A cell by itself, within a block: its arguments are those of `layer` without a sequence."""
    *tensors, kind, has_bias = args
    items = list(tensors)
    x = items.pop(0)
    state = tuple(items.pop(0) for _ in range(2 if kind == "LSTM" else 1))
    w_input, w_state = items.pop(0), items.pop(0)
    b_input, b_state = (items.pop(0), items.pop(0)) if has_bias else (None, None)
    new = cell(kind, linear(x, w_input, b_input), state[0], state, w_state, b_state, None)
    return new if len(new) > 1 else new[0]
