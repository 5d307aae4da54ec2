"""Filters near the geometric median are replaceable by the others (He et al., CVPR 2019)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bequest.config import register
from bequest.criteria.base import FilterCriterion, filter_rows
from bequest.graph.units import Producer, Unit


@register("criterion", "geometric-median")
@dataclass(frozen=True)
class GeometricMedian(FilterCriterion):
    """Σ_k ‖w_j − w_k‖₂: the sum of a filter row's distances to all others.

    Filter pruning via geometric median (He et al., arXiv 1811.00250, eq. 7) removes the filters
    with the smallest sum; a linear row includes its bias.
    """

    def _filters(self, unit: Unit, producer: Producer) -> Tensor:
        rows = filter_rows(producer)
        return torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)
