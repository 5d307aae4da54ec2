"""Pieces over maps of channels, (B, C, H, W)."""

from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.random_networks.pieces import WIDTHS, Piece, piece


@piece("maps")
class Plain(Piece):
    """conv → batch norm → activation → conv."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.width = random.choice(WIDTHS)
        self.one = nn.Conv2d(width, middle, 3, padding=random.choice((0, 1)), bias=False)
        self.norm = nn.BatchNorm2d(middle)
        self.two = nn.Conv2d(middle, self.width, 1, bias=random.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.activation(self.norm(self.one(x))))


@piece("maps")
class Residual(Piece):
    """A branch that is added to the stream."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.one = nn.Conv2d(width, middle, 3, padding=1)
        self.two = nn.Conv2d(middle, width, 3, padding=1, padding_mode="reflect")

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x) + self.two(F.relu(self.one(x)))


@piece("maps")
class Depthwise(Piece):
    """1 × 1, a filter per channel, 1 × 1."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.one = nn.Conv2d(width, middle, 1)
        self.norm = nn.BatchNorm2d(middle)
        self.each = nn.Conv2d(middle, middle, 3, padding=1, groups=middle, bias=False)
        self.two = nn.Conv2d(middle, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.activation(self.each(self.activation(self.norm(self.one(x))))))


@piece("maps")
class Multiplied(Piece):
    """Two filters for each channel."""

    def build(self, random: Random, width: int) -> None:
        self.one = nn.Conv2d(width, 6, 1)
        self.twice = nn.Conv2d(6, 12, 3, padding=1, groups=6)
        self.two = nn.Conv2d(12, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.activation(self.twice(F.relu(self.one(x)))))


@piece("maps")
class Grouped(Piece):
    """A grouped convolution between two plain ones, or two grouped ones of other counts."""

    def build(self, random: Random, width: int) -> None:
        count = random.choice((2, 3, 4))
        self.one = nn.Conv2d(width, 12, 1)
        self.grouped = nn.Conv2d(12, 24, 3, padding=1, groups=count)
        self.again = nn.Conv2d(24, 12, 1, groups=random.choice((1, 2, count)))
        self.two = nn.Conv2d(12, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.grouped(F.relu(self.one(x))))
        return self.two(F.relu(self.again(x)))


@piece("maps")
class Transposed(Piece):
    """Down by a stride and up by a transposed convolution, plain or grouped."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice((4, 8, 12))
        self.down = nn.Conv2d(width, middle, 2, stride=2)
        groups = random.choice((1, 1, 2, middle))
        self.up = nn.ConvTranspose2d(middle, middle, 2, stride=2, groups=groups)
        self.two = nn.Conv2d(middle, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.activation(self.up(F.relu(self.down(x)))))


@piece("maps")
class Concatenated(Piece):
    """The stream beside a branch of it."""

    def build(self, random: Random, width: int) -> None:
        more = random.choice(WIDTHS)
        self.branch = nn.Conv2d(width, more, 3, padding=1)
        self.width = width + more

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.activation(self.branch(x)), x], 1)


