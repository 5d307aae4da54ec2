"""What random networks are made of: modules that draw their own sizes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import ClassVar, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

WIDTHS = (4, 6, 8, 12)
ACTIVATIONS: tuple[Callable[[Tensor], Tensor], ...] = (
    F.relu,
    F.gelu,
    F.silu,
    F.hardswish,
    F.leaky_relu,
    torch.tanh,
    torch.sigmoid,
    F.softplus,
)


class Piece(nn.Module):
    """A part of a network that draws its sizes.

    Attributes:
        exact: False where a norm takes statistics over channels, so that the network without some
            of them is not the one in which they are zero.
        width: number of channels that it returns.
    """

    exact: ClassVar[bool] = True
    width: int

    def __init__(self, random: Random, width: int) -> None:
        super().__init__()
        self.width = width
        self.activation = random.choice(ACTIVATIONS)
        self.build(random, width)

    def build(self, random: Random, width: int) -> None:
        """Makes the layers for so many channels, and says how many are returned."""


Kind = TypeVar("Kind", bound=type[Piece])
PIECES: dict[str, list[type[Piece]]] = {"maps": [], "tokens": [], "vectors": []}
"""By what they take and return: (B, C, H, W), (B, N, C) or (B, C)."""


def piece(takes: str) -> Callable[[Kind], Kind]:
    """Files a piece."""

    def file(kind: Kind) -> Kind:
        PIECES[takes].append(kind)
        return kind

    return file
