"""The scale of the batch norm behind a channel (network slimming, Liu et al., ICCV 2017)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bequest.config import register
from bequest.criteria.base import FilterCriterion, Unscorable
from bequest.graph.units import Producer, Unit


@register("criterion", "bn-scale")
@dataclass(frozen=True)
class BNScale(FilterCriterion):
    """|γ| of the batch norm that reads each channel (Liu et al., arXiv 1708.06519)."""

    def _filters(self, unit: Unit, producer: Producer) -> Tensor:
        if producer.norm is None:
            raise Unscorable(self.name, unit.name, f"no batch norm follows {producer.name}")
        return producer.norm.gamma.abs()
