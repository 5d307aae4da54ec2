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


class FusedAttention(nn.Module):
    """A transformer block: class token, positions, fused qkv with a number of heads, an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim = 4, 6
        self.embed = nn.Linear(12, 20)
        self.token = nn.Parameter(torch.randn(1, 1, 20))
        self.position = nn.Parameter(torch.randn(1, 6, 20))
        self.qkv = nn.Linear(20, 72)
        self.proj = nn.Linear(24, 20)
        self.fc1 = nn.Linear(20, 40)
        self.fc2 = nn.Linear(40, 20)
        self.head = nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.position
        b, n, _ = x.shape
        qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4)
        q, k, v = qkv.unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, -1)
        x = x + self.proj(y)
        x = x + self.fc2(F.gelu(self.fc1(x)))
        return self.head(x[:, 0])


class LiteralAttention(nn.Module):
    """Attention by hand, every size in the code; heads and the second layer's width are literal."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(12, 24)
        self.key = nn.Linear(12, 24)
        self.value = nn.Linear(12, 32)
        self.out = nn.Linear(32, 16)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x).view(-1, 5, 4, 6).transpose(1, 2)
        k = self.key(x).view(-1, 5, 4, 6).permute(0, 2, 3, 1)
        v = self.value(x).view(-1, 5, 4, 8).transpose(1, 2)
        y = ((q @ k) * 0.4).softmax(-1) @ v
        return self.head(F.relu(self.out(y.transpose(1, 2).reshape(-1, 5, 32)))).mean(1)


class GroupedQueries(nn.Module):
    """Two heads of keys and values serve four of queries, all of them rotated by position."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(12, 16, bias=False)
        self.k_proj = nn.Linear(12, 8, bias=False)
        self.v_proj = nn.Linear(12, 8, bias=False)
        self.o_proj = nn.Linear(16, 12, bias=False)
        angles = torch.arange(5)[:, None] * torch.tensor([1.0, 0.1]).repeat(2)
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def rotate(self, x: Tensor) -> Tensor:
        half = torch.cat([-x[..., 2:], x[..., :2]], -1)
        return x * self.cos + half * self.sin

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            proj(x).view(b, n, -1, 4).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = self.rotate(q), self.rotate(k)
        k, v = (t[:, :, None].expand(-1, -1, 2, -1, -1).reshape(b, -1, n, 4) for t in (k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.o_proj(y.transpose(1, 2).reshape(b, n, -1))


class WindowAttention(nn.Module):
    """Shifted windows with a table of relative positions, and a mask that is repeated per head."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads = 4
        self.stem = nn.Conv2d(3, 12, 1)
        self.qkv = nn.Linear(12, 48)
        self.table = nn.Parameter(torch.randn(9, 4))
        place = torch.stack(torch.meshgrid(*[torch.arange(2)] * 2, indexing="ij")).flatten(1)
        offset = place[:, :, None] - place[:, None] + 1
        self.register_buffer("index", offset[0] * 3 + offset[1])
        self.register_buffer("mask", torch.randn(16, 4, 4))
        self.proj = nn.Linear(16, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        y = torch.roll(x, (-1, -1), (1, 2)).view(b, h // 2, 2, w // 2, 2, c)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(-1, 4, c)
        q, k, v = self.qkv(y).reshape(-1, 4, 3, self.num_heads, 4).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.index.view(-1)].view(4, 4, -1).permute(2, 0, 1)[None]
        mask = self.mask[None, :, None].expand(b, -1, self.num_heads, -1, -1)
        mask = bias + mask.reshape(-1, self.num_heads, 4, 4)
        y = F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).reshape(len(q), 4, -1)
        y = (
            self.proj(y)
            .view(b, h // 2, w // 2, 2, 2, c)
            .permute(0, 1, 3, 2, 4, 5)
            .reshape(b, h, w, c)
        )
        return self.head((x + torch.roll(y, (1, 1), (1, 2))).mean((1, 2)))


class UnequalSplit(nn.Module):
    """Two parts of unequal width, counted in the code, and a table that an einsum reads."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 24, 3, padding=1)
        self.few = nn.Conv2d(6, 8, 1)
        self.many = nn.Conv2d(18, 8, 1)
        self.mix = nn.Parameter(torch.randn(8, 10))
        self.head = nn.Linear(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        few, many = F.relu(self.conv(x)).split([6, 18], 1)
        y = F.relu(self.few(few)) * torch.sigmoid(self.many(many))
        return self.head(F.relu(torch.einsum("bchw,cd->bd", y, self.mix)))


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
    FusedAttention: (2, 5, 12),
    LiteralAttention: (2, 5, 12),
    GroupedQueries: (2, 5, 12),
    WindowAttention: IMAGE,
    UnequalSplit: IMAGE,
}
"""Every odd network with the shape of its input."""
