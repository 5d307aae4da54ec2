"""Iterative feature merging: the two most similar channels become one, again and again.

Chen, Zhou & Yan, ICLR 2024 (arXiv 2310.06756).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bequest.config import register
from bequest.graph.coupled import Coupled
from bequest.restorers.batch_norm import away_from_zero
from bequest.restorers.merging import Merge, Merging, one_hot


@register("restorer", "ifm")
@dataclass(frozen=True)
class IFM(Merging):
    """Merges the pair of channels whose scaled rows [w̃; b̃]/‖·‖ are nearest until enough are left.

    A merged channel is the mean of all channels in it, and what reads them is added up. The paper
    merges until a distance is reached; here the ratio says when to stop. Of the criterion only the
    number of channels counts. No parameters.
    """

    def merge(self, coupled: Coupled, kept: Tensor, seed: int) -> Merge:
        """By the products of the rows, which a mean changes linearly."""
        rows = torch.cat([member.rows() for member in coupled.members], dim=1)
        labels = nearest_pairs(rows @ rows.T, len(kept))
        means, shares = one_hot(labels, len(kept))
        return Merge(means, shares, (None,) * len(coupled.members))


def nearest_pairs(gram: Tensor, size: int) -> Tensor:
    """Which rows end in which of ``size`` means.

    Args:
        gram: float64 (n, n), the inner products of the rows.
        size: at which number to stop.

    Returns:
        int64 (n,): numbered in the order of the first members.
    """
    product, n = gram.clone(), len(gram)
    heir, count = torch.arange(n, device=gram.device), torch.ones(n).to(gram)
    gone = torch.zeros(n, dtype=torch.bool, device=gram.device)
    for _ in range(n - size):
        norms = away_from_zero(product.diagonal().clamp(min=0).sqrt())
        cosine = product / norms[:, None] / norms
        cosine.fill_diagonal_(-torch.inf)
        cosine[gone], cosine[:, gone] = -torch.inf, -torch.inf
        one, other = sorted(divmod(int(cosine.argmax()), n))
        share = count[one] / (count[one] + count[other])
        for _ in range(2):  # the rows of the products, then their columns
            product[one] = share * product[one] + (1 - share) * product[other]
            product = product.T.contiguous()
        count[one] += count[other]
        gone[other] = True
        heir[heir == other] = one
    labels: Tensor = torch.unique(heir, return_inverse=True)[1]
    return labels
