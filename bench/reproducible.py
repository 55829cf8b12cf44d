"""Whether an epoch of the digit script gives the same bits on one thread and on two, twice each."""

from __future__ import annotations

import hashlib


def weights_after_an_epoch(threads: int) -> str:
    """A hash of all weights after one shuffled epoch from seed 0."""
    import treadle
    import treadle.nn as nn
    import treadle.optim as optim
    from treadle.utils.data import DataLoader
    from treadle.vision import datasets, transforms

    treadle.set_num_threads(threads)
    treadle.manual_seed(0)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    digits = datasets.MNIST("data", train=True, download=True, transform=transform)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 10))
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for images, labels in DataLoader(digits, batch_size=64, shuffle=True):
        optimizer.zero_grad()
        criterion(model(images), labels).backward()
        optimizer.step()
    digest = hashlib.sha256()
    for parameter in model.parameters():
        digest.update(parameter.detach().numpy().tobytes())
    return digest.hexdigest()[:16]


def main() -> None:
    """Prints the hashes; exits with 1 where they differ."""
    found = {f"{n} threads, run {i}": weights_after_an_epoch(n) for n in (1, 2) for i in (1, 2)}
    for name, digest in found.items():
        print(name, digest)
    raise SystemExit(len(set(found.values())) != 1)


if __name__ == "__main__":
    main()
