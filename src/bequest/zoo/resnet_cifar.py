"""The CIFAR ResNets of depth 6n + 2: three stages of n two-convolution blocks, 16-32-64 wide.

Two forms differ in where the ReLU after the addition stands. In the original ("post-activation")
it closes a block and the shortcut to a wider stage has no weights; in the other it opens the next
block, so that a block's output is the bare sum, and that shortcut is a 1x1 convolution.

Source: He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016,
section 4.2.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn.functional import pad, relu

from bequest.zoo.initialise import initialise

WIDTHS = (16, 32, 64)
DEPTHS = (20, 32, 44, 56, 110)


def _conv3x3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)


class _TwoConvolutions(nn.Module):
    """The branch of a basic block; what it is added to is the subclass's."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = _conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)

    def branch(self, x: Tensor) -> Tensor:
        """bn2(conv2(relu(bn1(conv1(x)))))."""
        branch: Tensor = self.bn2(self.conv2(relu(self.bn1(self.conv1(x)))))
        return branch


class ReluFirstBlock(_TwoConvolutions):
    """x ← relu(x), then shortcut(x) + bn2(conv2(relu(bn1(conv1(x))))).

    Shape:
        (B, in_channels, H, W) → (B, out_channels, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False),
                nn.BatchNorm2d(out_channels),
            )

    def forward(self, x: Tensor) -> Tensor:
        """The sum of shortcut and branch, not rectified."""
        x = relu(x)
        branch = self.branch(x)
        shortcut: Tensor = self.downsample(x)
        return shortcut + branch


class ZeroPaddedShortcut(nn.Module):
    """Option A of the paper: every second pixel, the missing channels filled with zeros.

    The zeros go half before and half after the channels, as in published weights.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_channels, H, W) → (B, out_channels, H/stride, W/stride)."""
        x = x[:, :, :: self.stride, :: self.stride]
        return pad(x, (0, 0, 0, 0, self.before, self.after))


class PostActivationBlock(_TwoConvolutions):
    """relu(shortcut(x) + bn2(conv2(relu(bn1(conv1(x)))))).

    Shape:
        (B, in_channels, H, W) → (B, out_channels, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__(in_channels, out_channels, stride)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = ZeroPaddedShortcut(in_channels, out_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """The rectified sum of shortcut and branch."""
        return relu(self.branch(x) + self.shortcut(x))


class _ThreeStages(nn.Module):
    """All of a CIFAR ResNet but for its classifier, whose name is the subclass's."""

    def __init__(self, block: Callable[[int, int, int], nn.Module], depth: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(3, WIDTHS[0])
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        self.layer1, self.layer2, self.layer3 = _stages(block, depth)
        self.avgpool = nn.AdaptiveAvgPool2d(1)


class ReluFirstResNet(_ThreeStages):
    """A CIFAR ResNet of :class:`ReluFirstBlock`; a last ReLU stands before the pooling.

    This is the ResNet-56 of Kim et al., "Neuron merging", NeurIPS 2020, and its state-dict names.

    Shape:
        (B, 3, 32, 32) → (B, num_classes); other image sizes work too.
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__(ReluFirstBlock, depth)
        self.fc = nn.Linear(WIDTHS[-1], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        x = self.bn1(self.conv1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.avgpool(relu(x)).flatten(1)
        logits: Tensor = self.fc(x)
        return logits


class PostActivationResNet(_ThreeStages):
    """The CIFAR ResNet of the paper, with weightless shortcuts (option A).

    State-dict names are those of the widely used weights by Idelbayev
    (github.com/akamaster/pytorch_resnet_cifar10): the classifier is ``linear``.

    Shape:
        (B, 3, 32, 32) → (B, num_classes); other image sizes work too.
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__(PostActivationBlock, depth)
        self.linear = nn.Linear(WIDTHS[-1], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        x = relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = self.avgpool(x).flatten(1)
        logits: Tensor = self.linear(x)
        return logits


def _stages(block: Callable[[int, int, int], nn.Module], depth: int) -> list[nn.Sequential]:
    """Three stages of n = (depth - 2)/6 blocks; the second and third halve the resolution."""
    blocks, rest = divmod(depth - 2, 6)
    if rest or blocks < 1:
        raise ValueError(f"depth: expected 6n + 2 with n >= 1, found {depth}")
    stages = []
    channels = WIDTHS[0]
    for width, stride in zip(WIDTHS, (1, 2, 2), strict=True):
        first = block(channels, width, stride)
        stages.append(nn.Sequential(first, *(block(width, width, 1) for _ in range(blocks - 1))))
        channels = width
    return stages
