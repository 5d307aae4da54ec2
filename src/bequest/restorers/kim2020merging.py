"""Neuron Merging: each removed filter as a multiple of the kept one that is most like it.

Kim, Kim, Park & Jeong, NeurIPS 2020 (arXiv 2010.13160).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, linalg

from bequest.config import later, number, register
from bequest.errors import UsageError
from bequest.graph.units import Producer, Unit
from bequest.restorers.batch_norm import affine, away_from_zero, guarded
from bequest.restorers.exact import border_notes, hand_on_exactly
from bequest.restorers.weight_space import Delivery, WeightSpace

THRESHOLD = {"linear": 0.45, "conv": 0.1}
"""The paper's thresholds on the cosine: LeNet-300-100; VGG-16 and ResNet-56."""


@register("restorer", "merge")
@dataclass(frozen=True)
class Merge(WeightSpace):
    """Neuron Merging (Kim et al., arXiv 2010.13160, Algorithms 1 and 2).

    Linear layers compare the rows [w; b]: removed j goes to the kept k of largest cosine, scaled
    by ‖w_j‖/‖w_k‖. Convolutions, and layers with a batch norm, choose k by the least

        weight·(1 − cos(w_j, w_k)) + (1 − weight)·minmax_k |b̃_j − scale_k·b̃_k|,
        scale_k = (‖w_j‖/‖w_k‖)·(γ_j/γ_k)(σ_k/σ_j),

    b̃ the bias with the batch norm folded. In both cases j leaves nothing if the cosine is under
    the threshold. Constant channels (γ or running variance ≈ 0, zero filters), of which neither
    cosine nor scale mean anything, are handed on as the constants they are.

    Attributes:
        threshold: least cosine, −1 to 1; None = 0.45 for linear layers, 0.1 for convolutions.
        weight: of the cosine distance against the bias, 0 to 1.
        compat: "official" repeats what the published code computes: kept and removed change
            places in the batch norm's factor and in the bias term, which is divided by the scale;
            the running variance stands for σ; constant channels aren't treated apart.
        bias: "add" or "keep": whether consumers without a bias may be given one, to take constants
            up. None = "keep" for classes of transformers, whose configuration couldn't say it.
    """

    threshold: float | None = None
    weight: float = 0.85
    compat: Literal["official"] | None = None
    bias: str | None = later(None)

    def __post_init__(self) -> None:
        self.require_known_bias()
        if self.threshold is not None and not -1 <= number(self.threshold) <= 1:
            raise UsageError(
                f"merge: expected threshold from -1 to 1 or None, found {self.threshold!r}"
            )
        if not 0 <= number(self.weight) <= 1:
            raise UsageError(f"merge: expected weight from 0 to 1, found {self.weight!r}")
        if self.compat not in (None, "official"):
            raise UsageError(f"merge: expected compat 'official' or None, found {self.compat!r}")

    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        if self.compat == "official":
            producer, notes = guarded(unit.producer)
            return Delivery(self._merge(producer, kept, removed), notes=notes)

        matrix, offset, rest, basis = hand_on_exactly(unit, kept, removed, repeats=False)
        if len(rest) > 0 and len(basis) > 0:
            merged = self._merge(unit.producer, kept[basis], removed[rest])
            matrix[rest[:, None], basis] = merged
        return Delivery(matrix, offset if offset.any() else None, notes=border_notes(unit, offset))

    def _merge(self, producer: Producer, kept: Tensor, removed: Tensor) -> Tensor:
        """At most one scale in each row of (r, p)."""
        slope, bias = affine(producer, published=self.compat == "official")
        if producer.kind == "linear" and producer.norm is None:
            rows = torch.cat([producer.weight, bias[:, None]], dim=1)
            cosine, scale = _compare(rows, kept, removed)
            choice = cosine.argmax(dim=1)
        else:
            cosine, ratio = _compare(producer.weight, kept, removed)
            factor = slope[removed, None] / slope[kept]
            if self.compat:
                scale = ratio / factor
                gap = (bias[kept] - scale * bias[removed, None]).abs() / scale
            else:
                scale = ratio * factor
                gap = (bias[removed, None] - scale * bias[kept]).abs()
            score = self.weight * (1 - cosine) + (1 - self.weight) * _minmax(gap)
            choice = score.argmin(dim=1)

        threshold = THRESHOLD[producer.kind] if self.threshold is None else self.threshold
        chosen = torch.zeros_like(cosine, dtype=torch.bool).scatter_(1, choice[:, None], True)
        return torch.where(chosen & (cosine >= threshold), scale, 0.0)


def _compare(rows: Tensor, kept: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and ratios of norms ‖row_j‖/‖row_k‖ of removed against kept rows, (r, p) each."""
    norms = away_from_zero(linalg.vector_norm(rows, dim=1))
    unit_rows = rows / norms[:, None]
    return unit_rows[removed] @ unit_rows[kept].T, norms[removed, None] / norms[kept]


def _minmax(values: Tensor) -> Tensor:
    """Each row moved and scaled to [0, 1]; zeros where a row is constant."""
    low, high = values.aminmax(dim=1, keepdim=True)
    return (values - low) / (high - low).clamp(min=torch.finfo(values.dtype).tiny)
