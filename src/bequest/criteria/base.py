"""What every criterion is: scores per channel of a unit, the higher the more worth keeping."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar

import torch
from torch import Tensor

from bequest.config import Method
from bequest.errors import BequestError
from bequest.graph.units import Producer, Unit


class Unscorable(BequestError):  # noqa: N818 -- a finding about one unit, caught by the caller
    """A criterion has nothing to go by in this unit, e.g. ``bn-scale`` without a batch norm."""

    def __init__(self, criterion: str, unit: str, reason: str) -> None:
        super().__init__(f"criterion '{criterion}' can't score {unit}: {reason}")
        self.reason = reason


class Criterion(Method, ABC):
    """Decides which channels of a unit are worth keeping; a frozen dataclass of its parameters.

    A criterion with ``observes`` set finds ``unit.readers`` filled: what the layers behind the
    unit see over samples, synthetic or real.
    """

    observes: ClassVar[bool] = False

    def score(self, unit: Unit, seed: int) -> Tensor:
        """Scores the channels of ``unit``; a higher score means keep.

        Args:
            unit: the group of n channels.
            seed: of every draw that the criterion makes; the global generators are left alone.

        Returns:
            float64 (n,), finite, on the unit's device.

        Raises:
            Unscorable: the unit lacks what the criterion reads.
            ModelError: the scores are not finite, as from weights that are not.
        """
        scores = self._scores(unit, seed)
        unit.require_finite(scores, (unit.size,), f"criterion '{self.name}'", "scores")
        return scores.double()

    def judge(self, unit: Unit) -> Criterion:
        """Who scores this unit: the criterion itself, unless it says that another one is to."""
        return self

    @abstractmethod
    def _scores(self, unit: Unit, seed: int) -> Tensor:
        """The scores, (n,), not yet checked."""


class FilterCriterion(Criterion):
    """Scores each producer's filters on their own.

    With one producer its scores are the unit's. With several (a residual stream) they are made
    scale-free first: each producer's scores are divided by their own mean, then averaged, so that
    no layer outweighs another by the size of its weights alone.
    """

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        per_producer = [self._filters(unit, producer) for producer in unit.producers]
        if len(per_producer) == 1:
            return per_producer[0]
        return torch.stack([_by_mean(scores) for scores in per_producer]).mean(dim=0)

    @abstractmethod
    def _filters(self, unit: Unit, producer: Producer) -> Tensor:
        """One non-negative score per filter of ``producer``, (n,)."""


def _by_mean(scores: Tensor) -> Tensor:
    mean = scores.mean()
    return scores if mean == 0 else scores / mean


def filter_rows(producer: Producer) -> Tensor:
    """The rows that magnitude criteria compare: (n, d), or (n, d + 1) for a linear layer.

    A linear row includes its bias, a convolution's doesn't: the protocol of the published tables
    (Kim et al. 2020; Lee et al. 2025).
    """
    if producer.kind == "linear" and producer.bias is not None:
        return torch.cat([producer.weight, producer.bias[:, None]], dim=1)
    return producer.weight


def summed(producer: Producer, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Σ_j f(r_ij) over the same rows, (n,), f element-wise."""
    total = producer.summed(function)
    if producer.kind == "linear" and producer.bias is not None:
        total += function(producer.bias)
    return total


def generator(seed: int, unit: Unit) -> torch.Generator:
    """A CPU generator of its own for ``unit``: the same in every process, another per unit."""
    digest = hashlib.sha256(f"{seed}:{unit.name}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "big", signed=True))


def outgoing(criterion: str, unit: Unit) -> Tensor:
    """Every weight that reads each channel: (n, Σ o·q) over consumers, outputs and positions.

    Raises:
        Unscorable: the path from producer to consumers is not a simple chain.
    """
    if unit.obstacle is not None:
        raise Unscorable(criterion, unit.name, unit.obstacle)
    return torch.cat([c.weight.transpose(0, 1).flatten(1) for c in unit.consumers], dim=1)
