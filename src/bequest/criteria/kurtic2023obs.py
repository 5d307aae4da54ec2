"""Structured optimal brain surgeon: who leaves least behind once the others have taken over.

Hassibi & Stork, "Second order derivatives for network pruning: optimal brain surgeon", NeurIPS
1992; for whole structures on the Gram of a layer's inputs: Kurtić, Frantar & Alistarh, "ZipLM",
NeurIPS 2023 (arXiv 2302.04089), eq. 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, linalg

from bequest.config import register
from bequest.criteria.base import Criterion
from bequest.criteria.elimination import System, downdate, eliminate
from bequest.graph.units import Reader, Unit


@register("criterion", "obs")
@dataclass(frozen=True)
class OBS(Criterion):
    """The error in the outputs of the layers behind that has mounted up when a channel leaves.

    Channel j with inputs J costs  tr(W_J·([C⁻¹]_JJ)⁻¹·W_Jᵀ)  of squared output error, C the ridged
    covariance of the inputs; the least leaves, W and C⁻¹ are downdated, and so on. Relative to the
    variance of the layer's outputs, tr(W·C·Wᵀ).

    Attributes:
        ridge: added to the covariance, relative to its diagonal.
    """

    observes: ClassVar[bool] = True

    ridge: float = 1e-2

    def __post_init__(self) -> None:
        self.require_positive("ridge")

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        return self.losses(unit)

    def losses(self, unit: Unit, order: Sequence[int] | None = None) -> Tensor:
        """What has mounted up when each channel leaves, (n,), also in an order that others chose.

        It is the squared error of the ridge regression of the readers' outputs on what is left.
        """
        systems = [_Surgeon(reader, unit.size, self.ridge) for reader in unit.readers]
        return eliminate(self.name, unit, systems, order)


class _Surgeon(System):
    def __init__(self, reader: Reader, size: int, ridge: float) -> None:
        super().__init__(reader, size, ridge)
        total = float((self.weight @ reader.covariance * self.weight).sum())
        self.total = total if total > 0 else 1.0

    def costs(self) -> Tensor:
        factors = linalg.cholesky(self.blocks(self.inverse))
        columns = self.weight[:, self.places] * self.present  # (o, n, q)
        whitened: Tensor = linalg.solve_triangular(factors, columns.permute(1, 2, 0), upper=False)
        return whitened.square().sum((1, 2)) / self.total

    def remove(self, channel: int) -> None:
        gone = self.inputs(channel)
        carried = downdate(self.inverse, gone)
        leaving = self.weight[:, gone]
        self.weight -= leaving @ carried
        self.weight[:, gone] = 0.0
