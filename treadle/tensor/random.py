"""Random tensors from a counter-based generator: the same seed gives the same bits anywhere.

Every call takes the next 64-bit key of a generator; the elements are a pure function of the key
and their position (Philox, see `ir/philox.py`), drawn inside the kernel that uses them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from treadle.base import dtype as dt
from treadle.base import shape as sh
from treadle.base.dtype import DType
from treadle.base.errors import ShapeError
from treadle.base.lazy import LazyModule
from treadle.ops.pointwise import CAST
from treadle.ops.source import FULL, RANDOM_BITS
from treadle.tensor import arithmetic as ar
from treadle.tensor.creation import from_numpy
from treadle.tensor.movement import narrow, sizes
from treadle.tensor.ordering import searchsorted, topk
from treadle.tensor.promote import as_dtype, floating, get_default_dtype
from treadle.tensor.record import Lazy, block, record, scalar
from treadle.tensor.statistics import cumsum

if TYPE_CHECKING:
    from treadle.tensor.tensor_class import Tensor

np = LazyModule("numpy")

_MASK: Final = (1 << 64) - 1


def _mix(x: int) -> int:
    """SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): spreads consecutive numbers over 64 bits."""
    x = (x + 0x9E3779B97F4A7C15) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return x ^ (x >> 31)


class Generator:
    """A stream of random keys.

    Example:
        >>> import treadle
        >>> g = treadle.Generator().manual_seed(1)
        >>> a = treadle.rand(2, generator=g)
        >>> g = treadle.Generator().manual_seed(1)
        >>> treadle.equal(a, treadle.rand(2, generator=g))
        True
    """

    def __init__(self, device: Any = None) -> None:
        self._seed = 0
        self._count = 0

    def manual_seed(self, seed: int) -> Generator:
        """Starts the stream of a seed; returns the generator."""
        self._seed = int(seed) & _MASK
        self._count = 0
        return self

    def seed(self) -> int:
        """Starts the stream of a seed from the system, which is returned."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little"))
        return self._seed

    def initial_seed(self) -> int:
        """The seed of the stream."""
        return self._seed

    def get_state(self) -> tuple[int, int]:
        """The seed and the number of keys taken."""
        return self._seed, self._count

    def set_state(self, state: tuple[int, int]) -> None:
        """Goes on where `get_state` was called."""
        self._seed, self._count = state

    def next_key(self) -> int:
        """The next key: a signed 64-bit number."""
        self._count += 1
        key = _mix(_mix(self._seed) ^ self._count)
        return key - (1 << 64) if key >> 63 else key


default_generator: Final = Generator()
default_generator.seed()


def manual_seed(seed: int) -> Generator:
    """Starts the stream of a seed in the default generator, which is returned."""
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seeds the default generator from the system; returns the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Any:
    """The state of the default generator."""
    return default_generator.get_state()


def set_rng_state(state: Any) -> None:
    """Restores a state of the default generator."""
    default_generator.set_state(state)


def next_key(generator: Generator | None = None) -> Any:
    """The next key of a generator as a scalar input of the plan."""
    draw = (generator or default_generator).next_key
    return scalar(draw(), dt.int64, draw)


def host_generator(generator: Generator | None = None) -> Any:
    """A NumPy generator on the next key: for what is drawn on the host, such as a shuffle."""
    key = (generator or default_generator).next_key() & _MASK
    return np.random.Generator(np.random.Philox(key=key))


# --- distributions -----------------------------------------------------------------------------


def uniform(key: Any, shape: tuple[int, ...], dtype: DType) -> Any:
    """Uniform on [0, 1), from the upper 24 bits of each element's random word."""
    bits = record(RANDOM_BITS, (key,), (shape,))
    eight = record(FULL, (), ((), 256, dt.uint32))
    wide = dt.float64 if dtype is dt.float64 else dt.float32
    whole = record(CAST, (ar.floor_divide(bits, eight),), (wide,))
    scale = record(FULL, (), ((), 2.0**-24, wide))
    return as_dtype(ar.mul(whole, scale), dtype)


def _normal(key: Any, other: Any, shape: tuple[int, ...], dtype: DType) -> Any:
    """Standard normal by Box and Muller (Ann. Math. Statist. 29, 1958)."""
    wide = dt.float64 if dtype is dt.float64 else dt.float32
    u, v = uniform(key, shape, wide), uniform(other, shape, wide)
    one = record(FULL, (), ((), 1.0, wide))
    two_pi = record(FULL, (), ((), 2 * math.pi, wide))
    minus_two = record(FULL, (), ((), -2.0, wide))
    radius = ar.sqrt(ar.mul(ar.log(ar.sub(one, u)), minus_two))
    return as_dtype(ar.mul(radius, ar.cos(ar.mul(v, two_pi))), dtype)


def _finish(t: Any, requires_grad: bool) -> Any:
    return t.requires_grad_() if requires_grad else t


