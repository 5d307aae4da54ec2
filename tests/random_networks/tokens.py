"""Pieces over sequences of tokens, (B, N, C)."""

from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.random_networks.pieces import WIDTHS, Piece, piece


@piece("tokens")
class Perceptron(Piece):
    """A residual MLP, plain or gated."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.gated = random.random() < 0.5
        self.up = nn.Linear(width, middle)
        if self.gated:
            self.gate = nn.Linear(width, middle, bias=False)
        self.down = nn.Linear(middle, width, bias=random.random() < 0.5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.activation(self.up(x))
        return x + self.down(y * F.silu(self.gate(x)) if self.gated else y)


@piece("tokens")
class Normed(Piece):
    """A norm over the stream, by a layer or by hand, and a layer behind it."""

    exact = False

    def build(self, random: Random, width: int) -> None:
        self.norm = random.choice((nn.LayerNorm, nn.RMSNorm))(width)
        self.one, self.two = nn.Linear(width, 8), nn.Linear(8, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.two(self.activation(self.one(self.norm(x))))


@piece("tokens")
class FusedAttention(Piece):
    """Queries, keys and values of one layer; heads by a number or by a size."""

    def build(self, random: Random, width: int) -> None:
        self.num_heads, self.head_dim = random.choice((2, 3, 4)), random.choice((2, 4))
        self.by_size, self.by_hand = random.random() < 0.5, random.random() < 0.5
        inner = self.num_heads * self.head_dim
        self.qkv = nn.Linear(width, 3 * inner, bias=random.random() < 0.5)
        self.proj = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        if self.by_size:
            qkv = self.qkv(x).reshape(b, n, 3, -1, self.head_dim)
        else:
            qkv = self.qkv(x).reshape(b, n, 3, self.num_heads, -1)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return x + self.proj(attended(q, k, v, self.by_hand).transpose(1, 2).reshape(b, n, -1))


@piece("tokens")
class SeparateAttention(Piece):
    """A layer each for queries, keys and values, which may have fewer heads."""

    def build(self, random: Random, width: int) -> None:
        self.heads, self.head_dim = 4, random.choice((2, 4))
        self.serve = random.choice((1, 2, 4))
        self.by_hand = random.random() < 0.5
        inner = self.heads * self.head_dim
        self.query = nn.Linear(width, inner)
        self.key = nn.Linear(width, inner // self.serve)
        self.value = nn.Linear(width, inner // self.serve)
        self.out = nn.Linear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            layer(x).view(b, n, -1, self.head_dim).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if self.serve > 1:
            k, v = (t.repeat_interleave(self.serve, 1) for t in (k, v))
        y = attended(q, k, v, self.by_hand).transpose(1, 2).reshape(b, n, -1)
        return x + self.out(y)


def attended(q: Tensor, k: Tensor, v: Tensor, by_hand: bool) -> Tensor:
    """Attention over (B, heads, N, size)."""
    if not by_hand:
        return F.scaled_dot_product_attention(q, k, v)
    return ((q @ k.transpose(-2, -1)) / q.shape[-1] ** 0.5).softmax(-1) @ v


@piece("tokens")
class LinearAttention(Piece):
    """Keys meet values first; the size of a head is divided by."""

    def build(self, random: Random, width: int) -> None:
        self.inner = random.choice((4, 8))
        self.q, self.k, self.v = (nn.Linear(width, self.inner) for _ in range(3))
        self.out = nn.Linear(self.inner, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = F.relu(self.q(x)), F.relu(self.k(x)), self.v(x)
        return x + self.out(q @ (k.transpose(1, 2) @ v) / x.shape[1])


@piece("tokens")
class Mixed(Piece):
    """A layer over the positions, between two over the channels."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.one, self.two = nn.Linear(width, middle), nn.Linear(middle, width)
        self.across = nn.Conv1d(middle, middle, 3, padding=1, groups=random.choice((1, middle)))

    def forward(self, x: Tensor) -> Tensor:
        y = self.across(F.relu(self.one(x)).transpose(1, 2)).transpose(1, 2)
        return x + self.two(self.activation(y))


@piece("tokens")
class Tied(Piece):
    """Two layers with one weight and biases of their own."""

    def build(self, random: Random, width: int) -> None:
        self.one, self.two = nn.Linear(width, 8), nn.Linear(width, 8)
        self.two.weight = self.one.weight
        self.out = nn.Linear(8, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(F.relu(self.one(x)) + self.activation(self.two(x * 0.5)))


@piece("tokens")
class Positions(Piece):
    """Learned positions, a class token, and a table that an einsum reads."""

    def build(self, random: Random, width: int) -> None:
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.scale = nn.Parameter(torch.rand(width))
        self.mix = nn.Parameter(torch.randn(width, 8) / width)
        self.two = nn.Linear(8, width)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(len(x), -1, -1), x * self.scale], 1)
        return x + self.two(self.activation(torch.einsum("bnc,cd->bnd", x, self.mix)))


@piece("tokens")
class RotaryAttention(Piece):
    """Rotated queries and keys; fewer heads of keys serve several of queries."""

    def build(self, random: Random, width: int) -> None:
        self.heads, self.serve = 4, random.choice((1, 2))
        self.query = nn.Linear(width, 16, bias=False)
        self.key = nn.Linear(width, 16 // self.serve, bias=False)
        self.value = nn.Linear(width, 16 // self.serve, bias=False)
        self.out = nn.Linear(16, width, bias=False)

    def rotated(self, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[2])[:, None] * torch.tensor([1.0, 0.1, 1.0, 0.1])
        first, last = x.chunk(2, -1)
        return x * angles.cos().to(x) + torch.cat([-last, first], -1) * angles.sin().to(x)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (
            layer(x).view(b, n, -1, 4).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        k, v = (
            t[:, :, None].expand(-1, -1, self.serve, -1, -1).reshape(b, -1, n, 4) for t in (k, v)
        )
        y = F.scaled_dot_product_attention(self.rotated(q), self.rotated(k), v, is_causal=True)
        return x + self.out(y.transpose(1, 2).reshape(b, n, -1))


@piece("tokens")
class ChunkedAttention(Piece):
    """Queries, keys and values as chunks of one layer, in one head or several, by einsum."""

    def build(self, random: Random, width: int) -> None:
        self.heads = random.choice((1, 2))
        self.qkv, self.out = nn.Linear(width, 24), nn.Linear(8, width)

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = (t.reshape(b, n, self.heads, -1) for t in self.qkv(x).chunk(3, -1))
        weights = (torch.einsum("bnhd,bmhd->bhnm", q, k) * 0.5).softmax(-1)
        return x + self.out(torch.einsum("bhnm,bmhd->bnhd", weights, v).reshape(b, n, -1))


@piece("tokens")
class LearnedQueries(Piece):
    """Queries that are parameters read the tokens."""

    def build(self, random: Random, width: int) -> None:
        self.queries = nn.Parameter(torch.randn(1, 3, 8))
        self.key, self.value, self.out = (
            nn.Linear(width, 8),
            nn.Linear(width, 6),
            nn.Linear(6, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.queries @ self.key(x).transpose(1, 2) / 3).softmax(-1)
        return self.out(self.activation(weights @ self.value(x)))


@piece("tokens")
class Library(Piece):
    """PyTorch's own attention."""

    def build(self, random: Random, width: int) -> None:
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.attention(x, x, x, need_weights=False)[0]
