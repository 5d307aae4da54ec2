"""A share of the dense network's parameters."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from bequest.config import register
from bequest.selection.allocation import Part
from bequest.selection.targets.budget import Budget
from bequest.surgery.cut import Cut


@register("target", "params")
@dataclass(frozen=True)
class Params(Budget):
    """At most that share of the parameters stays."""

    def part(self, part: Part) -> float:
        """The share of all parameters."""
        return part.params

    def cost(self, cut: Cut, model: nn.Module) -> int:
        """The number of parameters."""
        return sum(parameter.numel() for parameter in model.parameters())
