"""Handwritten digits with a small convolutional net: two convolutions, pooling, dropout, Adam."""

import argparse
import time

import treadle as torch
import treadle.nn as nn
import treadle.nn.functional as F
import treadle.optim as optim
from treadle.utils.data import DataLoader
from treadle.vision import datasets, transforms


class Net(nn.Module):
    """The convolutional net of PyTorch's own digit example."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.conv2 = nn.Conv2d(32, 64, 3)
        self.pool = nn.MaxPool2d(2)
        self.dropout1 = nn.Dropout(0.25)
        self.dropout2 = nn.Dropout(0.5)
        self.fc1 = nn.Linear(9216, 128)
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = F.relu(self.conv1(x))
        x = F.relu(self.conv2(x))
        x = self.dropout1(self.pool(x))
        x = torch.flatten(x, 1)
        x = self.dropout2(F.relu(self.fc1(x)))
        return self.fc2(x)


def main():
    """Trains, evaluates, saves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", default="data", help="folder of the digits")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    transform = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.1307,), (0.3081,))]
    )
    train_set = datasets.MNIST(options.root, train=True, download=True, transform=transform)
    test_set = datasets.MNIST(options.root, train=False, download=True, transform=transform)
    loader = DataLoader(train_set, batch_size=64, shuffle=True)

    model = Net()
    optimizer = optim.Adam(model.parameters(), lr=1e-3)
    start = time.perf_counter()
    for epoch in range(options.epochs):
        model.train()
        for step, (images, labels) in enumerate(loader):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            if step % 300 == 0:
                print(f"epoch {epoch + 1} step {step:4d} loss {loss.item():.4f}")
    seconds = time.perf_counter() - start

    model.eval()
    correct = 0
    with torch.no_grad():
        for images, labels in DataLoader(test_set, batch_size=500):
            correct += (model(images).argmax(1) == labels).sum().item()
    print(f"{options.epochs} epochs in {seconds:.1f} s, accuracy {correct / len(test_set):.2%}")


if __name__ == "__main__":
    main()
