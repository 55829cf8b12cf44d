"""Residual networks, with torchvision's state_dict keys."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from treadle import nn
from treadle.tensor import Tensor


def _conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)


def _conv1x1(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)


class BasicBlock(nn.Module):
    """`relu(x + f(x))` with two 3 × 3 convolutions in f: the block of ResNet-18 and -34.

    Args:
        inplanes: channels of the input.
        planes: channels of both convolutions and of the result.
        stride: of the first convolution.
        downsample: brings x to the shape of f(x), where they differ.
    """

    expansion = 1
    """Channels of the result for each of `planes`."""

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = _conv3x3(inplanes, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv3x3(planes, planes)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """`(n, inplanes, h, w)` to `(n, planes, h / stride, w / stride)`."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return self.relu(out + shortcut)


class Bottleneck(nn.Module):
    """`relu(x + f(x))` with 1 × 1, 3 × 3 and 1 × 1 convolutions in f: the block of ResNet-50.

    The stride is that of the 3 × 3 convolution, as in torchvision ("ResNet v1.5").

    Args:
        inplanes: channels of the input.
        planes: channels inside; the result has four times as many.
        stride: of the 3 × 3 convolution.
        downsample: brings x to the shape of f(x), where they differ.
    """

    expansion = 4
    """Channels of the result for each of `planes`."""

    def __init__(
        self, inplanes: int, planes: int, stride: int = 1, downsample: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.conv1 = _conv1x1(inplanes, planes)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, stride)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = _conv1x1(planes, planes * self.expansion)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """`(n, inplanes, h, w)` to `(n, 4 planes, h / stride, w / stride)`."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        return self.relu(out + shortcut)


class ResNet(nn.Module):
    """A residual network: a 7 × 7 stem, four stages of blocks, the mean over space, a linear map.

    Source: He et al., "Deep residual learning for image recognition", CVPR 2016; initialised as
    in torchvision, so that its published weights load with `load_state_dict`.

    Args:
        block: `BasicBlock` or `Bottleneck`.
        layers: how many blocks each of the four stages has.
        num_classes: classes.
        zero_init_residual: start each block as the identity (Goyal et al. 2017).

    Example:
        >>> import treadle
        >>> model = treadle.vision.models.resnet18(num_classes=10)
        >>> model(treadle.zeros(2, 3, 32, 32)).shape
        treadle.Size([2, 10])
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        layers: Sequence[int],
        num_classes: int = 1000,
        zero_init_residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        width = block.expansion
        self.layer1 = _stage(block, 64, 64, layers[0], stride=1)
        self.layer2 = _stage(block, 64 * width, 128, layers[1], stride=2)
        self.layer3 = _stage(block, 128 * width, 256, layers[2], stride=2)
        self.layer4 = _stage(block, 256 * width, 512, layers[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(512 * width, num_classes)
        self._initialise(zero_init_residual)

    def _initialise(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, BasicBlock):
                nn.init.zeros_(module.bn2.weight)
            elif zero_init_residual and isinstance(module, Bottleneck):
                nn.init.zeros_(module.bn3.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Images `(n, 3, h, w)` to scores `(n, num_classes)`."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(self.avgpool(x).flatten(1))


def _stage(
    block: type[BasicBlock] | type[Bottleneck], inplanes: int, planes: int, count: int, stride: int
) -> nn.Sequential:
    """Blocks one after another; the first of them changes resolution and channels."""
    outputs = planes * block.expansion
    downsample = None
    if stride != 1 or inplanes != outputs:
        downsample = nn.Sequential(_conv1x1(inplanes, outputs, stride), nn.BatchNorm2d(outputs))
    first = block(inplanes, planes, stride, downsample)
    return nn.Sequential(first, *(block(outputs, planes) for _ in range(count - 1)))


def resnet18(**options: Any) -> ResNet:
    """ResNet-18: 11,689,512 parameters for 1000 classes. Options are those of `ResNet`."""
    return ResNet(BasicBlock, (2, 2, 2, 2), **options)


def resnet34(**options: Any) -> ResNet:
    """ResNet-34: 21,797,672 parameters for 1000 classes. Options are those of `ResNet`."""
    return ResNet(BasicBlock, (3, 4, 6, 3), **options)


def resnet50(**options: Any) -> ResNet:
    """ResNet-50: 25,557,032 parameters for 1000 classes. Options are those of `ResNet`."""
    return ResNet(Bottleneck, (3, 4, 6, 3), **options)
