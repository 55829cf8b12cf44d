"""Networks for images, under torchvision's names and with its state_dict keys."""

from treadle.vision.models.resnet import (
    BasicBlock,
    Bottleneck,
    ResNet,
    resnet18,
    resnet34,
    resnet50,
)
from treadle.vision.models.vit import VisionTransformer, vit_b_16, vit_tiny

__all__ = [
    "BasicBlock", "Bottleneck", "ResNet", "VisionTransformer", "resnet18", "resnet34", "resnet50",
    "vit_b_16", "vit_tiny",
]  # fmt: skip
