"""Backward passes: accumulation, retained graphs, higher derivatives, hooks, modes, errors."""

from __future__ import annotations

import copy
import gc
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import treadle
from treadle.autograd import grad
from treadle.graph.capture import TRIE, Trace
from treadle.runtime.execute import counts


def leaf(*values: float) -> Any:
    return treadle.tensor(values, dtype=treadle.float64, requires_grad=True)


def close(t: Any, values: Any) -> None:
    np.testing.assert_allclose(t.detach().numpy(), np.asarray(values, float), rtol=1e-12)


# --- accumulation and retained graphs ----------------------------------------------------------


def test_gradients_accumulate_over_passes_and_uses() -> None:
    x = leaf(1.0, 2.0)
    (x * x + x).sum().backward()
    close(x.grad, [3, 5])
    (x * 3).sum().backward()
    close(x.grad, [6, 8])
    kept = x.grad
    (x * 1).sum().backward()
    close(kept, [7, 9])
    x.grad = None
    (x * 2).sum().backward()
    close(x.grad, [2, 2])
    close(kept, [7, 9])


def test_a_graph_is_freed_unless_it_is_retained() -> None:
    x = leaf(1.0, 2.0)
    y = (x * x).sum()
    y.backward(retain_graph=True)
    y.backward()
    close(x.grad, [4, 8])
    with pytest.raises(RuntimeError, match="second time"):
        y.backward()


def test_linear_operations_need_nothing_and_may_be_repeated() -> None:
    x = leaf(1.0)
    y = (x + x).sum()
    y.backward()
    y.backward()
    close(x.grad, [4])


def test_two_roots_share_a_graph() -> None:
    x = leaf(3.0)
    h = x * x
    a, b = h * 2, h * 5
    a.backward(retain_graph=True)
    b.backward()
    close(x.grad, [42])


def test_a_weight_is_needed_unless_there_is_one_element() -> None:
    x = leaf(1.0, 2.0)
    y = x * x
    with pytest.raises(RuntimeError, match="scalar outputs"):
        y.backward()
    with pytest.raises(RuntimeError, match="Mismatch in shape"):
        y.backward(treadle.ones(3, dtype=treadle.float64))
    y.backward(treadle.tensor([1.0, 10.0], dtype=treadle.float64))
    close(x.grad, [2, 40])


def test_a_gradient_is_another_value_than_the_weight_it_comes_from() -> None:
    x, w = leaf(1.0), leaf(5.0)
    (x + 1).backward(w)
    close(x.grad, [5])
    assert not x.grad.requires_grad
    (g,) = grad(x + 1, x, w, create_graph=True)
    assert g.requires_grad and not g.is_leaf
    assert g.item() == 5.0
    close(grad(g * 3, w)[0], [3])


def test_backward_to_some_inputs_only() -> None:
    x, y = leaf(2.0), leaf(3.0)
    h = x * y
    (h * h).backward(inputs=[x, h])
    close(x.grad, [36])
    close(h.grad, [12])
    assert y.grad is None


def test_a_leaf_may_be_the_root() -> None:
    x = leaf(2.0)
    x.backward()
    close(x.grad, [1])


# --- grad and higher derivatives ---------------------------------------------------------------


def test_grad_of_leaves_and_derived_values() -> None:
    x, y = leaf(2.0), leaf(5.0)
    h = x * y
    z = h * h + x
    gx, gh, gy, again = grad(z, [x, h, y, x])
    close(gx, [101])
    close(gh, [20])
    close(gy, [40])
    close(again, [101])
    assert x.grad is None


def test_unused_inputs() -> None:
    x, y = leaf(2.0), leaf(5.0)
    with pytest.raises(RuntimeError, match="allow_unused"):
        grad(x * 2, [x, y])
    found = grad(x * 2, [x, y], allow_unused=True)
    close(found[0], [2])
    assert found[1] is None


