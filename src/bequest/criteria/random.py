"""Chance: the baseline that every criterion has to beat."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bequest.config import register
from bequest.criteria.base import Criterion, generator
from bequest.graph.units import Unit


@register("criterion", "random")
@dataclass(frozen=True)
class Random(Criterion):
    """Uniform scores in [0, 1), drawn from the seed and the unit's name."""

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        draws = torch.rand(
            unit.size, generator=generator(seed, unit), dtype=torch.float64, device="cpu"
        )
        return draws.to(unit.device)
