"""Data sets, transforms and models of images, under torchvision's names."""

from treadle.vision import datasets, models, transforms

__all__ = ["datasets", "models", "transforms"]
