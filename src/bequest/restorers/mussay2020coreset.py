"""Coresets by sensitivity: kept channels are reweighted so that the sum stays right on average.

Mussay, Osadchy, Braverman, Zhou & Feldman, ICLR 2020 (arXiv 1907.04018).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bequest.config import register
from bequest.criteria.base import generator
from bequest.criteria.mussay2020coreset import first_arrivals, sensitivity
from bequest.graph.units import Unit
from bequest.restorers.weight_space import Delivery, WeightSpace


@register("restorer", "coreset")
@dataclass(frozen=True)
class Coreset(WeightSpace):
    """The weights of a coreset: kept channel k counts count_k/(q_k·draws) times.

    With the criterion ``coreset``, the same seed and ``beta``, this completes one sampling of
    Mussay et al. (Algorithm 1): q the sensitivities, count_k how often k was drawn until p
    distinct channels were found, draws the sum of the counts.

    If other channels were kept than that sampling finds, counts don't exist; the weight is then
    its expectation given that k was drawn, E[count_k/(q_k·m) | count_k ≥ 1] = 1/P(count_k ≥ 1)
    = 1/(1 − exp(−q_k·m)), m the (Poisson) number of draws in which p distinct channels are
    expected: Σ_j 1 − exp(−q_j·m) = p.

    Attributes:
        beta: bound on the norm of the unit's inputs, as in the criterion.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        self.require_positive("beta")

    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        probability = sensitivity(self.name, unit, self.beta)
        stream = generator(seed, unit)
        arrival = first_arrivals(probability, stream)
        if arrival[kept].max() <= arrival[removed].min():
            gain = _sampled(probability[kept], arrival[kept], stream)
        else:
            gain = _expected(probability, len(kept))[kept]
        return Delivery(arrival.new_zeros(len(removed), len(kept)), gain=gain)


def _sampled(probability: Tensor, arrival: Tensor, stream: torch.Generator) -> Tensor:
    """count/(q·draws) of the channels found, (p,); 1 for those of probability zero.

    Sampling ends when the last channel arrives. Until then a channel that arrived at time T has
    come again a Poisson number of times, of rate q·(end − T).
    """
    found = arrival.isfinite()
    if not found.any():
        return torch.ones_like(probability)
    end = arrival[found].max()
    rate = torch.where(found, probability * (end - arrival), 0.0)
    again = torch.poisson(rate.cpu(), generator=stream).to(rate.device)
    count = torch.where(found, 1 + again, 0.0)
    return torch.where(found, count / (probability * count.sum()), 1.0)


def _expected(probability: Tensor, size: int) -> Tensor:
    """1/(1 − exp(−q·m)) of every channel, (n,), m such that ``size`` distinct ones are expected."""
    possible = probability[probability > 0]
    if len(possible) <= size:
        return torch.ones_like(probability)
    low, high = possible.new_tensor(float(size)).log(), (50 / possible.min()).log()
    for _ in range(60):  # halvings, to the last digit
        middle = (low + high) / 2
        enough = -torch.expm1(-possible * middle.exp()).sum() >= size
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    chance = -torch.expm1(-probability * high.exp())
    return torch.where(probability > 0, 1 / chance, 1.0)
