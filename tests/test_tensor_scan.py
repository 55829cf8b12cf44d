"""`scan` against the loop written out, PyTorch and finite differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import treadle
from treadle import nn
from treadle.autograd import gradcheck, gradgradcheck
from treadle.base.errors import DTypeError, ShapeError
from treadle.codegen.compile import counts


def leaf(*shape: int, seed: int = 0) -> Any:
    values = np.random.default_rng(seed).normal(size=shape, scale=0.5)
    return treadle.from_numpy(values).requires_grad_()


def gated(w: Any, b: Any) -> Any:
    """A step with two carries in a dict and outputs in a tuple."""

    def step(state: Any, x: Any) -> Any:
        h, c = state["h"], state["c"]
        a = h @ w + x
        c = (c * a.sigmoid() + b * a.tanh()) * 0.9
        h = c.tanh() + x
        return {"h": h, "c": c}, (h * c, a.sum(1))

    return step


def written_out(step: Any, state: Any, xs: Any, reverse: bool) -> Any:
    outs: list[Any] = [None] * xs.shape[0]
    for t in range(xs.shape[0])[:: -1 if reverse else 1]:
        state, outs[t] = step(state, xs[t])
    return state, tuple(treadle.stack(list(each)) for each in zip(*outs, strict=True))


@pytest.mark.parametrize("reverse", [False, True])
def test_values_and_gradients_are_those_of_the_loop_written_out(reverse: bool) -> None:
    results = []
    for run in (treadle.scan, written_out):
        w, b, xs, h = leaf(3, 3), leaf(3), leaf(5, 2, 3, seed=1), leaf(2, 3, seed=2)
        state = {"h": h, "c": treadle.zeros(2, 3, dtype=treadle.float64)}
        last, (ys, sums) = run(gated(w, b), state, xs, reverse=reverse)
        loss = (ys * ys).sum() + sums.sin().sum() + last["h"].exp().sum() + last["c"].sum()
        loss.backward()
        values = [loss, ys, sums, last["h"], last["c"], w.grad, b.grad, xs.grad, h.grad]
        results.append([v.detach().numpy() for v in values])
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, 1e-12, 1e-12)


def test_derivatives_of_both_orders() -> None:
    def run(w: Any, xs: Any, h: Any) -> Any:
        def step(h: Any, x: Any) -> Any:
            h = (h @ w + x).tanh()
            return h, h * x

        last, ys = treadle.scan(step, h, xs)
        return ys.sum() + (last * last).sum()

    inputs = (leaf(2, 2), leaf(3, 1, 2, seed=1), leaf(1, 2, seed=2))
    assert gradcheck(run, inputs)
    assert gradgradcheck(run, inputs)


def test_a_loss_that_is_read_before_the_backward_pass() -> None:
    """What gradients use is kept, and the loop does not run a second time."""
    grads = []
    for read in (False, True):
        w, xs = leaf(3, 3), leaf(6, 2, 3, seed=1)

        def step(h: Any, x: Any, w: Any = w) -> Any:
            h = (h @ w + x).tanh()
            return h, (h * 2).exp()

        loss = treadle.scan(step, treadle.zeros(2, 3, dtype=treadle.float64), xs)[1].sum()
        if read:
            loss.item()
            loss.backward()
            plan = treadle.show(w.grad, "plan")
            assert plan.count("times:") == 1
            assert "tanh" not in plan
        else:
            loss.backward()
        grads.append((w.grad.numpy(), xs.grad.numpy()))
    for a, b in zip(*grads, strict=True):
        np.testing.assert_allclose(a, b, 1e-12)


def test_detached_values_pass_no_gradient() -> None:
    w, xs = leaf(3), leaf(4, 3, seed=1)

    def step(h: Any, x: Any) -> Any:
        with treadle.no_grad():
            scale = (h * w).exp()
        h = h.detach() * w + x * scale
        return h, h

    last, ys = treadle.scan(step, treadle.ones(3, dtype=treadle.float64), xs)
    ys.sum().backward()
    h, grad_w, grad_x = np.ones(3), np.zeros(3), []
    for x in xs.detach().numpy():
        scale = np.exp(h * w.detach().numpy())
        grad_w += h
        grad_x.append(scale)
        h = h * w.detach().numpy() + x * scale
    np.testing.assert_allclose(w.grad.numpy(), grad_w, 1e-12)
    np.testing.assert_allclose(xs.grad.numpy(), grad_x, 1e-12)
    np.testing.assert_allclose(last.detach().numpy(), h, 1e-12)


def test_under_no_grad_nothing_has_a_history() -> None:
    w = leaf(3)
    with treadle.no_grad():
        last, ys = treadle.scan(lambda h, x: (h * w + x, h), w, leaf(4, 3))
    assert not last.requires_grad
    assert not ys.requires_grad


def test_outputs_that_are_inputs_constants_or_nothing() -> None:
    xs, w = treadle.arange(4), treadle.tensor([1, 2])
    last, (a, b, c, d, e) = treadle.scan(
        lambda h, x: (h + x, (h, x, w, h + x, None)), treadle.tensor(10), xs
    )
    assert last.item() == 16
    assert a.tolist() == [10, 10, 11, 13]
    assert b.tolist() == [0, 1, 2, 3]
    assert c.tolist() == [[1, 2]] * 4
    assert d.tolist() == [10, 11, 13, 16]
    assert e is None


def test_a_length_without_sequences_and_an_empty_one() -> None:
    last, ys = treadle.scan(lambda h, x: (h * 2, h), treadle.tensor(1.0), length=5)
    assert (last.item(), ys.tolist()) == (32.0, [1.0, 2.0, 4.0, 8.0, 16.0])
    last, ys = treadle.scan(lambda h, x: (h + x, h), treadle.tensor(1.0), treadle.zeros(0))
    assert (last.item(), ys.shape) == (1.0, (0,))


def test_pending_tensors_views_and_numbers_from_outside() -> None:
    base = treadle.arange(6.0)
    row = base[1:3]
    base += 1
    pending = treadle.ones(2) * 3
    factor = 0.5
    last, _ = treadle.scan(
        lambda h, x: (h * factor + row * x + pending, None), treadle.zeros(2), treadle.arange(3.0)
    )
    h = np.zeros(2)
    for t in range(3):
        h = h * 0.5 + np.array([2.0, 3.0]) * t + 3
    np.testing.assert_allclose(last.numpy(), h)
    assert row.tolist() == [2.0, 3.0]
    assert pending.tolist() == [3.0, 3.0]


def test_a_scan_in_a_scan() -> None:
    w, xs = leaf(3), leaf(4, 5, 3)

    def outer(h: Any, row: Any) -> Any:
        h, ys = treadle.scan(lambda h, x: ((h * w + x).tanh(), h), h, row)
        return h, ys.sum(0)

    last, ys = treadle.scan(outer, treadle.zeros(3, dtype=treadle.float64), xs)
    ys.sum().backward()
    ours = w.grad.numpy().copy()
    w.grad = None
    h, total = treadle.zeros(3, dtype=treadle.float64), 0.0
    for i in range(4):
        for j in range(5):
            total = total + h.sum()
            h = (h * w + xs[i, j]).tanh()
    total.backward()
    np.testing.assert_allclose(ours, w.grad.numpy(), 1e-11)
    np.testing.assert_allclose(last.detach().numpy(), h.detach().numpy(), 1e-12)


def test_compiled_functions_hold_scans() -> None:
    layer = nn.LSTM(3, 4)
    x = treadle.randn(5, 2, 3)

    @treadle.compile
    def run(x: Any) -> Any:
        return layer(x)[0]

    for scale in (1.0, 2.0, 3.0):
        np.testing.assert_allclose(
            run(x * scale).detach().numpy(), layer(x * scale)[0].detach().numpy(), 1e-5, 1e-6
        )


def test_random_numbers_of_compiled_scans_differ_from_call_to_call() -> None:
    @treadle.compile
    def run(x: Any) -> Any:
        return treadle.scan(lambda h, x: (h + x, treadle.rand(4)), treadle.zeros(()), x)[1]

    first, second, third = (run(treadle.ones(3)).numpy() for _ in range(3))
    assert (first != second).any()
    assert (second != third).any()
    np.testing.assert_array_equal(first[0], first[1])


def test_op_by_op() -> None:
    with treadle.eager():
        last, ys = treadle.scan(lambda h, x: (h + x, h * x), treadle.zeros(()), treadle.ones(3))
        assert (last.item(), ys.tolist()) == (3.0, [0.0, 1.0, 2.0])


@pytest.mark.parametrize(
    ("step", "error", "words"),
    [
        (lambda h, x: (h, x) if h.sum() > 0 else (x, h), RuntimeError, "not known while"),
        (lambda h, x: (h.sum(), x), ShapeError, r"shape \(3,\) becomes one of shape \(\)"),
        (lambda h, x: (h.double(), x), DTypeError, "float32 becomes float64"),
        (lambda h, x: ((h, h), x), TypeError, "another structure"),
        (lambda h, x: (h, 3), TypeError, "made of tensors, not int"),
    ],
)
def test_mistakes_in_a_step(step: Any, error: type[Exception], words: str) -> None:
    h, xs = treadle.zeros(3), treadle.ones(4, 3)
    with pytest.raises(error, match=words):
        treadle.scan(step, h, xs)
    assert (h + 1).tolist() == [1.0, 1.0, 1.0]


def test_values_that_leave_a_step_by_a_side_door() -> None:
    kept: list[Any] = []

    def step(h: Any, x: Any) -> Any:
        kept.append(h + x)
        return h, x

    treadle.scan(step, treadle.zeros(3), treadle.ones(4, 3))
    with pytest.raises(RuntimeError, match="never computed"):
        kept[0].tolist()


def test_mistakes_around_a_step() -> None:
    h, xs = treadle.zeros(3), treadle.ones(4, 3)
    with pytest.raises(ShapeError, match="one length, found 4, 5"):
        treadle.scan(lambda h, x: (h, x), h, (xs, treadle.ones(5)))
    with pytest.raises(ShapeError, match="one length, found none"):
        treadle.scan(lambda h, x: (h, x), h)
    with pytest.raises(ShapeError, match="without dimensions"):
        treadle.scan(lambda h, x: (h, x), h, treadle.ones(()))
    outside = treadle.ones(3)

    def writes(h: Any, x: Any) -> Any:
        outside.add_(x)
        return h, x

    with pytest.raises(RuntimeError, match="writes to a tensor from outside"):
        treadle.scan(writes, h, xs)
    assert outside.tolist() == [1.0, 1.0, 1.0]


def test_sequences_of_other_lengths_compile_nothing() -> None:
    layer = nn.LSTM(3, 4, 2, bidirectional=True)
    optimizer = treadle.optim.Adam(layer.parameters())

    def step(length: int, n: int) -> None:
        optimizer.zero_grad()
        layer(treadle.randn(length, n, 3))[0].square().mean().backward()
        optimizer.step()

    # The second length makes the template for all others, and may decide otherwise once.
    step(6, 5)
    step(8, 5)
    before = counts.compiled + counts.loaded
    for length, n in ((5, 5), (9, 5), (7, 4), (2, 3), (4, 6)):
        step(length, n)
    assert counts.compiled + counts.loaded == before


def test_an_lstm_trains_as_in_pytorch() -> None:
    torch = pytest.importorskip("torch")
    ours, theirs = nn.LSTM(8, 16, 2, dtype=treadle.float64), torch.nn.LSTM(8, 16, 2).double()
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    ours.load_state_dict({k: treadle.from_numpy(v) for k, v in state.items()})
    optimizers = (
        treadle.optim.Adam(ours.parameters(), lr=1e-2),
        torch.optim.Adam(theirs.parameters(), lr=1e-2),
    )
    rng = np.random.default_rng(0)
    for length in (7, 7, 4, 9):
        x = rng.normal(size=(length, 3, 8))
        losses = []
        for library, layer, optimizer in zip(
            (treadle, torch), (ours, theirs), optimizers, strict=True
        ):
            optimizer.zero_grad()
            out, (h, c) = layer(library.from_numpy(x))
            loss = (out * out).mean() + h.sin().sum() + c.square().sum()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        np.testing.assert_allclose(losses[0], losses[1], 1e-10)
    for name, value in theirs.state_dict().items():
        got = ours.state_dict()[name].numpy()
        np.testing.assert_allclose(got, value.numpy(), 1e-8, 1e-9)


@pytest.mark.parametrize("reverse", [False, True])
def test_plans_for_many_lengths(reverse: bool) -> None:
    """Plans for further lengths are made from formulas: of odd and even ones, with and without a
    history of the carries."""
    w = np.random.default_rng(0).normal(size=3)
    factor = treadle.from_numpy(w)

    def step(state: Any, x: Any) -> Any:
        a, b = state
        return (b * factor + x, a), a * x

    for length in (5, 7, 9, 6, 8, 10, 11, 4, 1, 2, 3, 2, 13):
        xs = np.random.default_rng(length).normal(size=(length, 3))
        (a, b), ys = treadle.scan(
            step, (treadle.from_numpy(w), treadle.from_numpy(w + 1)), treadle.from_numpy(xs),
            reverse=reverse,
        )  # fmt: skip
        want_a, want_b, want = w, w + 1, np.zeros((length, 3))
        for t in range(length)[:: -1 if reverse else 1]:
            want[t] = want_a * xs[t]
            want_a, want_b = want_b * w + xs[t], want_a
        results = [a, b, ys] if length % 3 else [a, b]
        for got, expected in zip(results, (want_a, want_b, want), strict=False):
            np.testing.assert_allclose(got.numpy(), expected, 1e-12)
