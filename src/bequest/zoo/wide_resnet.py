"""Wide residual networks for CIFAR: few, wide, pre-activation blocks.

Source: Zagoruyko, Komodakis, "Wide residual networks", BMVC 2016, table 1.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu

from bequest.zoo.initialise import initialise


class PreActivationBlock(nn.Module):
    """shortcut(x) + conv2(relu(bn2(conv1(relu(bn1(x)))))).

    The shortcut is the identity on x itself; where the width changes it is a 1x1 convolution of
    relu(bn1(x)).

    Shape:
        (B, in_channels, H, W) → (B, out_channels, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        # The mixed-case name is the one in published state dicts.
        self.convShortcut: nn.Module | None = None
        if in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """The sum of shortcut and branch, not rectified."""
        active: Tensor = relu(self.bn1(x))
        branch: Tensor = relu(self.bn2(self.conv1(active)))
        branch = self.conv2(branch)
        shortcut = x if self.convShortcut is None else self.convShortcut(active)
        return branch + shortcut


class Stage(nn.Module):
    """``count`` blocks of one width, of which the first may change resolution and width."""

    def __init__(self, in_channels: int, out_channels: int, count: int, stride: int) -> None:
        super().__init__()
        first = PreActivationBlock(in_channels, out_channels, stride)
        rest = (PreActivationBlock(out_channels, out_channels, 1) for _ in range(count - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        """The maps after the last block."""
        maps: Tensor = self.layer(x)
        return maps


class WideResNet(nn.Module):
    """WRN-d-k: three stages of n = (d - 4)/6 blocks, 16k-32k-64k wide.

    State-dict names (``block1.layer.0.convShortcut`` ...) are those of
    github.com/xternalz/WideResNet-pytorch, which most published CIFAR weights share.

    Shape:
        (B, 3, 32, 32) → (B, num_classes); other image sizes work too.

    Args:
        depth: d = 6n + 4.
        widen: k.
        num_classes: width of the output.
    """

    def __init__(self, depth: int, widen: int, num_classes: int = 10) -> None:
        super().__init__()
        count, rest = divmod(depth - 4, 6)
        if rest or count < 1:
            raise ValueError(f"depth: expected 6n + 4 with n >= 1, found {depth}")
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.block1 = Stage(16, 16 * widen, count, stride=1)
        self.block2 = Stage(16 * widen, 32 * widen, count, stride=2)
        self.block3 = Stage(32 * widen, 64 * widen, count, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64 * widen, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = self.avgpool(relu(self.bn1(x))).flatten(1)
        logits: Tensor = self.fc(x)
        return logits


def wrn_40_4(num_classes: int = 10) -> WideResNet:
    """WRN-40-4: 40 layers, 4 times the width of a CIFAR ResNet."""
    return WideResNet(depth=40, widen=4, num_classes=num_classes)
