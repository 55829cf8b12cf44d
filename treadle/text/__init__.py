"""Models of text."""

from treadle.text import models

__all__ = ["models"]
