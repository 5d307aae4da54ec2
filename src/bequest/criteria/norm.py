"""Magnitude: a filter with small weights is worth little (Li et al., ICLR 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bequest.config import register
from bequest.criteria.base import FilterCriterion, filter_columns
from bequest.graph.units import Producer, Unit


@register("criterion", "l1")
@dataclass(frozen=True)
class L1(FilterCriterion):
    """Σ|w| of each filter row; a linear row includes its bias (Li et al., arXiv 1608.08710)."""

    def _filters(self, unit: Unit, producer: Producer) -> Tensor:
        return torch.stack([part.abs().sum(dim=1) for part in filter_columns(producer)]).sum(dim=0)


@register("criterion", "l2")
@dataclass(frozen=True)
class L2(FilterCriterion):
    """‖w‖₂ of each filter row; a linear row includes its bias."""

    def _filters(self, unit: Unit, producer: Producer) -> Tensor:
        squares = [part.square().sum(dim=1) for part in filter_columns(producer)]
        return torch.stack(squares).sum(dim=0).sqrt()
