"""Pieces over vectors, (B, C)."""

from __future__ import annotations

from random import Random

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from tests.random_networks.pieces import WIDTHS, Piece, piece


@piece("vectors")
class Hidden(Piece):
    """linear → batch norm → activation → linear."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.width = random.choice(WIDTHS)
        self.one = nn.Linear(width, middle, bias=random.random() < 0.5)
        self.norm = nn.BatchNorm1d(middle)
        self.two = nn.Linear(middle, self.width)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.activation(self.norm(self.one(x))))


@piece("vectors")
class Viewed(Piece):
    """A view into blocks and back, with sizes that stand in the code."""

    def build(self, random: Random, width: int) -> None:
        self.one, self.two = nn.Linear(width, 12), nn.Linear(12, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.one(x)).view(-1, 3, 4).transpose(1, 2).reshape(-1, 12)
        return self.two(x)


@piece("vectors")
class Product(Piece):
    """A product with a matrix of the module's own."""

    def build(self, random: Random, width: int) -> None:
        middle = random.choice(WIDTHS)
        self.matrix = nn.Parameter(torch.randn(width, middle) / width)
        self.two = nn.Linear(middle, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.activation(x @ self.matrix)) + x


@piece("vectors")
class Bilinear(Piece):
    """A branch for each of two factors, one of which is bounded."""

    def build(self, random: Random, width: int) -> None:
        self.one, self.other = nn.Linear(width, 8), nn.Linear(width, 8)
        self.two = nn.Linear(8, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x) * F.hardtanh(self.other(x)))
