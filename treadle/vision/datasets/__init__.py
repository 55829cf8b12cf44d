"""Data sets of images, under torchvision's names."""

from treadle.vision.datasets.cifar import CIFAR10
from treadle.vision.datasets.mnist import MNIST, FashionMNIST
from treadle.vision.datasets.vision_dataset import VisionDataset

__all__ = ["CIFAR10", "MNIST", "FashionMNIST", "VisionDataset"]
