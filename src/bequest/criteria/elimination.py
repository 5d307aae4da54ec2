"""Backward elimination on Grams: the channel that costs least leaves, and the rest take over.

For criteria that look at what the layers behind a unit see (``unit.readers``). Nothing is inverted
more than once: when a channel leaves, inverses are downdated. Now and then what has left is dropped
from the matrices, so that the last steps cost next to nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, linalg

from bequest.criteria.base import Unscorable
from bequest.criteria.downdates import Inverse, Places
from bequest.graph.units import Reader, Unit

DROPPED = 1 / 8
"""Share of the channels still held after whose leaving the matrices are made smaller."""

TINY = 1e-8
"""Part of the mean variance that keeps the covariance of constant inputs invertible."""


class System(ABC):
    """One reader's state during an elimination."""

    def __init__(self, reader: Reader, size: int, ridge: float) -> None:
        """Inverts the covariance, with a ridge relative to its diagonal.

        So the scale of an input doesn't matter, and one that never varies costs nothing.
        """
        variances = reader.covariance.diagonal()
        varies = bool(variances.any())
        least = TINY * variances.mean() if varies else torch.ones_like(variances[0])
        # Of inputs none of which varies nothing is lost, whoever leaves.
        self.weight = reader.weight if varies else torch.zeros_like(reader.weight)
        self.places = Places(reader.owner, size)
        inverse = _inverse(reader.covariance, ridge * variances + least)
        self.inverse = Inverse(inverse, self.places)

    @abstractmethod
    def costs(self) -> Tensor:
        """What each channel's leaving costs now; (n,)."""

    @abstractmethod
    def remove(self, channel: int) -> None:
        """A channel leaves, and the others take over what they can."""

    def drop(self, stay: Tensor) -> Tensor:
        """Forgets channels that have left; those that stay are counted anew, in their order.

        Args:
            stay: bool (n,).

        Returns:
            Which inputs stay, bool (d,).
        """
        self.places, inputs = self.places.staying(stay)
        self.inverse.keep(self.places, stay, inputs)
        return inputs


def eliminate(
    method: str, unit: Unit, systems: Sequence[System], order: Sequence[int] | None = None
) -> Tensor:
    """Removes channels one by one: always the cheapest, or in a given order.

    Args:
        method: the name of the caller, for errors.
        unit: the group of n channels.
        systems: the states of its readers; they are used up.
        order: all channels, the first to leave first.

    Returns:
        float64 (n,): for each channel the cost that has mounted up when it leaves, so that the
        order of scores is the order of leaving.

    Raises:
        Unscorable: no plain layer reads the unit.
    """
    if not systems:
        raise Unscorable(method, unit.name, "no plain convolution or linear layer reads it")
    device = systems[0].weight.device
    scores = torch.zeros(unit.size, dtype=torch.float64, device=device)
    held = torch.arange(unit.size, device=device)
    gone = torch.zeros(unit.size, dtype=torch.bool, device=device)
    spent = torch.zeros((), dtype=torch.float64, device=device)
    for step in range(unit.size):
        if gone.sum() > DROPPED * len(held):
            # A reader of some of the channels alone may have nothing left to lose.
            systems = [system for system in systems if bool(system.drop(~gone).any())]
            held, gone = held[~gone], gone[~gone]
        costs = torch.zeros(len(held), dtype=torch.float64, device=device)
        if systems:
            costs = torch.stack([system.costs() for system in systems]).sum(0)
        if order is None:
            place = int(costs.masked_fill(gone, torch.inf).argmin())
        else:
            place = int((held == order[step]).nonzero())
        spent = spent + costs[place].clamp(min=0)
        scores[held[place]] = spent
        gone[place] = True
        for system in systems:
            system.remove(place)
    return scores


def _inverse(covariance: Tensor, penalty: Tensor) -> Tensor:
    """(C + diag(penalty))⁻¹; where rounding leaves that indefinite, C's eigenvalues are clamped."""
    ridged = covariance.clone()
    ridged.diagonal().add_(penalty)
    factor, failed = linalg.cholesky_ex(ridged)
    del ridged  # each of these may take gigabytes
    if not failed:
        inverse: Tensor = torch.cholesky_inverse(factor)
        return inverse
    scale = penalty.rsqrt()
    values, vectors = linalg.eigh(scale[:, None] * covariance * scale)
    whitened = scale[:, None] * vectors
    clamped: Tensor = (whitened / (values.clamp(min=0) + 1)) @ whitened.T
    return clamped
