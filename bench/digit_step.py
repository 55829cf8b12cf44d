"""One training step of the digit script, the batch ready in memory: treadle and its peers."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from harness import alone, compare, jax_or_none, report, torch_or_none


def batch(n: int = 64) -> tuple[Any, Any]:
    """A batch of the digits' shape: pixels of a normal distribution, labels 0 to 9."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, 1, 28, 28), np.float32), rng.integers(0, 10, n)


def script_step(torch: Any, x: Any, y: Any) -> Callable[[], Any]:
    """The step as the script writes it, for any framework with PyTorch's names."""
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc1 = nn.Linear(28 * 28, 128)
            self.relu = nn.ReLU()
            self.fc2 = nn.Linear(128, 10)

        def forward(self, x: Any) -> Any:
            x = x.view(-1, 28 * 28)
            return self.fc2(self.relu(self.fc1(x)))

    model = Net()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def torch_compiled(torch: Any, x: Any, y: Any) -> Callable[[], Any]:
    """The step with the model under torch.compile."""
    model = torch.compile(
        torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10)
        )
    )
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def jax_step(jax: Any, x: Any, y: Any) -> Callable[[], Any]:
    """The step as one jitted function with donated state."""
    jnp = jax.numpy
    rng = np.random.default_rng(1)
    shapes = {"w1": (784, 128), "b1": (128,), "w2": (128, 10), "b2": (10,)}
    params = {k: jnp.asarray(rng.standard_normal(s) * 0.05, jnp.float32) for k, s in shapes.items()}
    momentum = {k: jnp.zeros(s, jnp.float32) for k, s in shapes.items()}

    def loss_of(p: Any, x: Any, y: Any) -> Any:
        h = jax.nn.relu(x.reshape(-1, 784) @ p["w1"] + p["b1"])
        logits = jax.nn.log_softmax(h @ p["w2"] + p["b2"])
        return -jnp.take_along_axis(logits, y[:, None], 1).mean()

    def update(p: Any, m: Any, x: Any, y: Any) -> Any:
        loss, g = jax.value_and_grad(loss_of)(p, x, y)
        m = {k: 0.9 * m[k] + g[k] for k in m}
        return {k: p[k] - 0.01 * m[k] for k in p}, m, loss

    jitted = jax.jit(update, donate_argnums=(0, 1))
    state = [params, momentum]
    jx, jy = jnp.asarray(x), jnp.asarray(y.astype(np.int32))

    def step() -> Any:
        state[0], state[1], loss = jitted(state[0], state[1], jx, jy)
        return loss.block_until_ready()

    return step


def main() -> None:
    """Prints the medians, for the whole step and under `compile`."""
    import treadle
    import treadle.nn
    import treadle.optim

    x, y = batch()
    ours = script_step(treadle, treadle.from_numpy(x), treadle.from_numpy(y))
    contenders: dict[str, Callable[[], Any]] = {
        "treadle": ours,
        "treadle.compile": treadle.compile(
            script_step(treadle, treadle.from_numpy(x), treadle.from_numpy(y))
        ),
    }
    torch = torch_or_none()
    if torch is not None:
        tx, ty = torch.from_numpy(x), torch.from_numpy(y)
        contenders["PyTorch eager"] = script_step(torch, tx, ty)
        if "--no-compile" not in sys.argv:
            contenders["torch.compile"] = torch_compiled(torch, tx, ty)
    jax = jax_or_none()
    if jax is not None:
        contenders["JAX jit"] = jax_step(jax, x, y)
    with alone():
        seconds = compare(contenders, rounds=15, inner=200, warm=30, settle=0.05)
    report(
        "digit script, one training step, batch 64", seconds,
        bar="<= 0.55x PyTorch and below JAX; compiled <= 0.55x JAX", unit=1e6,
    )  # fmt: skip


if __name__ == "__main__":
    main()
