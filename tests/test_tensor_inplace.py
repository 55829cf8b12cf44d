"""Writing: views and their bases see each other's writes, gradients are those of what was read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from against_torch import listed
from hypothesis import given, settings
from hypothesis import strategies as st

import treadle

Step = tuple[str, Callable[[Any], Any]]
# Each view of an array and of a tensor.
VIEWS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "first": (lambda a: a[:1], lambda t: t[:1]),
    "last": (lambda a: a[-1:], lambda t: t[-1:]),
    "even": (lambda a: a[::2], lambda t: t[::2]),
    "turned": (lambda a: a.T, lambda t: t.T),
    "backwards": (lambda a: a[::-1], lambda t: t[::-1]),
    "columns": (lambda a: a[..., 1:], lambda t: t[..., 1:]),
    "new axis": (lambda a: a[None], lambda t: t.unsqueeze(0)),
    "detached": (lambda a: a[...], lambda t: t.detach()),
    "same": (lambda a: a[...], lambda t: t.view(t.shape)),
}
WRITES: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "fill": (lambda a: a.fill(7), lambda t: t.fill_(7)),
    "add": (lambda a: np.add(a, 1, out=a), lambda t: t.add_(1)),
    "scale": (lambda a: np.multiply(a, -2, out=a), lambda t: t.mul_(-2)),
    "part": (lambda a: a.__setitem__(slice(0, 1), 5), lambda t: t.__setitem__(slice(0, 1), 5)),
    "zero": (lambda a: a.fill(0), lambda t: t.zero_()),
}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 9),
            st.lists(st.sampled_from(sorted(VIEWS)), max_size=3),
            st.sampled_from([*sorted(WRITES), "read", "look"]),
        ),
        max_size=8,
    )
)
def test_any_mix_of_views_and_writes_is_as_in_numpy(program: list[Any]) -> None:
    array = np.arange(12.0).reshape(3, 4)
    arrays, tensors = [array], [treadle.from_numpy(array.copy())]
    for which, views, write in program:
        a, t = arrays[which % len(arrays)], tensors[which % len(tensors)]
        for name in views:
            a, t = VIEWS[name][0](a), VIEWS[name][1](t)
        arrays.append(a)
        tensors.append(t)
        if write == "read":
            np.testing.assert_array_equal(t.detach().numpy(), a)
        elif write == "look":
            treadle.flush()
        elif a.size:
            WRITES[write][0](a)
            WRITES[write][1](t)
    for a, t in zip(arrays, tensors, strict=True):
        assert tuple(t.shape) == a.shape
        np.testing.assert_array_equal(t.detach().numpy(), a)


INDICES: list[Any] = [
    0, -1, slice(1, 3), (slice(None), 1), (slice(None, None, 2), slice(1, None)), Ellipsis,
    (Ellipsis, 0), None, (0, None), [0, 2], ([0, 1], [1, 3]), (slice(None), [3, 0]), ([2, 2], 1),
    ([[0], [1]], [0, 2]), np.array([True, False, True]),
    (slice(None), np.array([1, 0, 0, 1], bool)),
    (1, [0, 0, 2]), (np.array([True, False, True]), 1), slice(5, 9),
]  # fmt: skip


def _for_treadle(index: Any) -> Any:
    if isinstance(index, tuple):
        return tuple(_for_treadle(i) for i in index)
    return treadle.tensor(index.tolist()) if isinstance(index, np.ndarray) else index


@pytest.mark.parametrize("index", INDICES, ids=str)
def test_assignment_is_as_in_numpy(index: Any) -> None:
    for value in (5.0, "part", "row"):
        array = np.arange(12.0).reshape(3, 4)
        t = treadle.from_numpy(array.copy())
        part = array[index]
        number = value
        if value == "part":
            number = np.arange(100.0, 100 + part.size).reshape(part.shape)
        elif value == "row":
            number = np.full(part.shape[-1:], 9.0)
        array[index] = number
        t[_for_treadle(index)] = number if isinstance(number, float) else treadle.from_numpy(number)
        np.testing.assert_array_equal(t.numpy(), array)


def test_augmented_assignment_of_parts() -> None:
    array = np.arange(12.0).reshape(3, 4)
    t = treadle.from_numpy(array.copy())
    array[1] *= 3
    t[1] *= 3
    array[:, ::2] -= 1
    t[:, ::2] -= 1
    array[[0, 2], 1] += 10
    t[[0, 2], 1] += 10
    array[array > 8] = 0
    t[t > 8] = 0
    np.testing.assert_array_equal(t.numpy(), array)


def test_boolean_assignment_of_values_in_order() -> None:
    t = treadle.arange(6.0)
    t[t > 2] = treadle.tensor([10.0, 20.0, 30.0])
    assert t.tolist() == [0, 1, 2, 10, 20, 30]
    with pytest.raises((RuntimeError, ValueError)):
        t[t > 2] = treadle.ones(2)


def test_assignment_refuses_what_does_not_fit() -> None:
    t = treadle.zeros(3, 4)
    with pytest.raises((RuntimeError, ValueError)):
        t[0] = treadle.ones(3)
    with pytest.raises(IndexError, match="out of bounds"):
        t[3] = 1
    with pytest.raises(IndexError, match="too many indices"):
        t[0, 0, 0] = 1
    with pytest.raises(IndexError, match="mask"):
        t[treadle.tensor([True, False])] = 1
    with pytest.raises(TypeError, match="indices must be"):
        t[treadle.tensor([0.5])]


def test_an_index_out_of_bounds_is_found_when_it_runs() -> None:
    t = treadle.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]])
    for index in (treadle.tensor([2]), treadle.tensor([-3])):
        with pytest.raises(IndexError):
            t[index].tolist()
        with pytest.raises(IndexError):
            t[index, treadle.tensor([0])].tolist()
    with pytest.raises(IndexError):
        treadle.gather(t, 1, treadle.tensor([[3], [0]])).tolist()


def test_writes_convert_to_the_dtype_of_the_target() -> None:
    t = treadle.zeros(3, dtype=treadle.int64)
    t[0] = 2.9
    t.add_(1)
    assert t.tolist() == [3, 1, 1]
    with pytest.raises(RuntimeError, match="can't be cast"):
        t.add_(0.5)
    with pytest.raises(RuntimeError, match="doesn't match the broadcast shape"):
        treadle.zeros(3).add_(treadle.ones(2, 3))
    f = treadle.zeros(2)
    f += treadle.tensor([1, 2])
    assert f.dtype is treadle.float32
    assert f.tolist() == [1, 2]


def test_an_expanded_view_cannot_be_written() -> None:
    with pytest.raises(RuntimeError, match="single memory location"):
        treadle.zeros(1, 3).expand(2, 3).add_(1)


IN_PLACE = listed("""
    add_(b)  sub_(b)  mul_(b)  div_(b)  pow_(2)  clamp_(-0.5,0.5)  exp_()  sqrt_()  neg_()  abs_()
    tanh_()  sigmoid_()  floor_()  relu_()  zero_()  fill_(3)  copy_(b)  lerp_(b,0.3)  atan_()
    addcmul_(b,b)  cumsum_(0)  masked_fill_(b>1,0)  tril_()  square_()  logical_not_()  fmod_(0.3)
