"""Model folding: clusters of like channels become one channel each.

Wang, Šikić, Thiele & Saukh, ICLR 2025 (arXiv 2502.10216).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, linalg

from bequest.config import register
from bequest.errors import UsageError
from bequest.execution.randomness import stream
from bequest.graph.coupled import Coupled, Member
from bequest.restorers.batch_norm import away_from_zero
from bequest.restorers.merging import Merge, Merging, one_hot

ROUNDS = 100
"""Of one run of k-means, at most."""


@register("restorer", "folding")
@dataclass(frozen=True)
class Folding(Merging):
    """k-means over the channels of a group, as many clusters as channels stay.

    A channel's row is [w̃; b̃] of every layer that writes it beside the weights of every layer that
    reads it. A cluster becomes the mean of its filters and biases, and the sum of the weights that
    read it. With ``repair`` (Fold-AR) what varies of a merged channel is scaled by 1/√E, as the
    mean of m channels of mean correlation ρ has E = (1 + (m − 1)·ρ)/m of their variance; ρ is the
    mean cosine of their filters, at least 0. Without batch norm nothing says where a channel's mean
    is: no repair there.

    The clusters decide what becomes of the group; of the criterion only the number of channels
    counts.

    Attributes:
        repair: of the variances, Fold-AR; False is Fold-Naive.
        runs: of k-means, of which the tightest counts.
    """

    repair: bool = True
    runs: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.runs, bool) or not isinstance(self.runs, int) or self.runs < 1:
            raise UsageError(f"folding: expected runs of at least 1, found {self.runs!r}")

    def merge(self, coupled: Coupled, kept: Tensor, seed: int) -> Merge:
        """Clusters in the order of their first members."""
        sides = [member.rows() for member in coupled.members]
        rows = torch.cat([*sides, *coupled.columns], dim=1)
        labels = k_means(rows @ rows.T, len(kept), self.runs, stream(seed))
        means, shares = one_hot(labels, len(kept))
        gains = tuple(_gain(one, means, shares) if self.repair else None for one in coupled.members)
        return Merge(means, shares, gains)


def k_means(gram: Tensor, size: int, runs: int, draws: torch.Generator) -> Tensor:
    """Lloyd's algorithm from k-means++ seeds, by the products of the points alone.

    Args:
        gram: float64 (n, n), the inner products of n points.
        size: number of clusters, at most n.
        runs: how often; the least sum of squares counts.
        draws: for the seeds.

    Returns:
        int64 (n,): the cluster of every point, numbered in the order of their first members; every
        cluster has one.
    """
    found = [_lloyd(gram, size, draws) for _ in range(runs)]
    _, labels = min(found, key=lambda one: one[0])
    first = {label: place for place, label in reversed([*enumerate(labels.tolist())])}
    order = {label: number for number, label in enumerate(sorted(first, key=lambda x: first[x]))}
    return torch.tensor([order[label] for label in labels.tolist()], device=gram.device)


def _lloyd(gram: Tensor, size: int, draws: torch.Generator) -> tuple[float, Tensor]:
    square = gram.diagonal()
    distances = _from_points(gram, _seeds(gram, size, draws))
    labels = distances.argmin(dim=1)
    for _ in range(ROUNDS):
        labels = _filled(labels, distances, size)
        means, _ = one_hot(labels, size)
        inner = means @ gram
        spread = (inner * means).sum(dim=1)
        distances = square[:, None] - 2 * inner.T + spread
        new = distances.argmin(dim=1)
        if torch.equal(new, labels):
            break
        labels = new
    labels = _filled(labels, distances, size)
    return float(distances.gather(1, labels[:, None]).sum()), labels


def _from_points(gram: Tensor, points: list[int]) -> Tensor:
    square = gram.diagonal()
    return (square[:, None] - 2 * gram[:, points] + square[points]).clamp(min=0)


def _seeds(gram: Tensor, size: int, draws: torch.Generator) -> list[int]:
    """k-means++: each next point with a chance that grows with the square of its distance.

    Of a few that are drawn, the one that brings all points nearest is taken.
    """
    chosen = [int(torch.randint(len(gram), (), generator=draws))]
    nearest = _from_points(gram, chosen)[:, 0]
    trials = 2 + int(math.log(size))
    while len(chosen) < size:
        chance = nearest.clone()
        if float(chance.sum()) <= 0:  # the others repeat those that are chosen
            chance = torch.ones_like(nearest)
        chance[chosen] = 0
        drawn = torch.multinomial(chance.cpu(), trials, replacement=True, generator=draws).tolist()
        after = torch.minimum(nearest[:, None], _from_points(gram, drawn))
        best = int(after.sum(dim=0).argmin())
        chosen.append(drawn[best])
        nearest = after[:, best]
    return chosen


def _filled(labels: Tensor, distances: Tensor, size: int) -> Tensor:
    """An empty cluster takes the point that is farthest from its own, of those not alone."""
    labels = labels.clone()
    counts = torch.bincount(labels, minlength=size)
    own = distances.gather(1, labels[:, None])[:, 0].clone()
    for empty in (counts == 0).nonzero()[:, 0].tolist():
        far = torch.where(counts[labels] > 1, own, -torch.inf).argmax()
        counts[labels[far]] -= 1
        labels[far], own[far], counts[empty] = empty, -torch.inf, 1
    return labels


def _gain(member: Member, means: Tensor, shares: Tensor) -> Tensor | None:
    """1/√E of every cluster, float64 (p,)."""
    if member.producer.norm is None:
        return None
    weight = member.producer.folded()[0]
    unit = weight / away_from_zero(linalg.vector_norm(weight, dim=1))[:, None]
    count = shares.sum(dim=0)
    cosines = (shares.T @ unit).square().sum(dim=1)  # of all pairs of members, and of each itself
    left = torch.maximum(cosines / count.square(), 1 / count)  # opposites would ask for too much
    return left.rsqrt()
