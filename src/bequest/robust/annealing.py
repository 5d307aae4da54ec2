"""Which pairs of channels merge in a step: saliency alone, a pool of candidates, or annealing.

After Meng, Bai, Teo & Dong (arXiv 2204.00783), section 4. Candidates come as disjoint pairs,
ascending in saliency. The score of a candidate is low where the output can change little, and where
it changes alike for all classes, which keeps the margins between them:

    score = α·f(L) + (1 − α)·f(ENT),   L = Σ_o width_o,   ENT = −Σ_o p_o·ln p_o,

p_o the share of outputs whose interval is similar to o's.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import Tensor

from bequest.config import register
from bequest.errors import UsageError
from bequest.robust.intervals import Interval

ALIKE = 0.9
"""Similarity from which two outputs' intervals count as alike."""

SWEEPS = 8
"""How often the walk of :class:`Stochastic` goes over the candidates before it takes the best."""


class Strategy:
    """Chooses the pairs that merge in one step of one layer; a frozen dataclass of parameters.

    Attributes:
        recursive: whether a channel that took another up may be in a pair again. If not, at most
            half of a layer can leave.
    """

    name: ClassVar[str]
    recursive: bool


@register("strategy", "baseline")
@dataclass(frozen=True)
class Baseline(Strategy):
    """The least salient pairs (Srinivas & Babu 2015), whatever they do to the output."""

    recursive: bool = False


class Informed(Strategy, ABC):
    """A strategy that looks at what merging can do to the output."""

    @abstractmethod
    def pool(self, wanted: int, available: int) -> int:
        """How many candidates are scored when ``wanted`` pairs are to merge."""

    @abstractmethod
    def choose(
        self, scores: Sequence[float], wanted: int, temperature: float, random: np.random.Generator
    ) -> list[int]:
        """The positions of the ``wanted`` candidates that merge, in the order of acceptance.

        Args:
            scores: of the candidates, in the order of saliency.
            wanted: how many; there are at least as many candidates.
            temperature: from 1 at the beginning towards 0.
            random: of every draw.
        """


@register("strategy", "greedy")
@dataclass(frozen=True)
class Greedy(Informed):
    """Of the least salient pairs those with the best scores.

    Attributes:
        recursive: as in :class:`Strategy`.
        factor: size of the pool over the number of pairs wanted.
    """

    recursive: bool = True
    factor: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.factor, bool) or not isinstance(self.factor, int) or self.factor < 1:
            raise UsageError(f"greedy: expected a whole factor ≥ 1, found {self.factor!r}")

    def pool(self, wanted: int, available: int) -> int:
        """A multiple of what is wanted."""
        return min(available, self.factor * wanted)

    def choose(
        self, scores: Sequence[float], wanted: int, temperature: float, random: np.random.Generator
    ) -> list[int]:
        """Best scores first."""
        return _best(scores, range(len(scores)), wanted)


@register("strategy", "stochastic")
@dataclass(frozen=True)
class Stochastic(Informed):
    """Simulated annealing over the pairs in the order of saliency.

    A pair is accepted where its score is no higher than the target, else with the probability
    exp(−(score − target)/T); the accepted score becomes the target. After :data:`SWEEPS` walks the
    best of those left are taken, so that it always ends.

    Attributes:
        recursive: as in :class:`Strategy`.
    """

    recursive: bool = True

    def pool(self, wanted: int, available: int) -> int:
        """All."""
        return available

    def choose(
        self, scores: Sequence[float], wanted: int, temperature: float, random: np.random.Generator
    ) -> list[int]:
        """Accepted ones in order of acceptance."""
        target = min(scores)
        left, accepted = list(range(len(scores))), list[int]()
        for _ in range(SWEEPS):
            for place in tuple(left):
                if len(accepted) == wanted:
                    return accepted
                worse = scores[place] - target
                if worse <= 0 or random.random() < math.exp(-worse / temperature):
                    target = scores[place]
                    accepted.append(place)
                    left.remove(place)
        return accepted + _best(scores, left, wanted - len(accepted))


def _best(scores: Sequence[float], places: Sequence[int], wanted: int) -> list[int]:
    return sorted(places, key=lambda place: scores[place])[:wanted]


def spread(impacts: Interval) -> Tensor:
    """L: the sum of the widths over outputs; (candidates, outputs) → (candidates,)."""
    return (impacts.upper - impacts.lower).sum(1)


def entropy(impacts: Interval) -> Tensor:
    """ENT: 0 where all outputs change alike; (candidates, outputs) → (candidates,).

    Two outputs are alike where 1 − ½(|Δlower| + |Δupper|)/(hull of all intervals and 0) ≥ 0.9.
    """
    lower, upper = impacts.lower, impacts.upper
    hull = upper.amax(1).clamp(min=0) - lower.amin(1).clamp(max=0)
    apart = (lower[:, :, None] - lower[:, None]).abs() + (upper[:, :, None] - upper[:, None]).abs()
    alike = apart <= 2 * (1 - ALIKE) * hull[:, None, None]
    share = alike.double().mean(2)
    return -(share * share.log()).sum(1)


def scores(impacts: Interval, alpha: float) -> list[float]:
    """α·f(L) + (1 − α)·f(ENT) with f = ln(1 + ·), lower is better.

    The published f, the logistic function, is 1 to the last digit for nearly every pair of a
    trained network, and tells no two of them apart.

    Args:
        impacts: of the candidates on the outputs, (candidates, outputs), finite.
        alpha: weight of the width against the entropy, in [0, 1].
    """
    found = alpha * spread(impacts).log1p() + (1 - alpha) * entropy(impacts).log1p()
    return [float(one) for one in found]
