"""Graphs of whole training steps, as recording would make them, for tests of the planner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from treadle.base import dtype as dt
from treadle.base.dtype import DType
from treadle.ir.node import Node, topological
from treadle.ops.contract import contract, conv
from treadle.ops.pointwise import RELU, add, cast, div, eq, exp, gt, log, mul, neg, sub, where
from treadle.ops.reduce import AMAX, MAX_REDUCE, total
from treadle.ops.source import RANDOM_BITS, constant, full, iota
from treadle.ops.table import TABLE, input_node, make
from treadle.ops.view import permute, reshape, windows

F32 = dt.float32


@dataclass
class Step:
    """A graph with its inputs; `donated` are their positions whose memory may be reused."""

    outputs: list[Node]
    inputs: list[Node]
    donated: frozenset[int] = frozenset()


def backward(loss: Node, wanted: Sequence[Node]) -> list[Node]:
    """The gradients of a scalar by the gradient rules of the op table."""
    order = topological([loss])
    needed = set(wanted)
    for node in order:
        if any(i in needed for i in node.inputs):
            needed.add(node)
    gradients: dict[Node, Node] = {loss: full(loss.shape, 1.0, loss.dtype)}
    for node in reversed(order):
        g = gradients.get(node)
        if g is None or node in wanted:
            continue
        for i, x in enumerate(node.inputs):
            if x in needed:
                part = node.op.vjp(node, g, i)
                if part is not None:
                    gradients[x] = add(gradients[x], part) if x in gradients else part
    return [gradients[w] for w in wanted]


def relu(x: Node) -> Node:
    return make(RELU, (x,))


def linear(x: Node, w: Node, b: Node) -> Node:
    return add(contract(x, w, (0, 2), (1, 2), (0, 1)), b)


def normalised(x: Node) -> Node:
    scaled = div(cast(x, F32), constant(255.0, F32))
    return div(sub(scaled, constant(0.5, F32)), constant(0.5, F32))


def cross_entropy(logits: Node, labels: Node) -> Node:
    n, classes = logits.shape
    shifted = sub(logits, make(AMAX, (logits,), ((1,),)))
    lp = sub(shifted, log(total(exp(shifted), (1,))))
    hit = eq(iota((n, classes), 1), reshape(labels, (n, 1)))
    rows = total(where(hit, lp, constant(0, F32)), (1,))
    return reshape(mul(neg(total(rows, (0,))), constant(1 / n, F32)), ())


def conv2d(x: Node, w: Node, b: Node, pad: int = 0, step: int = 1) -> Node:
    n, c, h, v = x.shape
    o, _, *k = w.shape
    grouped = conv(
        reshape(x, (n, 1, c, h, v)),
        reshape(w, (1, o, c, *k)),
        (step, step),
        ((pad, pad), (pad, pad)),
        (1, 1),
        (1, 1),
    )
    y = reshape(grouped, (n, o, *grouped.shape[3:]))
    return add(y, reshape(b, (o, 1, 1)))


def max_pool(x: Node, size: int = 2) -> Node:
    n, c, h, w = x.shape
    if h % size == 0 and w % size == 0:
        tiles = reshape(x, (n, c, h // size, size, w // size, size))
        return reshape(make(MAX_REDUCE, (tiles,), ((3, 5),)), (n, c, h // size, w // size))
    wide = windows(x, (2, 3), (size, size), (size, size), (1, 1))
    top = make(MAX_REDUCE, (wide,), ((4, 5),))
    return reshape(top, top.shape[:4])


def dropout(x: Node, key: Node, p: float) -> Node:
    bits = make(RANDOM_BITS, (key,), (x.shape,))
    uniform = mul(cast(bits, F32), constant(2.0**-32, F32))
    keep = cast(gt(uniform, constant(p, F32)), F32)
    return mul(mul(x, keep), constant(1 / (1 - p), F32))


def momentum(loss: Node, params: list[Node], others: list[Node]) -> Step:
    """The loss, then new parameters and momenta, which may take over the old ones' memory."""
    buffers = [input_node(p.shape, F32) for p in params]
    rate, decay = input_node((), dt.float64), input_node((), dt.float64)
    outputs = [loss]
    for p, m, g in zip(params, buffers, backward(loss, params), strict=True):
        new = add(mul(m, cast(decay, F32)), g)
        outputs += [sub(p, mul(new, cast(rate, F32))), new]
    inputs = [*others, *params, *buffers, rate, decay]
    first = len(others)
    return Step(outputs, inputs, frozenset(range(first, first + 2 * len(params))))


def parameters(*shapes: tuple[int, ...]) -> list[Node]:
    return [input_node(s, F32) for s in shapes]