""")


@pytest.mark.parametrize("call", IN_PLACE)
def test_in_place_methods_do_what_their_namesakes_do(call: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    found = []
    for module in (treadle, torch):
        rng = np.random.default_rng(0)
        a = module.tensor(rng.uniform(0.1, 2, (3, 4)).tolist())
        b = module.tensor(rng.uniform(0.1, 2, (3, 4)).tolist())
        alias = a.view(-1)
        result = eval(f"a.{call}", {"a": a, "b": b})
        assert result is a
        found.append((a.tolist(), alias.tolist()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-6)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-6)


def test_versions_count_writes() -> None:
    t = treadle.zeros(3)
    assert t._version == 0
    t.add_(1)
    t[0] = 5
    assert t._version == 2
    v = t[1:]
    v.mul_(2)
    assert t._version == 3


# --- gradients ---------------------------------------------------------------------------------


def leaf(*values: float) -> Any:
    return treadle.tensor(values, dtype=treadle.float64, requires_grad=True)


def test_leaves_may_be_written_without_gradients_only() -> None:
    x = leaf(1.0, 2.0)
    for write in (lambda: x.add_(1), lambda: x.__setitem__(0, 1.0), lambda: x[0].zero_()):
        with pytest.raises(RuntimeError, match="leaf Variable that requires grad"):
            write()
    with treadle.no_grad():
        x.add_(1)
        x[0] = 10
    assert x.is_leaf and x.requires_grad
    (x * x).sum().backward()
    assert x.grad.tolist() == [20, 6]
    x.data.mul_(2)
    x.data[1] = 7
    assert x.tolist() == [20, 7]
    x.data = treadle.zeros(3, dtype=treadle.float64)
    assert x.shape == (3,) and x.requires_grad


def test_where_a_view_is_read_again_does_not_change_its_history() -> None:
    x = treadle.ones(2, 3, requires_grad=True)
    y = x * 2
    view = y.t()
    view[2] = treadle.zeros(2)
    copy = view.detach()
    y.mul_(3)
    with treadle.no_grad():
        assert view.sum().item() == 24
        quiet = y.t()
    y.add_(1)
    assert view.requires_grad and not copy.requires_grad and not quiet.requires_grad
    assert view.tolist() == copy.tolist() == quiet.tolist() == [[7, 7], [7, 7], [1, 1]]
    view.sum().backward()
    assert x.grad is not None and x.grad.tolist() == [[6, 6, 0], [6, 6, 0]]


@pytest.mark.parametrize(
    "write",
    [
        lambda y: y.zero_(),
        lambda y: y.fill_(2.0),
        lambda y: y.copy_(treadle.ones(3)),
        lambda y: y.view(3, 1).zero_(),
        lambda y: y.__setitem__(slice(None), 1.0),
    ],
)
def test_constants_over_all_of_a_tensor_leave_its_history(write: Any) -> None:
    x = treadle.ones(3, requires_grad=True)
    y = x * 2
    write(y)
    assert y.requires_grad
    (y * y).sum().backward()
    assert x.grad is not None
    np.testing.assert_array_equal(x.grad.numpy(), np.zeros(3))


def test_unseen_writes_change_values_but_not_gradients() -> None:
    x = leaf(1.0, 2.0)
    h = x * 3
    h.detach().mul_(10)
    with treadle.no_grad():
        h[1] = 5
    assert h.requires_grad
    assert h.tolist() == [30, 5]
    (h * 2).sum().backward()
    assert x.grad.tolist() == [6, 6]


def test_a_detached_view_stays_detached_when_its_base_is_written() -> None:
    x = leaf(1.0, 2.0)
    h = x * 3
    d = h.detach()
    h.add_(1)
    assert not (d * 2).requires_grad
    assert d.tolist() == [4, 7]
    assert not d[0].requires_grad


def test_writes_into_derived_values_are_differentiated() -> None:
    x = leaf(1.0, 2.0, 3.0)
    h = x * 2
    h[1] = 0
    h[2:] *= 5
    h.add_(x)
    h.sum().backward()
    assert x.grad.tolist() == [3, 1, 11]


def test_a_constant_takes_history_from_what_is_written_into_it() -> None:
    x = leaf(1.0, 2.0)
    out = treadle.zeros(2, 2, dtype=treadle.float64)
    row = out[1]
    out[0] = x
    row.copy_(x * x)
    assert out.requires_grad
    (out * treadle.tensor([[1.0, 1.0], [10.0, 10.0]])).sum().backward()
    assert x.grad.tolist() == [21, 41]


def test_a_write_after_a_value_was_used_does_not_change_its_gradient() -> None:
    """PyTorch refuses this by its version counter; here values never change, so it is right."""
    x = leaf(3.0)
    h = x * 1
    y = h * h
    h.add_(100)
    y.sum().backward()
    assert x.grad.item() == 6.0
    w = leaf(2.0)
    z = (w * w).exp()
    with treadle.no_grad():
        w.fill_(1000)
    z.sum().backward()
    np.testing.assert_allclose(w.grad.item(), 2 * 2 * np.exp(4))


def test_a_write_across_runs_keeps_the_history() -> None:
    x = leaf(1.0, 2.0)
    h = x.exp()
    assert h.sum().item()
    h[0] = 3
    assert h.tolist()
    v = h[1:]
    v.mul_(4)
    assert v.item()
    (h * h).sum().backward()
    np.testing.assert_allclose(x.grad.numpy(), [0, 2 * 16 * np.exp(4.0)])


def test_indexed_writes_are_differentiated() -> None:
    x, y = leaf(1.0, 2.0, 3.0), leaf(10.0, 20.0)
    out = (x * 1).index_put((treadle.tensor([0, 2]),), y * 2)
    (out * treadle.tensor([1.0, 2.0, 3.0])).sum().backward()
    assert x.grad.tolist() == [0, 2, 0]
    assert y.grad.tolist() == [2, 6]
    x.grad = y.grad = None
    h = x * 1
    h[treadle.tensor([True, False, True])] = y
    h[[1, 1]] = y
    (h * h).sum().backward()
    assert x.grad.tolist() == [0, 0, 0]
    assert y.grad.tolist() == [20, 80]
