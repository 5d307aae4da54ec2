"""MobileNetV2, with the state-dict names of torchvision, and its form for CIFAR images.

Source: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: inverted residuals and linear
bottlenecks", CVPR 2018, table 2.
"""

from __future__ import annotations

from torch import Tensor, nn

from bequest.zoo.initialise import initialise

STAGES = (  # expansion t, width c, blocks n, stride s: the columns of table 2
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM, HEAD = 32, 1280


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection; a shortcut where the shape stays.

    Shape:
        (B, in_channels, H, W) → (B, out_channels, H/stride, W/stride).
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        width = in_channels * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers.append(_conv_bn_relu6(in_channels, width, kernel=1))
        layers += [
            _conv_bn_relu6(width, width, kernel=3, stride=stride, groups=width),
            nn.Conv2d(width, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        ]
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """The projection, not rectified, plus x where the shape stays."""
        branch: Tensor = self.conv(x)
        return x + branch if self.has_shortcut else branch


class MobileNetV2(nn.Module):
    """A stem, 17 inverted residuals, a 1x1 convolution to 1280 channels, one linear layer.

    Shape:
        (B, 3, H, W) → (B, num_classes), for images of 224x224 (ImageNet) or 32x32 (CIFAR form).

    Args:
        num_classes: width of the output.
        stem_stride: stride of the first convolution; 1 in the CIFAR form.
        second_stage_stride: stride of the first 24-channel block; 1 in the CIFAR form.
    """

    def __init__(
        self, num_classes: int = 1000, stem_stride: int = 2, second_stage_stride: int = 2
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(3, STEM, kernel=3, stride=stem_stride)]
        channels = STEM
        for index, (expansion, width, blocks, stage_stride) in enumerate(STAGES):
            stride = second_stage_stride if index == 1 else stage_stride
            for block in range(blocks):
                layers.append(
                    InvertedResidual(channels, width, stride if block == 0 else 1, expansion)
                )
                channels = width
        layers.append(_conv_bn_relu6(channels, HEAD, kernel=1))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(HEAD, num_classes))
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        x = self.avgpool(self.features(x)).flatten(1)
        logits: Tensor = self.classifier(x)
        return logits


def _conv_bn_relu6(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """Convolution that keeps the size at stride 1, batch norm, min(max(x, 0), 6)."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
        nn.ReLU6(),
    )


def mobilenetv2(num_classes: int = 1000) -> MobileNetV2:
    """MobileNetV2 for 3x224x224 images."""
    return MobileNetV2(num_classes)


def mobilenetv2_cifar(num_classes: int = 10) -> MobileNetV2:
    """MobileNetV2 for 3x32x32 images: the first two reductions are left out, 32 → 4 pixels."""
    return MobileNetV2(num_classes, stem_stride=1, second_stage_stride=1)
