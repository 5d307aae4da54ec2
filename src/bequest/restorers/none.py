"""Plain pruning: nothing is handed on."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bequest.config import register
from bequest.graph.units import Unit
from bequest.restorers.weight_space import Delivery, WeightSpace, nothing


@register("restorer", "none")
@dataclass(frozen=True)
class Plain(WeightSpace):
    """Removed channels leave nothing: the baseline that every restorer has to beat."""

    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        return Delivery(nothing(unit, kept, removed))
