"""Data-free parameter pruning (Srinivas & Babu, BMVC 2015): outgoing weights are added up."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bequest.config import register
from bequest.criteria.srinivas2015redundancy import greedy_merges
from bequest.graph.units import Unit
from bequest.restorers.weight_space import Delivery, WeightSpace, nothing


@register("restorer", "sum")
@dataclass(frozen=True)
class Sum(WeightSpace):
    """Each removed channel's outgoing weights are added to those of one kept channel.

    Replays the greedy merging of Srinivas & Babu (arXiv 1507.06149) with only the removed
    channels allowed to go. A channel that had taken others up passes all of them on when it goes.
    Together with the criterion ``redundancy`` this is the paper's procedure.
    """

    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        heir = list(range(unit.size))
        # From the last merge back to the first: whoever takes j up has its own heir already.
        for i, j in reversed(greedy_merges(self.name, unit, removed.tolist())):
            heir[j] = heir[i]
        matrix = nothing(unit, kept, removed)
        place = torch.searchsorted(kept, torch.tensor(heir, device=kept.device)[removed])
        return Delivery(matrix.scatter_(1, place[:, None], 1.0))
