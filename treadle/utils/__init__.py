"""What serves training without being a part of models: data sets and loaders."""

from treadle.utils import data

__all__ = ["data"]