@piece("maps")
class Shuffled(Piece):
    """A channel shuffle by sizes that are read off, or that stand in the code."""

    def build(self, random: Random, width: int) -> None:
        self.count, self.literal = random.choice((2, 3)), random.random() < 0.3
        self.one = nn.Conv2d(width, 12, 1)
        self.two = nn.Conv2d(12, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        b, c, h, w = x.shape
        each = 12 // self.count if self.literal else c // self.count
        x = x.view(b, self.count, each, h, w).transpose(1, 2).reshape(b, -1, h, w)
        return self.two(x)


@piece("maps")
class Parted(Piece):
    """Parts of one layer's channels go different ways: chunks, splits, unequal splits, slices."""

    def build(self, random: Random, width: int) -> None:
        self.way = random.choice(("chunk", "split", "unequal", "slice"))
        left = 4 if self.way == "unequal" else 6
        self.one = nn.Conv2d(width, 12, 1)
        self.left = nn.Conv2d(left, width, 1)
        self.right = nn.Conv2d(12 - left, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.one(x))
        if self.way == "chunk":
            left, right = x.chunk(2, 1)
        elif self.way == "split":
            left, right = x.split(x.shape[1] // 2, 1)
        elif self.way == "unequal":
            left, right = x.split([4, 8], 1)
        else:
            half = x.shape[1] // 2
            left, right = x[:, :half], x[:, half:]
        return self.left(left) + torch.tanh(self.right(right))


@piece("maps")
class Gated(Piece):
    """One branch scales the other: sigmoid, GLU, or squeeze and excite."""

    def build(self, random: Random, width: int) -> None:
        self.way = random.choice(("sigmoid", "glu", "excite"))
        middle = random.choice(WIDTHS)
        self.one = nn.Conv2d(width, middle * 2 if self.way == "glu" else middle, 1)
        if self.way == "sigmoid":
            self.gate = nn.Conv2d(width, middle, 3, padding=1)
        elif self.way == "excite":
            self.down, self.up = nn.Conv2d(middle, 4, 1), nn.Conv2d(4, middle, 1)
        self.two = nn.Conv2d(middle, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "glu":
            return self.two(F.glu(self.one(x), 1))
        y = self.activation(self.one(x))
        if self.way == "sigmoid":
            return self.two(y * torch.sigmoid(self.gate(x)))
        scale = torch.sigmoid(self.up(F.relu(self.down(y.mean((2, 3), keepdim=True)))))
        return self.two(y * scale)


@piece("maps")
class Bounded(Piece):
    """Two branches bound or replace each other; bounds may be parameters."""

    def build(self, random: Random, width: int) -> None:
        self.way = random.choice(("clamp", "minimum", "where", "parameter", "maximum"))
        middle = random.choice(WIDTHS)
        self.one, self.other = nn.Conv2d(width, middle, 1), nn.Conv2d(width, middle, 1)
        if self.way == "parameter":
            self.bound = nn.Parameter(torch.randn(middle, 1, 1))
        self.two = nn.Conv2d(middle, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        one, other = self.one(x), self.other(x)
        if self.way == "clamp":
            one = torch.clamp(one, max=other)
        elif self.way == "minimum":
            one = torch.minimum(one, other)
        elif self.way == "maximum":
            one = torch.maximum(other, one)
        elif self.way == "where":
            one = torch.where(other > 0, one, other * 0.5)
        else:
            one = torch.clamp(one, min=self.bound) + other
        return self.two(one)


@piece("maps")
class PerChannel(Piece):
    """Constants of the channels' number: parameters, buffers, slopes of a PReLU."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.one = nn.Conv2d(width, middle, 1)
        self.scale = nn.Parameter(torch.rand(1, middle, 1, 1) + 0.5)
        self.register_buffer("shift", torch.randn(middle), persistent=random.random() < 0.5)
        self.slope = nn.PReLU(middle)
        self.two = nn.Conv2d(middle, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.slope(self.one(x) * self.scale + self.shift[None, :, None, None]))


@piece("maps")
class Instance(Piece):
    """A norm of each channel by itself."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.one = nn.Conv2d(width, middle, 1)
        self.norm = nn.InstanceNorm2d(middle, affine=random.random() < 0.7)
        self.each = nn.GroupNorm(middle, middle)
        self.two = nn.Conv2d(middle, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.each(F.relu(self.norm(self.one(x)))))


@piece("maps")
class GroupNormed(Piece):
    """A norm over blocks of channels."""

    exact = False

    def build(self, random: Random, width: int) -> None:
        self.one = nn.Conv2d(width, 12, 1)
        self.norm = nn.GroupNorm(random.choice((1, 2, 3)), 12)
        self.two = nn.Conv2d(12, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.activation(self.norm(self.one(x))))


@piece("maps")
class CalledTwice(Piece):
    """One layer in two places, with other channels or the same before it."""

    def build(self, random: Random, width: int) -> None:
        self.one = nn.Conv2d(width, 8, 1)
        self.shared = nn.Conv2d(8, 8, 3, padding=1)
        self.two = nn.Conv2d(8, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(F.relu(self.shared(self.activation(self.shared(F.relu(self.one(x)))))))


@piece("maps")
class Functional(Piece):
    """A layer's weight in a functional call with its own stride, dilation and groups."""

    def build(self, random: Random, width: int) -> None:
        self.stride, self.groups = random.choice((1, 2)), random.choice((1, 2))
        self.one = nn.Conv2d(width, 8, 1)
        self.layer = nn.Conv2d(8, 8, 2, groups=self.groups)
        self.two = nn.Conv2d(8, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.layer.weight, self.layer.bias
        y = F.relu(self.one(x))
        y = F.conv2d(y, weight, bias, stride=self.stride, padding=1, groups=self.groups)
        return self.two(self.activation(y))


@piece("maps")
class OwnParameters(Piece):
    """A module that holds its weights itself."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.kernel = nn.Parameter(torch.randn(middle, width, 1, 1) / width)
        self.offset = nn.Parameter(torch.randn(middle))
        self.two = nn.Conv2d(middle, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.activation(F.conv2d(x, self.kernel, self.offset)))


@piece("maps")
class WidthInNumbers(Piece):
    """A number that the code computes from a width."""

    def build(self, random: Random, width: int) -> None:
        self.way = random.choice(("shape", "attribute", "none"))
        middle = random.choice(WIDTHS)
        self.one = nn.Conv2d(width, middle, 1)
        self.two = nn.Conv2d(middle, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.one(x))
        if self.way == "shape":
            x = x / x.shape[1] ** 0.5
        x = self.two(x)
        return x * self.two.in_channels**-0.5 if self.way == "attribute" else x


@piece("maps")
class Pooled(Piece):
    """Pooling, upsampling and padding between layers."""

    def build(self, random: Random, width: int) -> None:
        self.way = random.choice(("max", "average", "up", "pad"))
        self.one = nn.Conv2d(width, 8, 1)
        self.two = nn.Conv2d(8, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.one(x))
        if self.way == "max":
            x = F.max_pool2d(x, 2, 1)
        elif self.way == "average":
            x = F.avg_pool2d(x, 3, 1, 1)
        elif self.way == "up":
            x = F.interpolate(x, scale_factor=2, mode="nearest")
        else:
            x = F.pad(x, (1, 1, 0, 1))
        return self.two(x)


@piece("maps")
class ChannelsLast(Piece):
    """A block over the last dimension: norm, two linear layers, a scale per channel."""

    exact = False

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.norm = nn.LayerNorm(width)
        self.one, self.two = nn.Linear(width, middle), nn.Linear(middle, width)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.two(self.activation(self.one(self.norm(x.permute(0, 2, 3, 1)))))
        return x + (self.scale * y).permute(0, 3, 1, 2)


@piece("maps")
class Projected(Piece):
    """A residual block whose shortcut is a layer too."""

    def build(self, random: Random, width: int) -> None:
        self.width = random.choice(WIDTHS)
        self.one = nn.Conv2d(width, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8, affine=random.random() < 0.5)
        self.two = nn.Conv2d(8, self.width, 1)
        self.short = nn.Sequential(nn.Conv2d(width, self.width, 1), nn.BatchNorm2d(self.width))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.two(self.activation(self.norm(self.one(x)))) + self.short(x))


@piece("maps")
class Rearranged(Piece):
    """Channels become places, and places channels."""

    def build(self, random: Random, width: int) -> None:
        self.up = random.random() < 0.5
        self.one = nn.Conv2d(width, 8, 2 if self.up else 1)
        self.two = nn.Conv2d(2 if self.up else 32, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.one(x))
        if self.up:
            return self.two(F.pixel_shuffle(x, 2))
        return self.two(F.pixel_unshuffle(x[:, :, :2, :2], 2))


@piece("maps")
class Dense(Piece):
    """Every layer reads all before it."""

    def build(self, random: Random, width: int) -> None:
        more = random.choice((4, 6))
        self.layers = nn.ModuleList(nn.Conv2d(width + i * more, more, 1) for i in range(3))
        self.width = width + 3 * more

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, self.activation(layer(x))], 1)
        return x


@piece("maps")
class Selected(Piece):
    """Branches are stacked, weighed by their means, and summed: selective kernels."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.one, self.other = nn.Conv2d(width, middle, 1), nn.Conv2d(width, middle, 3, padding=1)
        self.weigh = nn.Linear(middle, middle)
        self.two = nn.Conv2d(middle, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        both = torch.stack([self.one(x), F.relu(self.other(x))], 1)
        gate = torch.sigmoid(self.weigh(both.sum(1).mean((2, 3))))
        weights = torch.stack([gate, 1 - gate], 1)[..., None, None]
        return self.two((both * weights).sum(1))


@piece("maps")
class AcrossChannels(Piece):
    """A convolution over the channels' means, which no channel may leave."""

    def build(self, random: Random, width: int) -> None:
        self.one = nn.Conv2d(width, 8, 1)
        self.across = nn.Conv1d(1, 1, 3, padding=1, bias=False)
        self.two = nn.Conv2d(8, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.one(x))
        gate = torch.sigmoid(self.across(x.mean((2, 3))[:, None]))
        return self.two(x * gate.transpose(1, 2)[..., None])
