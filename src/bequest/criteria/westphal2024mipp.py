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
from bequest.criteria.elimination import System, downdate, eliminate
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
        self.informed = self.inverse + self.weight.mT @ self.weight / nu

    def costs(self) -> Tensor:
        ignorant, informed = (self.blocks(matrix) for matrix in (self.inverse, self.informed))
        return (_log_det(informed) - _log_det(ignorant)) / 2

    def drop(self, stay: Tensor) -> Tensor:
        inputs = super().drop(stay)
        self.informed = self.informed[inputs][:, inputs]
        return inputs

    def remove(self, channel: int) -> None:
        for inverse in (self.inverse, self.informed):
            downdate(inverse, self.inputs(channel))


def _log_det(blocks: Tensor) -> Tensor:
    factors: Tensor = linalg.cholesky(blocks)
    return 2 * factors.diagonal(dim1=1, dim2=2).log().sum(1)
