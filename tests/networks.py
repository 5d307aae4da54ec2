"""Odd networks with names, small enough to read: each holds one thing that breaks pruning tools."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 -- its usual name
from torch import Tensor, nn


def randomise(model: nn.Module) -> nn.Module:
    """Batch norms as after training: scales, shifts and statistics that are not the default."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, std=0.3)
            if module.track_running_stats and module.running_mean is not None:
                nn.init.normal_(module.running_mean, std=0.3)
                nn.init.uniform_(module.running_var, 0.5, 2.0)
    return model.eval()


class Plain(nn.Module):
    """conv → norm → ReLU → conv → pool → linear."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 24, 3, padding=1)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Flattened(nn.Module):
    """Maps that are flattened: each channel is sixteen columns of the linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.hidden = nn.Linear(16 * 16, 20)
        self.out = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.out(F.relu(self.hidden(x.view(x.size(0), -1))))


class SplitConcat(nn.Module):
    """A chunk whose halves go different ways, and a concatenation of three segments."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.left = nn.Conv2d(8, 12, 3, padding=1)
        self.right = nn.Conv2d(8, 20, 1)
        self.head = nn.Conv2d(12 + 20 + 8, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = F.relu(self.stem(x)).chunk(2, dim=1)
        return self.head(torch.cat([F.relu(self.left(a)), torch.tanh(self.right(b)), a], dim=1))


class SharedWeights(nn.Module):
    """One convolution called twice in a row."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.shared = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for _ in range(2):
            x = F.relu(self.shared(x))
        return self.head(x)


class DepthwiseTail(nn.Module):
    """Expansion, depthwise convolution, projection: an inverted residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.expand = nn.Conv2d(16, 32, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.depthwise = nn.Conv2d(32, 32, 3, padding=1, groups=32, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.project = nn.Conv2d(32, 16, 1, bias=False)
        self.norm3 = nn.BatchNorm2d(16)
        self.multiplied = nn.Conv2d(16, 32, 3, groups=16)
        self.head = nn.Linear(32, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = F.relu6(self.norm1(self.expand(x)))
        x = x + self.norm3(self.project(F.relu6(self.norm2(self.depthwise(y)))))
        return self.head(F.relu(self.multiplied(x)).mean((2, 3)))


class ZeroPaddedShortcut(nn.Module):
    """Two stages; the shortcut is strided and padded with channels of zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.conv1 = nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        x = F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 8, 8)))
        return self.fc(x.mean((2, 3)))


