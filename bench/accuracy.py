"""The accuracy that the digit script reaches, over five seeds: treadle and PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
from harness import report, torch_or_none


def accuracy(torch: Any, data: dict[str, Any], seed: int, epochs: int = 5) -> float:
    """Trains the script's model on normalised digits in memory; the share named right."""
    torch.manual_seed(seed)
    nn = torch.nn
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    order = np.random.default_rng(seed)
    x, y = data["x"], data["y"]
    for _ in range(epochs):
        shuffled = order.permutation(len(x))
        for start in range(0, len(x), 64):
            part = shuffled[start : start + 64]
            optimizer.zero_grad()
            criterion(model(torch.from_numpy(x[part])), torch.from_numpy(y[part])).backward()
            optimizer.step()
    with torch.no_grad():
        guesses = model(torch.from_numpy(data["tx"])).argmax(1)
        return float((guesses == torch.from_numpy(data["ty"])).sum().item()) / len(data["ty"])


def main() -> None:
    """Prints each seed's accuracy and the means."""
    import treadle
    import treadle.nn
    import treadle.optim
    from treadle.vision import datasets

    data = {}
    for train, keys in ((True, ("x", "y")), (False, ("tx", "ty"))):
        digits = datasets.MNIST("data", train=train, download=True)
        data[keys[0]] = (digits.data.numpy().astype(np.float32) / 255 - 0.5) / 0.5
        data[keys[1]] = digits.targets.numpy()
    contenders = {"treadle": treadle}
    torch = torch_or_none()
    if torch is not None:
        contenders["PyTorch"] = torch
    means = {}
    for name, framework in contenders.items():
        found = [accuracy(framework, data, seed) for seed in range(5)]
        print(name, *(f"{100 * a:.2f}" for a in found))
        means[name] = float(np.mean(found))
    report("accuracy of the digit script, mean of five seeds, in %", means, unit=100.0)


if __name__ == "__main__":
    main()
