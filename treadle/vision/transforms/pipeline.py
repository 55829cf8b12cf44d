"""A chain of transforms applied to a whole batch: arrays first, then recorded tensor operations.

A transform takes part by methods of its own, next to `__call__` for one image:

* `on_images(images)`: a uint8 ndarray `(n, h, w)` or `(n, h, w, c)` to another one. It may run in a
  worker.
* `to_tensors(images)`: such an array to a tensor `(n, c, h, w)`: the step from images to tensors.
* `on_tensors(batch)`: a tensor `(n, c, h, w)` to another one, by recorded operations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from treadle.tensor import Tensor
from treadle.utils.data.protocol import speaks
from treadle.vision.transforms.compose import Compose

if TYPE_CHECKING:
    import numpy as np


class BatchPipeline:
    """Transforms of which the first work on images, one makes tensors, the others work on those.

    Args:
        transform: what a data set has as its transform.
    """

    __slots__ = ("bridge", "on_images", "on_tensors")

    def __init__(self, on_images: list[Any], bridge: Any, on_tensors: list[Any]) -> None:
        self.on_images = on_images
        self.bridge = bridge
        self.on_tensors = on_tensors

    def images(self, images: np.ndarray) -> np.ndarray:
        """The part on arrays, which a worker process may do."""
        for step in self.on_images:
            images = step.on_images(images)
        return images

    def tensors(self, images: np.ndarray) -> Tensor:
        """The part that is recorded, done in the main process."""
        batch: Tensor = self.bridge.to_tensors(images)
        for step in self.on_tensors:
            batch = step.on_tensors(batch)
        return batch


class PipelineOf:
    """The pipeline of a data set's transform; remembers that of the last one."""

    __slots__ = ("_pipeline", "_steps", "_transform")

    def __init__(self) -> None:
        self._transform: Any = None
        self._steps: list[Any] | None = None
        self._pipeline: BatchPipeline | None = None

    def of(self, transform: Any) -> BatchPipeline | None:
        """How to apply `transform` to a whole batch, or `None` where a part of it cannot."""
        steps = transform.transforms if type(transform) is Compose else [transform]
        if transform is not self._transform or steps != self._steps:
            nested = any(type(step) is Compose for step in steps)
            # A list in a list may change unseen: then look each time.
            self._transform, self._steps = transform, None if nested else list(steps)
            self._pipeline = batch_pipeline(transform)
        return self._pipeline


def batch_pipeline(transform: Any) -> BatchPipeline | None:
    """How to apply `transform` to a whole batch, or `None` where a part of it cannot."""
    steps = flattened(transform)
    at = 0
    while at < len(steps) and speaks(steps[at], "on_images", "__call__"):
        at += 1
    if at == len(steps) or not speaks(steps[at], "to_tensors", "__call__"):
        return None
    if not all(speaks(step, "on_tensors", "__call__") for step in steps[at + 1 :]):
        return None
    return BatchPipeline(steps[:at], steps[at], steps[at + 1 :])


def flattened(transform: Any) -> list[Any]:
    """The transforms in a chain, in order; a chain that means something else counts as one."""
    if type(transform) is not Compose:
        return [transform]
    if not any(type(step) is Compose for step in transform.transforms):
        return transform.transforms
    return [step for part in transform.transforms for step in flattened(part)]


def takes_arrays(transform: Any) -> bool:
    """Whether `transform` begins with one that takes an array for an image, as `ToTensor` does."""
    steps = flattened(transform)
    return bool(steps) and speaks(steps[0], "to_tensors", "__call__")
