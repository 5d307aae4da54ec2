"""Coresets by sensitivity: the sampling of Mussay et al., ICLR 2020 (arXiv 1907.04018).

Channels are drawn with replacement, with probabilities in proportion to the most that each can
contribute to a consumer, until enough distinct ones are found.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, linalg

from bequest.config import register
from bequest.criteria.base import Criterion, generator, outgoing
from bequest.graph.units import Unit


@register("criterion", "coreset")
@dataclass(frozen=True)
class Coreset(Criterion):
    """The order in which sampling by sensitivity first meets the channels; early ones are kept.

    Attributes:
        beta: bound on the norm of the unit's inputs, B in φ(B‖w‖); any positive number does for
            a homogeneous activation.
    """

    beta: float = 1.0

    def __post_init__(self) -> None:
        self.require_positive("beta")

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        probability = sensitivity(self.name, unit, self.beta)
        order = first_arrivals(probability, generator(seed, unit)).argsort(stable=True)
        scores = torch.empty_like(probability)
        scores[order] = torch.arange(unit.size, 0, -1, device=scores.device).to(scores)
        return scores


def sensitivity(method: str, unit: Unit, beta: float) -> Tensor:
    """The probability of each channel: max|W_next[·, j]|·φ(B‖w_j‖), normalised; (n,).

    w_j is the row [W̃; b̃] with the batch norm folded, φ the unit's activation (Mussay et al.,
    Algorithm 1). Zero for a channel that no consumer reads.

    Raises:
        Unscorable: the path from producer to consumers is not a simple chain.
    """
    reach = outgoing(method, unit).abs().amax(dim=1)
    filters, biases = unit.producer.folded()
    norms = linalg.vector_norm(torch.cat([filters, biases[:, None]], dim=1), dim=1)
    assert unit.activation is not None  # outgoing() has refused units without one
    bound = reach * unit.activation.apply(beta * norms).abs()
    total = bound.sum()
    return bound / total if total > 0 else torch.full_like(bound, 1 / unit.size)


def first_arrivals(probability: Tensor, stream: torch.Generator) -> Tensor:
    """When sampling with replacement first draws each channel, as times of a Poisson process.

    Let channel j arrive at the times of a Poisson process of rate q_j. The sequence of arrivals
    is then exactly a sequence of independent draws with probabilities q_j, and the first arrival
    of j is exponential with rate q_j: one draw per channel replaces the sampling loop, however
    unlikely a channel is.

    Args:
        probability: q, (n,).
        stream: the unit's generator, on the CPU.

    Returns:
        float64 (n,); infinite for channels of probability zero.
    """
    waiting = torch.empty(len(probability), dtype=torch.float64, device="cpu")
    waiting.exponential_(generator=stream)
    return waiting.to(probability.device) / probability
