"""Convolutions as contractions over channels-last images.

The image is padded and dilated into a channels-last copy, its windows are overlapping strides over
that copy, and the sum over window and channels is an ordinary contraction: m = (n, *out),
k = (*window, c), n = o. A convolution whose window is larger than its result is the gradient of a
weight: there the long sum over the window is k as well, and nothing has to be copied twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from treadle.base import shape as sh
from treadle.graph.simplify import rewrite
from treadle.graph.winograd import suits
from treadle.ir.node import Node
from treadle.ops.contract import CONV, contract
from treadle.ops.pointwise import mul
from treadle.ops.reduce import total
from treadle.ops.table import make
from treadle.ops.view import PERMUTE, UNSLICE, permute, reshape, slice_, unslice, windows

N, G, C, O = 0, 1, 2, 3
OUT, WINDOW = 10, 20


def expand_convolutions(outputs: Sequence[Node]) -> list[Node]:
    """The same outputs without a `conv`."""
    return rewrite(outputs, _rule)


def _rule(node: Node) -> Node | None:
    return _expand(node) if node.op is CONV else None


def copied(x: Node) -> Node:
    """A marker to the planner: this value is to lie in memory in just this order."""
    zeros, ones = (0,) * len(x.shape), (1,) * len(x.shape)
    return make(UNSLICE, (x,), (x.shape, zeros, ones))


def _expand(node: Node) -> Node:
    x, w = node.inputs
    steps, pads, spacings, dilations = node.attrs
    rank = len(steps)
    space = tuple(range(3, 3 + rank))
    window, out = w.shape[3:], node.shape[3:]
    physical = _physical_order(x, space)
    image = _image(x, physical, space, pads, dilations)
    at = tuple([physical.index(d) for d in space])
    wide = windows(image, at, window, steps, spacings)
    left = tuple([OUT + d - 3 if d in space else d for d in physical])
    left += tuple([WINDOW + i for i in range(rank)])
    names = (N, G, O, *[OUT + i for i in range(rank)])
    if w.shape[1] == w.shape[2] == 1 and w.shape[0] > 1:
        return _depthwise(wide, w, left, names)
    of_weight = sh.count(window) > sh.count(out)
    right: tuple[int, ...] = (G, O, C, *[WINDOW + i for i in range(rank)])
    single = w.shape[0] == 1 and {*steps, *spacings} == {1}
    if of_weight:
        tiles = single and suits(out, window, w.shape[2], x.shape[0], w.shape[1])
        if tiles and _stored_otherwise(w, (0, 1)):
            w, right = copied(permute(w, (0, 2, *space, 1))), (G, C, *right[3:], O)
    elif sh.count(window) > 1 and not (
        single and suits(window, out, x.shape[0], w.shape[2], w.shape[1])
    ):
        w, right = copied(permute(w, (0, *space, 2, 1))), (G, *right[3:], C, O)
    last = names if of_weight else (N, *names[3:], G, O)
    if of_weight:
        last = (G, O, N, *names[3:])
    part = contract(wide, w, left, right, last)
    return permute(part, tuple([last.index(name) for name in names]))


def _physical_order(x: Node, space: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of an image from outer to inner: channels last in what it is a permutation of."""
    natural = (0, *space, 1, 2)
    if x.op is not PERMUTE:
        return natural
    (axes,) = x.attrs
    return tuple([axes.index(d) for d in natural])


def _image(
    x: Node,
    physical: tuple[int, ...],
    space: tuple[int, ...],
    pads: Sequence[tuple[int, int]],
    dilations: Sequence[int],
) -> Node:
    """The image in its physical order, dilated, padded and cropped."""
    y = permute(x, physical)
    starts, steps, shape = [0] * len(y.shape), [1] * len(y.shape), list(y.shape)
    first, stop = [0] * len(y.shape), list(y.shape)
    for d, (low, high), dilation in zip(space, pads, dilations, strict=True):
        i = physical.index(d)
        n = (y.shape[i] - 1) * dilation + 1
        starts[i], steps[i] = max(low, 0), dilation
        shape[i] = n + max(low, 0) + max(high, 0)
        first[i], stop[i] = max(-low, 0), shape[i] - max(-high, 0)
    wide = unslice(y, tuple(shape), tuple(starts), tuple(steps))
    if wide is y and _stored_otherwise(x, physical):
        wide = copied(y)
    return slice_(wide, tuple(first), tuple(stop), (1,) * len(shape))


def _stored_otherwise(x: Node, physical: tuple[int, ...]) -> bool:
    """Whether an image is given to the graph with its channels first."""
    channels = x.shape[physical[-1]] * x.shape[physical[-2]]
    while x.op.kind == "view":
        x = x.inputs[0]
    return x.op.kind == "input" and channels > 1


def _depthwise(wide: Node, w: Node, left: tuple[int, ...], names: tuple[int, ...]) -> Node:
    """One channel a group: a sum over the window alone, side by side for all channels."""
    rank = len(names) - 3
    taps = tuple([WINDOW + i for i in range(rank)])
    right = (G, O, C, *taps)
    order = tuple([right.index(label) for label in left if label in right])
    column = tuple([w.shape[right.index(label)] if label in right else 1 for label in left])
    product = mul(wide, reshape(permute(w, order), column))
    axes = tuple(range(len(left) - rank, len(left)))
    summed = total(product, axes)
    shape = summed.shape[: len(left) - rank]
    kept = left[: len(left) - rank]
    # The channel label has extent 1 and stands for the one output of its group.
    place = [kept.index(C if name == O else name) for name in names]
    return permute(reshape(summed, shape), tuple(place))