def mlp_step(n: int, hidden: int = 128, classes: int = 10, side: int = 28) -> Step:
    """One training step of the digit script."""
    x, y = input_node((n, 1, side, side), dt.uint8), input_node((n,), dt.int64)
    params = parameters((hidden, side * side), (hidden,), (classes, hidden), (classes,))
    h = relu(linear(reshape(normalised(x), (n, side * side)), params[0], params[1]))
    loss = cross_entropy(linear(h, params[2], params[3]), y)
    return momentum(loss, params, [x, y])


def conv_step(
    n: int,
    side: int = 28,
    channels: tuple[int, int] = (32, 64),
    hidden: int = 128,
    classes: int = 10,
    pad: int = 0,
) -> Step:
    """One training step of the small convolutional net."""
    x, y = input_node((n, 1, side, side), dt.uint8), input_node((n,), dt.int64)
    key = input_node((), dt.int64)
    a, b = channels
    flat = b * ((side - 4 + 4 * pad) // 2) ** 2
    shapes = [(a, 1, 3, 3), (a,), (b, a, 3, 3), (b,), (hidden, flat), (hidden,)]
    params = parameters(*shapes, (classes, hidden), (classes,))
    h = relu(conv2d(normalised(x), params[0], params[1], pad))
    h = relu(conv2d(h, params[2], params[3], pad))
    h = dropout(max_pool(h), key, 0.25)
    h = relu(linear(reshape(h, (n, flat)), params[4], params[5]))
    loss = cross_entropy(linear(h, params[6], params[7]), y)
    return momentum(loss, params, [x, y, key])


def attention_step(n: int, heads: int, length: int, width: int) -> Step:
    """One training step of a block of self-attention with layer norm."""
    inner = width // heads
    x = input_node((n, length, width), F32)
    scale, shift, wq, wk, wv, wo = parameters((width,), (width,), *[(width, width)] * 4)
    mean = mul(total(x, (2,)), constant(1 / width, F32))
    centred = sub(x, mean)
    variance = mul(total(mul(centred, centred), (2,)), constant(1 / width, F32))
    rstd = make(_op("rsqrt"), (add(variance, constant(1e-5, F32)),))
    h = add(mul(mul(centred, rstd), scale), shift)

    def split(w: Node) -> Node:
        y = contract(reshape(h, (n * length, width)), w, (0, 2), (1, 2), (0, 1))
        return permute(reshape(y, (n, length, heads, inner)), (0, 2, 1, 3))

    q, k, v = split(wq), split(wk), split(wv)
    scores = contract(q, k, (0, 1, 2, 4), (0, 1, 3, 4), (0, 1, 2, 3))
    scores = mul(scores, constant(inner**-0.5, F32))
    e = exp(sub(scores, make(AMAX, (scores,), ((3,),))))
    weights = div(e, total(e, (3,)))
    mixed = contract(weights, v, (0, 1, 2, 4), (0, 1, 4, 3), (0, 1, 2, 3))
    merged = reshape(permute(mixed, (0, 2, 1, 3)), (n * length, width))
    out = add(reshape(contract(merged, wo, (0, 2), (1, 2), (0, 1)), x.shape), x)
    loss = reshape(total(mul(out, out), (0, 1, 2)), ())
    return momentum(loss, [scale, shift, wq, wk, wv, wo], [x])


def _op(name: str) -> Any:

    return TABLE[name]


def arrays_for(step: Step, seed: int = 0, classes: int = 10) -> list[Any]:
    """Values for the inputs of a step."""
    rng = np.random.default_rng(seed)

    def draw(shape: tuple[int, ...], dtype: DType) -> Any:
        if dtype is dt.uint8:
            return rng.integers(0, 256, shape).astype(np.uint8)
        if dtype is dt.int64:
            return rng.integers(0, classes, shape)
        return (rng.normal(size=shape) * 0.3).astype(dtype.numpy)

    return [draw(i.shape, i.dtype) for i in step.inputs]


def softmax(x: Node) -> Node:
    """Over the last dimension."""
    last = (len(x.shape) - 1,)
    e = exp(sub(x, make(AMAX, (x,), (last,))))
    return div(e, total(e, last))


def normalise(x: Node, axes: tuple[int, ...]) -> Node:
    """Mean 0 and variance 1 over some axes."""
    scale = constant(1 / np.prod([x.shape[a] for a in axes]), F32)
    centred = sub(x, mul(total(x, axes), scale))
    variance = mul(total(mul(centred, centred), axes), scale)
    return mul(centred, make(TABLE["rsqrt"], (add(variance, constant(1e-5, F32)),)))


def layer_norm(x: Node) -> Node:
    return normalise(x, (len(x.shape) - 1,))


def batch_norm(x: Node) -> Node:
    return normalise(x, (0, 2, 3))