class Residual(nn.Module):
    """A stream that three layers add to."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.conv1 = nn.ModuleList(nn.Conv2d(16, 24, 3, padding=1) for _ in range(2))
        self.conv2 = nn.ModuleList(nn.Conv2d(24, 16, 3, padding=1) for _ in range(2))
        self.norm = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for first, second in zip(self.conv1, self.conv2, strict=True):
            x = x + second(F.gelu(first(x)))
        return self.fc(F.relu(self.norm(x)).amax((2, 3)))


class GroupedBottleneck(nn.Module):
    """A ResNeXt block: a grouped convolution between two plain ones."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 1)
        self.norm1 = nn.BatchNorm2d(32)
        self.conv2 = nn.Conv2d(32, 32, 3, padding=1, groups=4)
        self.conv3 = nn.Conv2d(32, 7, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(F.relu(self.conv2(F.relu(self.norm1(self.conv1(x))))))


class SqueezeExcite(nn.Module):
    """Channels scaled by a gate that is computed from their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.down = nn.Conv2d(32, 16, 1)
        self.up = nn.Conv2d(16, 32, 1)
        self.head = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.conv(x))
        gate = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.head(x * gate)


class GatedMLP(nn.Module):
    """SwiGLU over tokens, between layer norms of a residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(12, 16)
        self.norm = nn.LayerNorm(16)
        self.gate = nn.Linear(16, 40, bias=False)
        self.up = nn.Linear(16, 40, bias=False)
        self.down = nn.Linear(40, 16, bias=False)
        self.scale = nn.Parameter(torch.rand(16))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        y = self.norm(x)
        x = x + self.scale * self.down(F.silu(self.gate(y)) * self.up(y))
        return self.head(x.mean(1))


class ChannelShuffle(nn.Module):
    """A shuffle whose sizes follow the width of its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 36, 1)
        self.conv2 = nn.Conv2d(36, 36, 3, padding=1, groups=3)
        self.head = nn.Conv2d(36, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv1(x))
        b, c, h, w = x.shape
        x = x.view(b, 3, c // 3, h, w).transpose(1, 2).reshape(b, c, h, w)
        return self.head(F.relu(self.conv2(x)))


class LiteralView(nn.Module):
    """Sizes written into the code: one layer can't lose channels, the other can."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.fc1 = nn.Linear(16, 32)
        self.fc2 = nn.Linear(32, 24)
        self.head = nn.Linear(24, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.fc1(F.relu(self.conv(x)).mean((2, 3))))
        x = x.view(-1, 4, 8).transpose(1, 2).reshape(-1, 32)
        return self.head(F.relu(self.fc2(x)))


class LiteralSlice(nn.Module):
    """The first sixteen channels, counted in the code, go one way."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.left = nn.Conv2d(16, 16, 1)
        self.right = nn.Conv2d(16, 16, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        return torch.cat([self.left(x[:, :16]), self.right(x[:, 16:])], 1).mean((2, 3))


class UnknownOperator(nn.Module):
    """A Fourier transform over the channels has no rule; the layer behind it is free."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fft.fft(self.conv1(x), dim=1).real
        return self.head(F.relu(self.conv2(x)))


class Decoder(nn.Module):
    """Down, up by a transposed convolution, and a skip connection that is concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 16, 3, padding=1)
        self.deep = nn.Conv2d(16, 32, 3, padding=1)
        self.up = nn.ConvTranspose2d(32, 24, 2, stride=2)
        self.lonely = nn.ConvTranspose2d(24, 24, 3, padding=1, groups=24)
        self.head = nn.Conv2d(24 + 16, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = F.relu(self.down(x))
        y = F.relu(self.deep(F.avg_pool2d(skip, 2)))
        y = F.interpolate(F.relu(self.lonely(F.relu(self.up(y)))), scale_factor=1.0)
        return self.head(torch.cat([skip, y], 1))


class Norms(nn.Module):
    """Group, instance and layer norms, and a PReLU with a slope per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.group = nn.GroupNorm(4, 32)
        self.conv2 = nn.Conv2d(32, 24, 3, padding=1)
        self.instance = nn.InstanceNorm2d(24, affine=True, track_running_stats=True)
        self.prelu = nn.PReLU(24)
        self.conv3 = nn.Conv2d(24, 16, 3, padding=1)
        self.each = nn.GroupNorm(16, 16)
        self.fc = nn.Linear(16, 20)
        self.layer = nn.LayerNorm(20)
        self.head = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.group(self.conv1(x)))
        x = self.prelu(self.instance(self.conv2(x)))
        x = F.elu(self.each(self.conv3(x))).mean((2, 3))
        return self.head(F.relu(self.layer(self.fc(x))))


class Signal(nn.Module):
    """One-dimensional convolutions over (batch, channel, time)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(3, 16, 5, stride=2, padding=2, padding_mode="reflect")
        self.norm = nn.BatchNorm1d(16)
        self.conv2 = nn.Conv1d(16, 16, 3, dilation=2)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.norm(self.conv1(x)), 0.1)
        return self.head(F.max_pool1d(F.relu(self.conv2(x)), 2).mean(-1))


class Volume(nn.Module):
    """Three-dimensional convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(16)
        self.up = nn.ConvTranspose3d(16, 16, 2, stride=2)
        self.head = nn.Conv3d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool3d(F.relu(self.norm(self.conv1(x))), 2)
        return self.head(F.interpolate(F.relu(self.up(x)), scale_factor=2))


class TwoOutputs(nn.Module):
    """A detector's shape: one trunk, two heads, outputs in a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Conv2d(3, 16, 3, padding=1)
        self.boxes = nn.Conv2d(16, 4, 1)
        self.tower = nn.Conv2d(16, 16, 3, padding=1)
        self.classes = nn.Conv2d(16, 6, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = F.relu(self.trunk(x))
        return {"boxes": self.boxes(x), "classes": self.classes(F.hardswish(self.tower(x)))}


IMAGE = (2, 3, 8, 8)
NETWORKS: dict[type[nn.Module], tuple[int, ...]] = {
    Plain: IMAGE,
    Flattened: IMAGE,
    SplitConcat: IMAGE,
    SharedWeights: IMAGE,
    DepthwiseTail: IMAGE,
    ZeroPaddedShortcut: IMAGE,
    Residual: IMAGE,
    GroupedBottleneck: IMAGE,
    SqueezeExcite: IMAGE,
    GatedMLP: (2, 5, 12),
    ChannelShuffle: IMAGE,
    LiteralView: IMAGE,
    LiteralSlice: IMAGE,
    UnknownOperator: IMAGE,
    Decoder: IMAGE,
    Norms: IMAGE,
    Signal: (2, 3, 32),
    Volume: (2, 3, 4, 4, 4),
    TwoOutputs: IMAGE,
}
"""Every odd network with the shape of its input."""
