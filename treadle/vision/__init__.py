"""Data sets and transforms of images, under torchvision's names."""

from treadle.vision import datasets, transforms

__all__ = ["datasets", "transforms"]
