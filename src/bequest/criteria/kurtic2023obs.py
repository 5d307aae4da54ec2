"""Structured optimal brain surgeon: who leaves least behind once the others have taken over.

Hassibi & Stork, "Second order derivatives for network pruning: optimal brain surgeon", NeurIPS
1992; for whole structures on the Gram of a layer's inputs: Kurtić, Frantar & Alistarh, "ZipLM",
NeurIPS 2023 (arXiv 2302.04089), eq. 3 and 4.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, linalg

from bequest.config import later, register, resolve
from bequest.criteria.base import Criterion
from bequest.criteria.downdates import Rows
from bequest.criteria.elimination import System, eliminate
from bequest.errors import UsageError
from bequest.graph.units import Reader, Unit

BEARABLE = 12 * 10**9
"""Channels times squared inputs of its readers up to which a unit is eliminated in seconds: 2,048
channels that a linear layer reads, 512 that a 3 by 3 convolution reads."""


@register("criterion", "obs")
@dataclass(frozen=True)
class OBS(Criterion):
    """The error in the outputs of the layers behind that has mounted up when a channel leaves.

    Channel j with inputs J costs  tr(W_J·([C⁻¹]_JJ)⁻¹·W_Jᵀ)  of squared output error, C the ridged
    covariance of the inputs; the least leaves, W and C⁻¹ are downdated, and so on. Relative to the
    variance of the layer's outputs, tr(W·C·Wᵀ).

    Attributes:
        ridge: added to the covariance, relative to its diagonal.
        otherwise: name of the criterion for units that no plain layer reads, and for those of which
            the elimination would take more than :data:`BEARABLE`; None = the former can't be
            scored, the latter take their time.
    """

    observes: ClassVar[bool] = True

    ridge: float = 1e-2
    otherwise: str | None = later(None)

    def __post_init__(self) -> None:
        self.require_positive("ridge")
        if self.otherwise is None:
            return
        if not isinstance(self.otherwise, str) or self.otherwise == self.name:
            raise UsageError(
                "obs: expected otherwise to be the name of another criterion, such as 'l2', found "
                f"{self.otherwise!r}"
            )
        resolve("criterion", self.otherwise, Criterion)

    def judge(self, unit: Unit) -> Criterion:
        """This criterion, or what takes its place in this unit."""
        if self.otherwise is None:
            return self
        widths = [reader.covariance.shape[0] for reader in unit.readers]
        if widths and unit.size * sum(width**2 for width in widths) <= BEARABLE:
            return self
        other: Criterion = resolve("criterion", self.otherwise, Criterion)
        return other

    def _scores(self, unit: Unit, seed: int) -> Tensor:
        return self.losses(unit)

    def losses(self, unit: Unit, order: Sequence[int] | None = None) -> Tensor:
        """What has mounted up when each channel leaves, (n,), also in an order that others chose.

        It is the squared error of the ridge regression of the readers' outputs on what is left.
        """
        systems = [_Surgeon(reader, unit.size, self.ridge) for reader in unit.readers]
        return eliminate(self.name, unit, systems, order)


class _Surgeon(System):
    """A layer whose weight makes up for every removal:  W ← W − W_J·P[J,J]⁻¹·P[J,:].

    Held as the inverse is, W = V − Lᵀ·K, with N = L·V besides. All that costs need are the squares
    W_jᵀ·W_j of each channel, which follow from the rows W_Jᵀ·W of those who leave.
    """

    def __init__(self, reader: Reader, size: int, ridge: float) -> None:
        super().__init__(reader, size, ridge)
        total = float((self.weight @ reader.covariance * self.weight).sum())
        self.total = total if total > 0 else 1.0
        outputs, inputs = self.weight.shape
        # Only W'ᵀ·W counts: more outputs than inputs tell nothing more.
        self.weight = (
            linalg.qr(self.weight, mode="r").R if outputs > inputs else self.weight.clone()
        )
        self.left = Rows(self.weight, len(self.weight))
        self.products = Rows(self.weight, inputs)
        columns = self.places.spread(self.weight)
        self.squares = columns.mT @ columns

    def costs(self) -> Tensor:
        return _traces(self.inverse.blocks, self.squares) / self.total

    def drop(self, stay: Tensor) -> Tensor:
        inputs = super().drop(stay)
        width = self.places.columns.shape[1]
        self.squares = self.squares[stay][:, :width, :width]
        self.weight = self.weight[:, inputs]
        self.products.keep(inputs)
        return inputs

    def remove(self, channel: int) -> None:
        gone = self.places.of(channel)
        before = self.inverse.carried.held
        mixed = before[:, gone].mT
        leaving = self.weight[:, gone].mT - mixed @ self.left.held
        products = self.weight[:, gone].mT @ self.weight - mixed @ self.products.held
        rows = products - leaving @ self.left.held.mT @ before  # W_Jᵀ·W
        carried = self.inverse.remove(channel)
        half = self.places.spread(rows - rows[:, gone] @ carried / 2)
        change = half.mT @ self.places.spread(carried)
        self.squares -= change + change.mT
        self.left.append(leaving)
        self.products.append(products)
        if self.inverse.is_full:
            self.weight.addmm_(self.left.held.mT, self.inverse.carried.held, alpha=-1)
            self.left.clear()
            self.products.clear()
            self.inverse.multiply()


def _traces(inverse: Tensor, squares: Tensor) -> Tensor:
    """tr(P⁻¹·S) of each block, (n,)."""
    if inverse.shape[1] == 1:  # a division, instead of as many factorisations
        return (squares / inverse)[:, 0, 0]
    inverted = torch.cholesky_inverse(linalg.cholesky(inverse))
    return (inverted * squares).sum((1, 2))
