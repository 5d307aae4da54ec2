"""The ImageNet ResNets, with the state-dict names of torchvision.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016, table 1.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from bequest.zoo.initialise import initialise


class BasicBlock(nn.Module):
    """Two 3x3 convolutions: relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x)))))).

    Shape:
        (B, in_channels, H, W) → (B, width, H/stride, W/stride).
    """

    expansion = 1

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(in_channels, width, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The rectified sum of shortcut and branch."""
        branch: Tensor = relu(self.bn1(self.conv1(x)))
        branch = self.bn2(self.conv2(branch))
        return relu(branch + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1 down to ``width``, 3x3, 1x1 up to 4 times ``width``, and the shortcut.

    The stride is that of the 3x3 convolution ("v1.5"), as in torchvision's weights; the paper has
    it in the first 1x1.

    Shape:
        (B, in_channels, H, W) → (B, 4·width, H/stride, W/stride).
    """

    expansion = 4

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = self.expansion * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _shortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The rectified sum of shortcut and branch."""
        branch: Tensor = relu(self.bn1(self.conv1(x)))
        branch = relu(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        return relu(branch + self.downsample(x))


class ResNet(nn.Module):
    """A 7x7 stem, four stages of residual blocks 64-128-256-512 wide, one linear layer.

    Shape:
        (B, 3, 224, 224) → (B, num_classes); other image sizes work too.

    Args:
        block: :class:`BasicBlock` or :class:`Bottleneck`.
        blocks: number of blocks in each of the four stages.
        num_classes: width of the output.
    """

    def __init__(
        self,
        block: type[BasicBlock] | type[Bottleneck],
        blocks: tuple[int, int, int, int],
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        e = block.expansion
        self.layer1 = _stage(block, 64, 64, blocks[0], stride=1)
        self.layer2 = _stage(block, 64 * e, 128, blocks[1], stride=2)
        self.layer3 = _stage(block, 128 * e, 256, blocks[2], stride=2)
        self.layer4 = _stage(block, 256 * e, 512, blocks[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(512 * e, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        x = self.maxpool(relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        x = self.avgpool(x).flatten(1)
        logits: Tensor = self.fc(x)
        return logits


def _stage(
    block: type[BasicBlock] | type[Bottleneck],
    in_channels: int,
    width: int,
    count: int,
    stride: int,
) -> nn.Sequential:
    """``count`` blocks, of which the first may change resolution and width."""
    first = block(in_channels, width, stride)
    rest = (block(block.expansion * width, width, 1) for _ in range(count - 1))
    return nn.Sequential(first, *rest)


def _shortcut(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """The identity, or a 1x1 convolution with batch norm where the shape changes (option B)."""
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
        nn.BatchNorm2d(out_channels),
    )


def resnet18(num_classes: int = 1000) -> ResNet:
    """ResNet-18: basic blocks, 2-2-2-2."""
    return ResNet(BasicBlock, (2, 2, 2, 2), num_classes)


def resnet34(num_classes: int = 1000) -> ResNet:
    """ResNet-34: basic blocks, 3-4-6-3."""
    return ResNet(BasicBlock, (3, 4, 6, 3), num_classes)


def resnet50(num_classes: int = 1000) -> ResNet:
    """ResNet-50: bottlenecks, 3-4-6-3."""
    return ResNet(Bottleneck, (3, 4, 6, 3), num_classes)


def resnet101(num_classes: int = 1000) -> ResNet:
    """ResNet-101: bottlenecks, 3-4-23-3."""
    return ResNet(Bottleneck, (3, 4, 23, 3), num_classes)
