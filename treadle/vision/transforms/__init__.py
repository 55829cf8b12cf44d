"""What is done to images before a model sees them, under torchvision's names."""

from treadle.vision.transforms.compose import Compose, Lambda, RandomApply
from treadle.vision.transforms.convert import (
    ConvertImageDtype,
    PILToTensor,
    ToPILImage,
    ToTensor,
)
from treadle.vision.transforms.geometry import (
    CenterCrop,
    Pad,
    RandomCrop,
    RandomHorizontalFlip,
    RandomVerticalFlip,
)
from treadle.vision.transforms.normalize import Normalize
from treadle.vision.transforms.resize import Grayscale, InterpolationMode, Resize

__all__ = [
    "CenterCrop",
    "Compose",
    "ConvertImageDtype",
    "Grayscale",
    "InterpolationMode",
    "Lambda",
    "Normalize",
    "PILToTensor",
    "Pad",
    "RandomApply",
    "RandomCrop",
    "RandomHorizontalFlip",
    "RandomVerticalFlip",
    "Resize",
    "ToPILImage",
    "ToTensor",
]
