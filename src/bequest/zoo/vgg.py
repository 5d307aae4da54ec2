"""VGG with batch norm in the form used for small images: convolutions, then one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

from bequest.zoo.initialise import initialise

Widths = Sequence[int | Literal["M"]]
"""Output channels of each convolution in order; "M" is a 2x2 max pooling."""

VGG16: Widths = (
    *(64, 64, "M"),
    *(128, 128, "M"),
    *(256, 256, 256, "M"),
    *(512, 512, 512, "M"),
    *(512, 512, 512, "M"),
)
VGG_DIGITS: Widths = (32, 32, "M", 64, 64, "M", 128, 128)


class VGG(nn.Module):
    """3x3 convolutions with batch norm and ReLU, global average pooling, one linear layer.

    State-dict names are those of torchvision's ``vgg*_bn`` up to the classifier: ``features.N``,
    the convolutions with their bias; ``classifier`` is the single linear layer of the CIFAR form.

    Source: Simonyan, Zisserman, "Very deep convolutional networks for large-scale image
    recognition", ICLR 2015, table 1; the single classifier for CIFAR: Li et al., "Pruning
    filters for efficient ConvNets", ICLR 2017, section 4.1.

    Shape:
        (B, in_channels, H, W) → (B, num_classes); each "M" halves H and W.

    Args:
        widths: the convolutions' widths, with "M" where the maps are pooled.
        num_classes: width of the output.
        in_channels: channels of the images.
    """

    def __init__(self, widths: Widths = VGG16, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for width in widths:
            if width == "M":
                layers.append(nn.MaxPool2d(2))
            else:
                conv = nn.Conv2d(channels, width, kernel_size=3, padding=1)
                layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
                channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, num_classes)."""
        x = self.avgpool(self.features(x)).flatten(1)
        logits: Tensor = self.classifier(x)
        return logits


def vgg16_cifar(num_classes: int = 10) -> VGG:
    """VGG-16 for 3x32x32 images: 13 convolutions and one linear layer."""
    return VGG(VGG16, num_classes)


def vgg_digits(num_classes: int = 10) -> VGG:
    """A small VGG for 1x8x8 images of digits: 6 convolutions and one linear layer."""
    return VGG(VGG_DIGITS, num_classes, in_channels=1)
