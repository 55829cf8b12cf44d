"""Random tensors: reproducible, and of the distribution that their names say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import treadle

stats = pytest.importorskip("scipy.stats")
N = 20_000
DRAWS: dict[str, tuple[Callable[[], Any], Any]] = {
    "rand": (lambda: treadle.rand(N), stats.uniform().cdf),
    "randn": (lambda: treadle.randn(N), stats.norm().cdf),
    "rand double": (lambda: treadle.rand(N, dtype=treadle.float64), stats.uniform().cdf),
    "normal": (lambda: treadle.normal(2.0, 3.0, (N,)), stats.norm(2, 3).cdf),
    "normal of tensors": (
        lambda: (treadle.normal(treadle.arange(4.0).repeat(N // 4), 2.0)
                 - treadle.arange(4.0).repeat(N // 4)), stats.norm(0, 2).cdf,
    ),
    "uniform_": (lambda: treadle.zeros(N).uniform_(-1, 3), stats.uniform(-1, 4).cdf),
    "normal_": (lambda: treadle.zeros(N).normal_(1, 2), stats.norm(1, 2).cdf),
    "exponential_": (lambda: treadle.zeros(N).exponential_(2.0), stats.expon(scale=0.5).cdf),
    "cauchy_": (lambda: treadle.zeros(N).cauchy_(1.0, 2.0), stats.cauchy(1, 2).cdf),
    "log_normal_": (lambda: treadle.zeros(N).log_normal_(0.5, 0.7),
                    stats.lognorm(0.7, scale=np.exp(0.5)).cdf),
}  # fmt: skip


@pytest.mark.parametrize("name", DRAWS)
def test_distributions(name: str) -> None:
    draw, cdf = DRAWS[name]
    treadle.manual_seed(5)
    values = draw()
    treadle.manual_seed(5)
    assert treadle.equal(values, draw())
    assert not treadle.equal(values, draw())
    assert stats.kstest(values.numpy().astype(np.float64), cdf).pvalue > 1e-3


def test_counts() -> None:
    treadle.manual_seed(1)
    weights = treadle.tensor([1.0, 0.0, 3.0, 4.0])
    drawn = treadle.multinomial(weights, N, replacement=True)
    want = np.array([1, 0, 3, 4]) / 8
    np.testing.assert_allclose(drawn.bincount(minlength=4).numpy() / N, want, atol=0.015)
    pairs = treadle.multinomial(weights.repeat(N // 4, 1), 2)
    assert tuple(pairs.shape) == (N // 4, 2)
    assert not (pairs == 1).any()
    assert (pairs[:, 0] != pairs[:, 1]).all()
    np.testing.assert_allclose(
        pairs[:, 0].bincount(minlength=4).numpy() / (N // 4), want, atol=0.03
    )
    with pytest.raises(RuntimeError, match="without replacement"):
        treadle.multinomial(weights, 5)


def test_whole_numbers() -> None:
    treadle.manual_seed(2)
    values = treadle.randint(-3, 4, (N,))
    assert values.dtype is treadle.int64
    counts = (values + 3).bincount().numpy()
    assert stats.chisquare(counts).pvalue > 1e-3
    assert sorted(treadle.randperm(100).tolist()) == list(range(100))
    trials = treadle.zeros(N).geometric_(0.25)
    assert abs(trials.mean().item() - 4) < 0.15 and trials.min().item() == 1
    assert abs(treadle.bernoulli(treadle.full((N,), 0.3)).mean().item() - 0.3) < 0.02
    assert abs(treadle.poisson(treadle.full((N,), 3.0)).mean().item() - 3) < 0.1
    small = treadle.zeros(N, dtype=treadle.int8).random_()
    assert small.min().item() == 0 and small.max().item() == 127
    assert treadle.zeros(N).random_(5, 8).unique().tolist() == [5, 6, 7]
    with pytest.raises(ValueError, match="high - low"):
        treadle.randint(3, 3, (2,))


def test_generators_are_streams_of_their_own() -> None:
    g = treadle.Generator().manual_seed(3)
    first = treadle.randn(4, generator=g)
    state = g.get_state()
    second = treadle.randn(4, generator=g)
    g.set_state(state)
    assert treadle.equal(second, treadle.randn(4, generator=g))
    assert not treadle.equal(first, second)
    treadle.manual_seed(9)
    kept = treadle.get_rng_state()
    a = treadle.rand(3)
    treadle.set_rng_state(kept)
    assert treadle.equal(a, treadle.rand(3))
    assert treadle.initial_seed() == 9
