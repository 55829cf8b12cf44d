"""What data sets of images have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from treadle.base.lazy import LazyModule
from treadle.tensor import from_numpy
from treadle.utils.data import Dataset, default_collate
from treadle.utils.data.arrays import ArrayView
from treadle.vision.transforms.images import from_pixels
from treadle.vision.transforms.pipeline import PipelineOf, takes_arrays

if TYPE_CHECKING:
    import numpy as np
else:
    np = LazyModule("numpy")


class VisionDataset(Dataset[tuple[Any, Any]]):
    """Images in memory, with a label each.

    Subclasses set `data`, the images as uint8 `(n, h, w)` or `(n, h, w, c)`, and `targets`.

    Args:
        root: the folder of the data set's files.
        transform: applied to the PIL image.
        target_transform: applied to the label.
    """

    data: Any
    targets: Any
    classes: list[str]

    def __init__(
        self,
        root: str | Path,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.root = Path(root).expanduser()
        self.transform = transform
        self.target_transform = target_transform
        self._images, self._labels = ArrayView(), ArrayView()
        self._pipeline = PipelineOf()

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The label of each class name."""
        return {name: i for i, name in enumerate(self.classes)}

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """The image and the label at `index`, transformed; without a transform a PIL image."""
        image = self._images.of(self.data)[index]
        target: Any = int(self._label(index))
        if self.transform is None or not takes_arrays(self.transform):
            image = from_pixels(image)
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target

    def _label(self, index: int) -> Any:
        if isinstance(self.targets, list):
            return self.targets[index]
        return self._labels.of(self.targets)[index]

    def __getbatch__(self, indices: np.ndarray) -> Any:
        """The images at `indices` after the transforms that work on arrays, and their labels."""
        pipeline = self._pipeline.of(self.transform)
        if pipeline is None:
            return NotImplemented
        if isinstance(self.targets, list):
            labels: Any = np.array([self.targets[i] for i in indices.tolist()])
        else:
            labels = self._labels.of(self.targets).take(indices)
        if self.target_transform is not None:
            labels = default_collate([self.target_transform(label) for label in labels.tolist()])
        return pipeline.images(self._images.of(self.data).take(indices, axis=0)), labels

    def __tobatch__(self, arrays: Any) -> list[Any]:
        pipeline = self._pipeline.of(self.transform)
        assert pipeline is not None
        images, labels = arrays
        is_array = self.target_transform is None
        return [pipeline.tensors(images), from_numpy(labels) if is_array else labels]

    def extra_repr(self) -> str:
        """One more line for `repr`, or nothing."""
        return ""

    def __repr__(self) -> str:
        lines = [f"Number of datapoints: {len(self)}", f"Root location: {self.root}"]
        lines += self.extra_repr().splitlines()
        if self.transform is not None or self.target_transform is not None:
            lines.append("StandardTransform")
        body = "".join(f"\n    {line}" for line in lines)
        for name, transform in (
            ("Transform: ", self.transform),
            ("Target transform: ", self.target_transform),
        ):
            if transform is not None:
                body += f"\n{name}" + f"\n{' ' * len(name)}".join(repr(transform).splitlines())
        return f"Dataset {type(self).__name__}{body}"