def test_derivatives_of_any_order() -> None:
    x = leaf(0.7)
    value = x**5
    for factor, power in ((5, 4), (20, 3), (60, 2), (120, 1), (120, 0)):
        (value,) = grad(value, x, create_graph=True)
        close(value, [factor * 0.7**power])


def test_a_penalty_on_gradients_trains() -> None:
    w, x = leaf(0.5, -1.0), leaf(1.0, 2.0)
    out = (w * x).sum().sin()
    (g,) = grad(out, x, create_graph=True)
    (g * g).sum().backward()
    s, ww, xx = 0.5 - 2.0, np.array([0.5, -1.0]), np.array([1.0, 2.0])
    c, d = np.cos(s), -np.sin(s)
    want = 2 * c**2 * ww + 2 * (ww @ ww) * c * d * xx
    close(w.grad, want)


def test_a_second_derivative_across_a_read() -> None:
    x = leaf(0.4)
    y = x.exp() * x
    assert y.item() > 0
    (g,) = grad(y, x, create_graph=True)
    assert g.item() > 0
    (h,) = grad(g, x)
    close(h, [np.exp(0.4) * 2.4])


# --- reads in the middle -----------------------------------------------------------------------


def products_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the number of matrix products each time a plan is made."""
    from treadle.ir.node import topological
    from treadle.runtime import execute

    made: list[int] = []
    original = execute.Planned

    def counting(outputs: Any, *rest: Any) -> Any:
        made.append(sum(node.op.name == "contract" for node in topological(outputs)))
        return original(outputs, *rest)

    monkeypatch.setattr(execute, "Planned", counting)
    return made


def test_a_read_before_backward_does_not_run_the_forward_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    TRIE.forget()
    made = products_run(monkeypatch)
    x = treadle.rand(3, 4, dtype=treadle.float64)
    w = treadle.rand(4, 5, dtype=treadle.float64).requires_grad_()
    v = treadle.rand(5, 2, dtype=treadle.float64).requires_grad_()
    treadle.flush()
    made.clear()
    loss = ((x @ w).tanh() @ v).pow(2).sum()
    before = counts.runs
    assert loss.item() > 0
    loss.backward()
    treadle.flush()
    # Two forward; two by weights and one by data backward.
    assert made == [2, 3]
    assert counts.runs == before + 2
    h = np.tanh(x.numpy() @ w.detach().numpy())
    close(v.grad, h.T @ (2 * h @ v.detach().numpy()))


def test_many_reads_at_many_places() -> None:
    x = leaf(0.3, -0.8)
    a = x.exp()
    assert a.sum().item()
    b = a * x
    assert b.tolist()
    c = b.sin()
    assert len(repr(c)) > 0
    assert len(repr(a)) > 0
    d = c * a
    assert d.sum().item()
    d.sum().backward()
    v = np.array([0.3, -0.8])
    e = np.exp(v)
    close(x.grad, np.cos(e * v) * (e * v + e) * e + np.sin(e * v) * e)


def test_derived_values_read_again_keep_their_history() -> None:
    x = leaf(1.0, 2.0)
    a, b = (x * x).split(1)
    assert a.item() == 1.0
    assert b.item() == 4.0
    assert (a.detach() + b.detach()).item() == 5.0
    assert (a.detach() * 2).item() == 2.0
    (a * 3 + b).sum().backward()
    close(x.grad, [6, 4])


# --- hooks -------------------------------------------------------------------------------------


def test_hooks_on_leaves() -> None:
    x = leaf(1.0)
    seen = []
    first = x.register_hook(lambda g: seen.append(g.item()))
    second = x.register_hook(lambda g: g * 10)
    (x * 3).sum().backward()
    close(x.grad, [30])
    assert seen == [3.0]
    first.remove()
    second.remove()
    second.remove()
    (x * 3).sum().backward()
    close(x.grad, [33])
    assert seen == [3.0]


def test_hooks_on_derived_values_see_the_whole_gradient_and_may_read_it() -> None:
    x = leaf(1.0, 2.0)
    h = x * 2
    seen = []
    handle = h.register_hook(lambda g: seen.append(g.tolist()))
    removed = h.register_hook(lambda g: g * 1000)
    removed.remove()
    (h * h + h).sum().backward()
    assert seen == [[5.0, 9.0]]
    close(x.grad, [10, 18])
    handle.remove()
    x.grad = None
    h = x * 2
    assert h.sum().item() == 6.0
    h.register_hook(lambda g: g + 1)
    (h * 2).sum().backward()
    close(x.grad, [6, 6])


def test_a_hook_of_a_value_used_in_several_traces_runs_once() -> None:
    x = leaf(1.0)
    h = x.exp()
    seen = []
    h.register_hook(lambda g: seen.append(g.item()))
    a = h * 2
    assert a.item()
    b = h * 3
    assert b.item()
    (a + b).sum().backward()
    assert seen == [5.0]


def test_retain_grad() -> None:
    x = leaf(1.0)
    h = x * 2
    h.retain_grad()
    h.retain_grad()
    assert h.retains_grad
    (h * h).sum().backward()
    close(h.grad, [4])
    with pytest.raises(RuntimeError, match="require"):
        treadle.ones(1).register_hook(lambda g: g)


def test_post_accumulate_hooks() -> None:
    x = leaf(1.0)
    seen = []

    def step(t: Any) -> None:
        seen.append(t.grad.item())
        t.grad = None

    handle = x.register_post_accumulate_grad_hook(step)
    (x * 3).sum().backward()
    assert x.grad is None
    handle.remove()
    (x * 3).sum().backward()
    close(x.grad, [3])
    assert seen == [3.0]


# --- modes -------------------------------------------------------------------------------------


def test_modes_as_blocks_and_functions() -> None:
    x = leaf(1.0)
    with treadle.no_grad():
        assert not (x * 2).requires_grad
        with treadle.enable_grad():
            assert (x * 2).requires_grad
        assert not treadle.is_grad_enabled()
    assert treadle.is_grad_enabled()

    @treadle.no_grad()
    def first(t: Any) -> Any:
        """Twice."""
        return t * 2

    @treadle.no_grad
    def second(t: Any) -> Any:
        return t * 2

    assert not first(x).requires_grad
    assert not second(x).requires_grad
    assert (first.__name__, first.__doc__) == ("first", "Twice.")
    with pytest.raises(ValueError), treadle.no_grad():
        raise ValueError
    assert treadle.is_grad_enabled()


def test_modes_on_generators_hold_only_while_these_run() -> None:
    @treadle.no_grad()
    def numbers(t: Any) -> Iterator[Any]:
        for i in range(3):
            got = yield t * i
            if got:
                yield got

    x = leaf(1.0)
    steps = numbers(x)
    for t in steps:
        assert not t.requires_grad
        assert treadle.is_grad_enabled()
    steps = numbers(x)
    next(steps)
    assert steps.send("sent") == "sent"
    with pytest.raises(KeyError):
        steps.throw(KeyError("x"))
    steps = numbers(x)
    next(steps)
    steps.close()
    assert treadle.is_grad_enabled()


def test_set_grad_enabled_and_inference_mode() -> None:
    x = leaf(1.0)
    treadle.set_grad_enabled(False)
    assert not (x * 2).requires_grad
    treadle.set_grad_enabled(True)
    with treadle.set_grad_enabled(False):
        assert not (x * 2).requires_grad
    assert treadle.is_grad_enabled()

    @treadle.set_grad_enabled(False)
    def quiet(t: Any) -> Any:
        return t * 2

    assert treadle.is_grad_enabled()
    assert not quiet(x).requires_grad
    with treadle.inference_mode():
        assert not (x * 2).requires_grad
    with treadle.inference_mode(False):
        assert (x * 2).requires_grad


# --- requires_grad -----------------------------------------------------------------------------


def test_requires_grad_of_pending_and_viewed_values() -> None:
    x = (treadle.ones(2) * 3).requires_grad_()
    assert x.is_leaf
    (x * x).sum().backward()
    close(x.grad, [6, 6])
    base = treadle.arange(4.0)
    v = base[:2].requires_grad_()
    (v * 2).sum().backward()
    close(v.grad, [2, 2])
    x.requires_grad_(False)
    assert not (x * 2).requires_grad
    with pytest.raises(RuntimeError, match="floating point"):
        treadle.tensor([1]).requires_grad_()
    y = leaf(1.0) * 2
    with pytest.raises(RuntimeError, match="leaf"):
        y.requires_grad_(False)


def test_detach_cuts_the_history() -> None:
    x = leaf(2.0)
    (x * x.detach()).sum().backward()
    close(x.grad, [2])
    y = x * x
    y.detach_()
    assert y.is_leaf and not y.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        y.backward()


# --- copies, threads, memory -------------------------------------------------------------------


def test_copies() -> None:
    x = leaf(1.0, 2.0)
    twin = copy.deepcopy(x)
    assert twin.requires_grad and twin.is_leaf
    with treadle.no_grad():
        twin.add_(1)
    close(x, [1, 2])
    close(twin, [2, 3])
    table = {"a": x, "b": [x]}
    copied = copy.deepcopy(table)
    assert copied["a"] is copied["b"][0]
    with pytest.raises(RuntimeError, match="leaves"):
        copy.deepcopy(x * 2)
    for dtype in (treadle.float32, treadle.bfloat16, treadle.int64, treadle.bool):
        t = treadle.tensor([[1, 0]]).to(dtype)
        back = pickle.loads(pickle.dumps(t))
        assert back.dtype is dtype
        assert treadle.equal(back, t)
    assert pickle.loads(pickle.dumps(x)).requires_grad


def test_threads_record_at_once() -> None:
    shared = leaf(1.0, 2.0, 3.0)
    base = shared.detach() * 2
    failures: list[BaseException] = []

    def work(n: int) -> None:
        try:
            for i in range(20):
                w = treadle.full((3,), float(n), dtype=treadle.float64).requires_grad_()
                y = (w * base * (i + 1)).sum()
                y.backward()
                close(w.grad, base.numpy() * (i + 1))
                with treadle.no_grad():
                    assert not (w * 2).requires_grad
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def _objects(kind: type) -> int:
    gc.collect()
    return sum(type(o) is kind for o in gc.get_objects())


@pytest.mark.parametrize("read", [False, True])
def test_a_loop_keeps_no_tensors_and_no_traces(read: bool) -> None:
    w = treadle.rand(4, 4, dtype=treadle.float64).requires_grad_()

    def step(i: int) -> None:
        x = treadle.full((2, 4), i + 2.0, dtype=treadle.float64)
        loss = (x @ w).tanh().sum()
        if read:
            assert loss.item() == loss.item()
        loss.backward()
        with treadle.no_grad():
            w.sub_(w.grad * 0.01)
        w.grad = None
        treadle.flush()

    for i in (*range(5), *range(5)):
        step(i)
    tensors, traces, states = _objects(treadle.Tensor), _objects(Trace), TRIE.size
    for i in range(20):
        step(i)
    assert _objects(treadle.Tensor) <= tensors
    assert _objects(Trace) <= traces + 1
    assert TRIE.size <= states + 5


def test_custom_names_of_gradient_functions() -> None:
    x = leaf(1.0)
    assert x.grad_fn is None
    assert (x + 1).grad_fn.name() == "AddBackward0"
    y = x.exp()
    assert y.item() > 0
    z = y * 2
    assert z.item() > 0
    assert repr(y.grad_fn) == "<ExpBackward0>"
