"""Data-free parameter pruning: the greedy search for pairs of like channels.

Srinivas & Babu, BMVC 2015 (arXiv 1507.06149). If channels i and j compute the same, j can leave
and its outgoing weights be added to those of i. Where they are merely similar, the output changes
by at most ‖a_j‖·‖w_i − w_j‖ per unit of input, a_j the outgoing weights: the pair with the least
of it goes first, and the saliencies are updated after every merge.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bequest.config import register
from bequest.criteria.base import Criterion, outgoing
from bequest.graph.units import Unit


@register("criterion", "redundancy")
@dataclass(frozen=True)
class Redundancy(Criterion):
    """The place of a channel in the greedy order of merges; the last one stays the longest.

    The first to be merged away scores 0, the one that is never merged n − 1. Reads the rows
    [W̃; b̃] with the batch norm folded, and the consumers' weights; needs a unit whose path from
    producer to consumers is a simple chain.
    """

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        merges = greedy_merges(self.name, unit, range(unit.size))
        scores = torch.full((unit.size,), unit.size - 1.0, dtype=torch.float64, device="cpu")
        for rank, (_, removed) in enumerate(merges):
            scores[removed] = rank
        return scores.to(unit.device)


def greedy_merges(method: str, unit: Unit, removable: range | list[int]) -> list[tuple[int, int]]:
    """Merges channels away one by one, the least salient pair first.

    The saliency of merging j into i is ‖a_j‖²·‖w_i − w_j‖² (Srinivas & Babu, eq. 6); then
    a_i += a_j and j is gone. i may be any channel still there, j any removable one. Ties go to
    the lowest j, then the lowest i.

    Distances never change, so each channel keeps its nearest neighbour and looks for another
    only when that one goes; ‖a_i‖² follows from the Gram matrix of the outgoing weights, whose
    row i takes up row j. A step thus costs O(n) as long as few channels share a neighbour.

    Args:
        method: the name of the caller, for errors.
        unit: the group of n channels.
        removable: the channels that may go, ascending.

    Returns:
        The pairs (i, j), j merged into i, in order, until every removable channel, or all but
        one channel of the unit, has gone.

    Raises:
        Unscorable: the path from producer to consumers is not a simple chain.
    """
    out = outgoing(method, unit)
    filters, biases = unit.producer.folded()
    rows = torch.cat([filters, biases[:, None]], dim=1)
    # The search is sequential and scalar, so it runs on the CPU; only the two products don't.
    gram = (out @ out.T).cpu().numpy()
    gaps = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    distance = gaps.square().fill_diagonal_(torch.inf).cpu().numpy()

    candidate = np.zeros(unit.size, dtype=bool)
    candidate[removable] = True
    nearest = distance.argmin(axis=1)
    merges: list[tuple[int, int]] = []
    for _ in range(min(len(removable), unit.size - 1)):
        left = np.flatnonzero(candidate)
        j = int(left[(gram[left, left] * distance[left, nearest[left]]).argmin()])
        i = int(nearest[j])
        merges.append((i, j))

        gram[i] += gram[j]
        gram[:, i] += gram[:, j]
        candidate[j] = False
        distance[:, j] = np.inf
        bereft = np.flatnonzero(candidate & (nearest == j))
        nearest[bereft] = distance[bereft].argmin(axis=1)
    return merges
