"""Magnitude: a filter with small weights is worth little (Li et al., ICLR 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bequest.config import register
from bequest.criteria.base import FilterCriterion, summed
from bequest.graph.units import Producer, Unit


@register("criterion", "l1")
@dataclass(frozen=True)
class L1(FilterCriterion):
    """Σ|w| of each filter row; a linear row includes its bias (Li et al., arXiv 1608.08710)."""

    def _filters(self, unit: Unit, producer: Producer) -> Tensor:
        return summed(producer, torch.abs)


@register("criterion", "l2")
@dataclass(frozen=True)
class L2(FilterCriterion):
    """‖w‖₂ of each filter row; a linear row includes its bias."""

    def _filters(self, unit: Unit, producer: Producer) -> Tensor:
        return summed(producer, torch.square).sqrt()