def rand(*size: Any, generator: Generator | None = None, dtype: DType | None = None,
         device: Any = None, requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Uniform on [0, 1)."""
    out = block(uniform, (next_key(generator),), (sizes(size), dtype or get_default_dtype()))
    return _finish(out, requires_grad)


def randn(*size: Any, generator: Generator | None = None, dtype: DType | None = None,
          device: Any = None, requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Standard normal."""
    keys = (next_key(generator), next_key(generator))
    out = block(_normal, keys, (sizes(size), dtype or get_default_dtype()))
    return _finish(out, requires_grad)


def rand_like(input: Tensor, *, generator: Generator | None = None, dtype: DType | None = None,
              device: Any = None, requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Uniform on [0, 1), of the shape and dtype of another tensor."""
    return rand(*input._node.shape, generator=generator, dtype=dtype or input._node.dtype,
                device=device, requires_grad=requires_grad)  # fmt: skip


def randn_like(input: Tensor, *, generator: Generator | None = None, dtype: DType | None = None,
               device: Any = None, requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Standard normal, of the shape and dtype of another tensor."""
    return randn(*input._node.shape, generator=generator, dtype=dtype or input._node.dtype,
                 device=device, requires_grad=requires_grad)  # fmt: skip


def normal(mean: Any, std: Any = 1.0, size: Sequence[int] | None = None, *,
           generator: Generator | None = None, dtype: DType | None = None, device: Any = None,
           requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Normal of a mean and a standard deviation: two numbers and a size, or tensors."""
    tensors = [x for x in (mean, std) if isinstance(x, Lazy)]
    if size is None:
        if not tensors:
            raise TypeError("normal: two numbers need a size")
        size = sh.broadcast(*(x._node.shape for x in tensors))
    wanted = dtype or (tensors[0]._node.dtype if tensors else None)
    out = ar.add(ar.mul(randn(sizes((size,)), generator=generator, dtype=wanted), std), mean)
    return _finish(out, requires_grad)


def _integers(key: Any, low: Any, span: Any, shape: tuple[int, ...]) -> Any:
    bits = as_dtype(record(RANDOM_BITS, (key,), (shape,)), dt.int64)
    return ar.add(ar.remainder(bits, span), low)


def randint(low: int, high: Any = None, size: Sequence[int] | None = None, *,
            generator: Generator | None = None, dtype: DType | None = dt.int64,
            device: Any = None, requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Whole numbers from `low` up to but without `high`: `randint(low, high, size)`, or
    `randint(high, size)` from 0.

    Raises:
        ValueError: the interval is empty, or wider than 2^32.
    """
    if isinstance(high, (tuple, list)):
        high, size = None, high
    if size is None:
        raise TypeError("randint: a size is needed")
    first, last = (0, low) if high is None else (low, high)
    if not 0 < last - first <= 2**32:
        raise ValueError(f"randint: expected 0 < high - low <= 2**32, got [{first}, {last})")
    inputs = (next_key(generator), scalar(first, dt.int64), scalar(last - first, dt.int64))
    out = as_dtype(block(_integers, inputs, (sizes((size,)),)), dtype or dt.int64)
    return _finish(out, requires_grad)


def randperm(n: int, *, generator: Generator | None = None, dtype: DType = dt.int64,
             device: Any = None) -> Tensor:  # fmt: skip
    """A random order of `0 .. n-1`."""
    return from_numpy(host_generator(generator).permutation(n).astype(dtype.numpy))


def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that each element gives, else 0."""
    u = block(uniform, (next_key(generator),), (input._node.shape, input._node.dtype))
    return as_dtype(ar.lt(u, input), input._node.dtype)


def multinomial(input: Tensor, num_samples: int, replacement: bool = False, *,
                generator: Generator | None = None) -> Tensor:  # fmt: skip
    """Positions drawn with the given weights, `(.., num_samples)` from `(.., n)`.

    Without replacement the largest of `log(weight) + Gumbel noise` are taken, which draws them one
    after another (Efraimidis and Spirakis, 2006).

    Raises:
        ShapeError: there are fewer elements than samples to draw without replacement.
    """
    weights = floating(input).detach()
    shape = tuple(weights._node.shape)
    if not replacement and num_samples > shape[-1]:
        raise ShapeError(
            f"multinomial: cannot draw {num_samples} of {shape[-1]} elements without replacement"
        )
    if replacement:
        total = cumsum(weights, -1)
        u = rand(*shape[:-1], num_samples, generator=generator, dtype=weights._node.dtype)
        return searchsorted(total, ar.mul(u, narrow(total, -1, shape[-1] - 1, 1)), right=True)
    noise = ar.neg(ar.log1p(ar.neg(rand(*shape, generator=generator, dtype=weights._node.dtype))))
    # The smallest of exponential times divided by their rates are the first to happen.
    return topk(ar.div(noise, weights), num_samples, largest=False).indices


def poisson(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """Poisson numbers of the given rates; reads these."""
    drawn = host_generator(generator).poisson(input.detach().numpy())
    return from_numpy(drawn.astype(input._node.dtype.numpy))


def randint_like(input: Tensor, low: int, high: int | None = None, *,
                 generator: Generator | None = None, dtype: DType | None = None,
                 device: Any = None, requires_grad: bool = False) -> Tensor:  # fmt: skip
    """Whole numbers on an interval, of the shape and dtype of another tensor."""
    return randint(low, high, input._node.shape, generator=generator,
                   dtype=dtype or input._node.dtype, device=device,
                   requires_grad=requires_grad)  # fmt: skip
