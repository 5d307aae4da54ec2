"""The real ImageNet MobileNetV2 up to its pooled features, and pictures for it."""

from __future__ import annotations

from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.record import shared_folder
from bequest.data import open_images

WIDTHS = (16, *[24] * 2, *[32] * 3, *[64] * 4, *[96] * 3, *[160] * 3, 320)
STRIDES = (1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Block(nn.Module):
    """1x1 expansion, depthwise 3x3, linear 1x1 projection; a shortcut where the shape stays."""

    def __init__(self, width: int, out: int, stride: int, expansion: int) -> None:
        super().__init__()
        inner = width * expansion
        self.expand = _normed(nn.Conv2d(width, inner, 1, bias=False))
        depthwise = nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False)
        self.dw = _normed(depthwise)
        self.project = _normed(nn.Conv2d(inner, out, 1, bias=False))
        self.shortcut = stride == 1 and width == out

    def forward(self, x: Tensor) -> Tensor:
        """(B, width, H, W) → (B, out, H / stride, W / stride)."""
        y: Tensor = functional.relu(self.dw(functional.relu(self.expand(x))))
        y = self.project(y)
        return x + y if self.shortcut else y


class Features(nn.Module):
    """Images (B, 3, 224, 224) → features (B, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _normed(nn.Conv2d(3, 32, 3, 2, 1, bias=False))
        widths = zip((32, *WIDTHS), WIDTHS, STRIDES, strict=False)
        self.blocks = nn.Sequential(
            *(Block(*each, 1 if number == 0 else 6) for number, each in enumerate(widths))
        )
        self.last = _normed(nn.Conv2d(320, 1280, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        """The pooled features."""
        x = functional.relu(self.last(self.blocks(functional.relu(self.stem(x)))))
        return x.mean((2, 3))


def features() -> nn.Module:
    """The network with its real weights."""
    model = Features().eval()
    model.load_state_dict(
        load_file(shared_folder() / "weights/mobilenetv2_imagenet_features.safetensors")
    )
    return model


def pictures(count: int) -> Tensor:
    """The first pictures of the sample set, one of each class, as the network reads them."""
    loader = open_images(
        shared_folder() / "data/imagenet_samples",
        mean=MEAN,
        std=STD,
        size=(3, 224, 224),
        batch_size=count,
        limit=count,
    )
    (images, _), *_ = loader
    found: Tensor = images
    return found


def _normed(convolution: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))
