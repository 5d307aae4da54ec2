"""A detector of the kind of YOLO11: C3k2, SPPF and C2PSA blocks, a feature pyramid, anchors.

Written from the published description of the network: widths 16 to 256, as its nano size has them.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

BINS = 16
"""Distances to the sides of a box are expectations over so many bins."""


class Conv(nn.Sequential):
    """Convolution, batch norm, SiLU."""

    def __init__(self, a: int, b: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(b),
            nn.SiLU(),
        )


class Bottleneck(nn.Module):
    """Two convolutions with a shortcut."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.down, self.up = Conv(width, inner, 3), Conv(inner, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.up(self.down(x))


class C3k(nn.Module):
    """Two branches, one of them with bottlenecks, joined."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = width // 2
        self.left, self.right = Conv(width, half), Conv(width, half)
        self.blocks = nn.Sequential(Bottleneck(half, half), Bottleneck(half, half))
        self.out = Conv(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.cat([self.blocks(self.left(x)), self.right(x)], 1))


class C3k2(nn.Module):
    """A convolution cut in two halves by ``chunk``; every block's result is kept (C2f)."""

    def __init__(self, a: int, b: int, *, deep: bool, expansion: float = 0.5) -> None:
        super().__init__()
        half = int(b * expansion)
        self.enter = Conv(a, 2 * half)
        self.block = C3k(half) if deep else Bottleneck(half, half // 2)
        self.out = Conv(3 * half, b)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).chunk(2, 1))
        parts.append(self.block(parts[-1]))
        return self.out(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Poolings of poolings, side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.enter, self.out = Conv(width, width // 2), Conv(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(F.max_pool2d(parts[-1], 5, 1, 2))
        return self.out(torch.cat(parts, 1))


class Attention(nn.Module):
    """Attention over places; keys and queries are half as wide as values, positions by depth."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.value = heads, width // heads
        self.key = self.value // 2
        self.qkv = nn.Sequential(
            nn.Conv2d(width, width + 2 * self.key * heads, 1, bias=False),
            nn.BatchNorm2d(width + 2 * self.key * heads),
        )
        self.position = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width)
        )
        self.out = nn.Sequential(nn.Conv2d(width, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, breadth = x.shape
        packed = self.qkv(x).view(batch, self.heads, 2 * self.key + self.value, height * breadth)
        query, key, value = packed.split([self.key, self.key, self.value], dim=2)
        weights = ((query.transpose(-2, -1) @ key) * self.key**-0.5).softmax(dim=-1)
        seen = (value @ weights.transpose(-2, -1)).view(batch, width, height, breadth)
        return self.out(seen + self.position(value.reshape(batch, width, height, breadth)))


class C2PSA(nn.Module):
    """Attention on one half of the channels."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        half = width // 2
        self.half = half
        self.enter, self.out = Conv(width, width), Conv(width, width)
        self.attention = Attention(half, heads)
        self.mlp = nn.Sequential(
            Conv(half, 2 * half), nn.Conv2d(2 * half, half, 1, bias=False), nn.BatchNorm2d(half)
        )

    def forward(self, x: Tensor) -> Tensor:
        kept, seen = self.enter(x).split((self.half, self.half), dim=1)
        seen = seen + self.attention(seen)
        return self.out(torch.cat((kept, seen + self.mlp(seen)), 1))


class Head(nn.Module):
    """Boxes and classes at three scales; anchors are a mesh of places."""

    def __init__(self, widths: tuple[int, ...], classes: int) -> None:
        super().__init__()
        box, sort = max(16, widths[0] // 4, 4 * BINS), max(widths[0], classes)
        self.boxes = nn.ModuleList(
            nn.Sequential(Conv(w, box, 3), Conv(box, box, 3), nn.Conv2d(box, 4 * BINS, 1))
            for w in widths
        )
        self.classes = nn.ModuleList(
            nn.Sequential(
                Conv(w, w, 3, groups=w),
                Conv(w, sort),
                Conv(sort, sort, 3, groups=sort),
                Conv(sort, sort),
                nn.Conv2d(sort, classes, 1),
            )
            for w in widths
        )
        self.register_buffer("bins", torch.arange(BINS, dtype=torch.float))

    def forward(self, maps: list[Tensor]) -> Tensor:
        found, anchors, strides = [], [], []
        for level, (one, boxes, classes) in enumerate(
            zip(maps, self.boxes, self.classes, strict=True)
        ):
            height, breadth = one.shape[-2:]
            found.append(torch.cat([boxes(one), classes(one)], 1).flatten(2))
            ys, xs = torch.meshgrid(
                torch.arange(height, dtype=one.dtype) + 0.5,
                torch.arange(breadth, dtype=one.dtype) + 0.5,
                indexing="ij",
            )
            anchors.append(torch.stack([xs, ys], -1).view(-1, 2))
            strides.append(torch.full((height * breadth, 1), 8.0 * 2**level, dtype=one.dtype))
        places, scale = torch.cat(anchors).t(), torch.cat(strides).t()
        joined = torch.cat(found, 2)
        box, kinds = joined.split((4 * BINS, joined.shape[1] - 4 * BINS), 1)
        sides = box.view(len(box), 4, BINS, -1).softmax(2)
        distances = (sides * self.bins.view(1, 1, -1, 1)).sum(2)
        start, end = distances.chunk(2, 1)
        low, high = places - start, places + end
        middles = torch.cat([(low + high) / 2, high - low], 1) * scale
        return torch.cat([middles, kinds.sigmoid()], 1)


class Detector(nn.Module):
    """Backbone, feature pyramid up and down, head; (B, 4 + classes, places)."""

    def __init__(self, classes: int = 80) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            Conv(3, 16, 3, 2), Conv(16, 32, 3, 2), C3k2(32, 64, deep=False, expansion=0.25)
        )
        self.third = nn.Sequential(Conv(64, 64, 3, 2), C3k2(64, 128, deep=False, expansion=0.25))
        self.fourth = nn.Sequential(Conv(128, 128, 3, 2), C3k2(128, 128, deep=True))
        self.fifth = nn.Sequential(
            Conv(128, 256, 3, 2), C3k2(256, 256, deep=True), SPPF(256), C2PSA(256, 2)
        )
        self.up4, self.up3 = C3k2(384, 128, deep=False), C3k2(256, 64, deep=False)
        self.to4, self.to5 = Conv(64, 64, 3, 2), Conv(128, 128, 3, 2)
        self.down4, self.down5 = C3k2(192, 128, deep=False), C3k2(384, 256, deep=True)
        self.head = Head((64, 128, 256), classes)

    def forward(self, x: Tensor) -> Tensor:
        third = self.third(self.stem(x))
        fourth = self.fourth(third)
        fifth = self.fifth(fourth)
        up4 = self.up4(torch.cat([F.interpolate(fifth, scale_factor=2), fourth], 1))
        up3 = self.up3(torch.cat([F.interpolate(up4, scale_factor=2), third], 1))
        down4 = self.down4(torch.cat([self.to4(up3), up4], 1))
        down5 = self.down5(torch.cat([self.to5(down4), fifth], 1))
        found: Tensor = self.head([up3, down4, down5])
        return found
