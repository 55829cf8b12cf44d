"""One training step of the small convolutional net, batch 64: treadle, PyTorch, torch.compile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from digit_step import batch
from harness import alone, compare, compiled_or_none, report, torch_or_none


def network(nn: Any) -> Any:
    """1 to 32 to 64 channels by 3x3, max pool, dropout, 9216 to 128 to 10."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Dropout(0.25), nn.Flatten(), nn.Linear(9216, 128), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(128, 10),
    )  # fmt: skip


def conv_step(torch: Any, model: Any, x: Any, y: Any) -> Callable[[], Any]:
    """A step of SGD with momentum."""
    criterion = torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.from_numpy(x), torch.from_numpy(y)

    def step() -> Any:
        optimizer.zero_grad()
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    return step


def main() -> None:
    """Prints the medians."""
    import treadle
    import treadle.nn
    import treadle.optim

    x, y = batch()
    contenders = {"treadle": conv_step(treadle, network(treadle.nn), x, y)}
    torch = torch_or_none()
    if torch is not None:
        contenders["PyTorch eager"] = conv_step(torch, network(torch.nn), x, y)
        compiled = compiled_or_none(torch, network(torch.nn))
        if compiled is not None:
            contenders["PyTorch compiled"] = conv_step(torch, compiled, x, y)
    for step in contenders.values():
        step()
    with alone():
        seconds = compare(contenders, rounds=15, inner=3, warm=3, settle=0.02)
    report("small convolutional net, one training step, batch 64", seconds, bar="<= 27 ms where "
           "PyTorch takes 52")  # fmt: skip


if __name__ == "__main__":
    main()
