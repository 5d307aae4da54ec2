"""Mutual information: the channels that tell the layers behind most about what they write.

Westphal, Hailes & Musolesi, "Mutual information preserving neural network pruning" (arXiv
2411.00147), in the linear-Gaussian form: our reading, on the Gram of a layer's inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, linalg

from bequest.config import register
from bequest.criteria.base import Criterion
from bequest.criteria.downdates import Inverse
from bequest.criteria.elimination import System, eliminate
from bequest.graph.units import Reader, Unit


@register("criterion", "mutual-information")
@dataclass(frozen=True)
class MutualInformation(Criterion):
    """The information about the next layer's outputs that is lost when a channel has left.

    With Y = W·X + noise of variance ν, the information that the inputs S carry is
    I(X_S; Y) = ½·log det C_S − ½·log det C_{S|Y}, and since C_{X|Y}⁻¹ = C⁻¹ + WᵀW/ν, taking the
    inputs J out loses  ½·log det [C_{S|Y}⁻¹]_JJ − ½·log det [C_S⁻¹]_JJ;  both inverses are
    downdated. In nats, summed over the layers that read the unit.

    Attributes:
        noise: ν relative to the mean variance of the outputs; also the ridge of C.
    """

    observes: ClassVar[bool] = True

    noise: float = 1e-2

    def __post_init__(self) -> None:
        self.require_positive("noise")

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        systems = [_Channel(reader, unit.size, self.noise) for reader in unit.readers]
        return eliminate(self.name, unit, systems)


class _Channel(System):
    """A reader as a noisy channel in the sense of information theory."""

    def __init__(self, reader: Reader, size: int, noise: float) -> None:
        super().__init__(reader, size, noise)
        variance = float((self.weight @ reader.covariance * self.weight).sum()) / len(self.weight)
        nu = noise * variance if variance > 0 else 1.0
        told = self.weight.mT @ self.weight / nu
        self.informed = Inverse(self.inverse.matrix + told, self.places)

    def costs(self) -> Tensor:
        return (_log_det(self.informed.blocks) - _log_det(self.inverse.blocks)) / 2

    def drop(self, stay: Tensor) -> Tensor:
        inputs = super().drop(stay)
        self.informed.keep(self.places, stay, inputs)
        return inputs

    def remove(self, channel: int) -> None:
        for inverse in (self.inverse, self.informed):
            inverse.remove(channel)
            if inverse.is_full:
                inverse.multiply()


def _log_det(blocks: Tensor) -> Tensor:
    factors: Tensor = linalg.cholesky(blocks)
    return 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1)
