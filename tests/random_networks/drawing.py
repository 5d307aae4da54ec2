"""A network for every seed: a front that fits its inputs, pieces, bridges and a head."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.networks import randomise
from tests.random_networks import maps, tokens, vectors
from tests.random_networks.pieces import PIECES, WIDTHS, Piece

_FILED = maps, tokens, vectors  # importing them files their pieces
_VOCABULARY, _LENGTH, _SIDE, _BESIDE = 11, 6, 8, 5


class Network(nn.Module):
    """Images or tokens, beside them perhaps a vector, to a few numbers.

    Args:
        seed: decides everything.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        random = Random(seed)
        self.reads = random.choice(("images", "images", "tokens"))
        self.bridge = random.choice(("mean", "amax", "flatten", "tokens"))
        self.pooled = random.choice(("mean", "first"))
        self.beside = random.choice((None, None, "add", "concatenate"))
        width = random.choice(WIDTHS)
        if self.reads == "images":
            self.stem: nn.Module = nn.Conv2d(3, width, 3)
        else:
            self.stem = nn.Embedding(_VOCABULARY, width)
        self.maps, self.tokens, self.vectors = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        if self.reads == "images":
            width = self._grow(self.maps, "maps", random.randint(1, 3), random, width)
        if self.reads == "tokens" or self.bridge == "tokens":
            width = self._grow(self.tokens, "tokens", random.randint(1, 2), random, width)
        elif self.bridge == "flatten":
            width *= 4
        if self.beside is not None:
            self.side = nn.Linear(_BESIDE, width)
        width *= 2 if self.beside == "concatenate" else 1
        self.tied = width == getattr(self.stem, "embedding_dim", None) and random.random() < 0.4
        if not self.tied:
            width = self._grow(self.vectors, "vectors", random.randint(0, 2), random, width)
            self.head = nn.Linear(width, 4)

    def _grow(self, held: nn.ModuleList, kind: str, count: int, random: Random, width: int) -> int:
        for _ in range(count):
            held.append(random.choice(PIECES[kind])(random, width))
            width = held[-1].width
        return width

    @property
    def pieces(self) -> list[Piece]:
        """All pieces in order."""
        return [*self.maps, *self.tokens, *self.vectors]

    @property
    def exact(self) -> bool:
        """Whether the network without channels is the one in which these are zero."""
        return all(piece.exact for piece in self.pieces)

    def forward(self, x: Tensor, beside: Tensor | None = None) -> Tensor:
        x = self.stem(x)
        for piece in self.maps:
            if min(x.shape[2:]) < 4:  # the smallest maps that every piece can read
                x = F.interpolate(x, size=(_SIDE, _SIDE))
            x = piece(x)
        x = self._between(x)
        if beside is not None:
            side = F.relu(self.side(beside))
            x = x * side if self.beside == "add" else torch.cat([x, side], -1)
        for piece in self.vectors:
            x = piece(x)
        return F.linear(x, self.stem.weight) if self.tied else self.head(x)

    def _between(self, x: Tensor) -> Tensor:
        """From maps or tokens to vectors."""
        if self.reads == "images" and self.bridge != "tokens":
            if self.bridge == "flatten":
                return F.adaptive_avg_pool2d(x, 2).flatten(1)
            return x.mean((2, 3)) if self.bridge == "mean" else x.amax((2, 3))
        if self.reads == "images":
            x = F.adaptive_avg_pool2d(x, 2).flatten(2).transpose(1, 2)
        for piece in self.tokens:
            x = piece(x)
        return x.mean(1) if self.pooled == "mean" else x[:, 0]

    def inputs(self, batch: int, seed: int = 0) -> tuple[Tensor, ...]:
        """So many samples."""
        generator = torch.Generator().manual_seed(seed)
        if self.reads == "images":
            first = torch.randn(batch, 3, _SIDE, _SIDE, generator=generator, dtype=torch.float64)
        else:
            first = torch.randint(_VOCABULARY, (batch, _LENGTH), generator=generator)
        if self.beside is None:
            return (first,)
        return first, torch.randn(batch, _BESIDE, generator=generator, dtype=torch.float64)

    def described(self) -> str:
        """What it is made of, in a line."""
        between = f"{self.bridge}, {self.pooled}, beside: {self.beside}, tied: {self.tied}"
        return f"{self.reads}: {' > '.join(type(one).__name__ for one in self.pieces)} ({between})"


@dataclass(frozen=True)
class Wish:
    """The arguments of the call that prunes a random network."""

    ratio: float
    groups: str
    scope: str
    round_to: int


def drawn(seed: int) -> Network:
    """The network of a seed, in float64 and evaluation mode, with statistics as after training."""
    torch.manual_seed(seed)
    return randomise(Network(seed)).double()


def wish(seed: int) -> Wish:
    """How the network of a seed is pruned."""
    random = Random(-1 - seed)
    return Wish(
        ratio=random.choice((0.2, 0.5, 0.5, 0.8)),
        groups=random.choice(("inner", "all")),
        scope=random.choice(("group", "group", "global")),
        round_to=random.choice((1, 1, 2, 4)),
    )
