"""Handwritten digits: the program that treadle exists for, as PyTorch's users write it.

Only the import lines differ from PyTorch's. Run it with `--epochs 1` for a short look.
"""

import argparse
import time

from tqdm import tqdm

import treadle as torch
import treadle.nn as nn
import treadle.optim as optim
from treadle.utils.data import DataLoader
from treadle.vision import datasets, transforms


class Net(nn.Module):
    """Two linear layers with a rectifier between them."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(28 * 28, 128)
        self.relu = nn.ReLU()
        self.fc2 = nn.Linear(128, 10)

    def forward(self, x):
        x = x.view(-1, 28 * 28)
        x = self.relu(self.fc1(x))
        return self.fc2(x)


def train(model, loader, criterion, optimizer, epoch):
    """One epoch; shows the loss every 100 steps."""
    model.train()
    bar = tqdm(loader, desc=f"epoch {epoch}", unit=" batches")
    for step, (images, labels) in enumerate(bar):
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            bar.set_postfix(loss=f"{loss.item():.4f}")


def evaluate(model, loader):
    """The share of the digits that the model names right."""
    model.eval()
    correct = total = 0
    with torch.no_grad():
        for images, labels in loader:
            predicted = model(images).argmax(dim=1)
            correct += (predicted == labels).sum().item()
            total += labels.size(0)
    return correct / total


def main():
    """Trains, evaluates, saves and loads."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", default="data", help="folder of the digits")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--model", default="mnist_model.pt", help="where the model is saved")
    options = parser.parse_args()

    torch.manual_seed(options.seed)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    train_set = datasets.MNIST(options.root, train=True, download=True, transform=transform)
    test_set = datasets.MNIST(options.root, train=False, download=True, transform=transform)
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    test_loader = DataLoader(test_set, batch_size=1000)

    model = Net()
    print(model)
    criterion = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.01, momentum=0.9)

    start = time.perf_counter()
    for epoch in range(1, options.epochs + 1):
        train(model, train_loader, criterion, optimizer, epoch)
    seconds = time.perf_counter() - start

    torch.save(model.state_dict(), options.model)
    model = Net()
    model.load_state_dict(torch.load(options.model))
    accuracy = evaluate(model, test_loader)
    print(f"{options.epochs} epochs in {seconds:.1f} s, accuracy {100 * accuracy:.2f} %")
    print(f"the model is in {options.model}")


if __name__ == "__main__":
    main()
