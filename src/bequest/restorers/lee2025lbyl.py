"""LBYL, Leave Before You Leave: each removed filter as a combination of all kept ones.

Lee, Kim & Choi, arXiv 2502.08474. For removed filter j with coefficients t on the kept filters
(columns of X), the loss is

    L(t) = ‖w_j − X·t‖² + λ1·[(γ_j/σ_j)·(aᵀt − c)]² + λ2·‖κ∘t‖²,
    κ_k = (γ_j/γ_k)(σ_k/σ_j),   a_k = μ_k − σ_k·β_k/γ_k,   c = μ_j − σ_j·β_j/γ_j,

and s = κ∘t is what the consumers take up. In s, with the batch norm folded (W̃, b̃) and
g_j = (γ_j/σ_j)², the loss times g_j is

    ‖w̃_j − X̃·s‖² + g_j·[λ1·(b̃_j − b̃ᵀs)² + λ2·‖s‖²],

so that (X̃ᵀX̃ + g_j·(λ2·I + λ1·b̃b̃ᵀ))·s = X̃ᵀw̃_j + g_j·λ1·b̃_j·b̃. But for a rank-one term only the
number g_j differs between removed filters, so that one eigendecomposition of X̃ᵀX̃ serves the
whole layer. Without batch norm the bias is one more entry of each filter,
g_j = 1 and λ1 is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bequest.calibration.rows import gram
from bequest.config import later, number, register
from bequest.errors import UsageError
from bequest.graph.units import Producer, Unit
from bequest.restorers.batch_norm import affine
from bequest.restorers.exact import border_notes, hand_on_exactly
from bequest.restorers.gaussian import means
from bequest.restorers.least_squares import BiasTerm, least_norm, ridge
from bequest.restorers.lee2025official import deliver_as_published
from bequest.restorers.weight_space import Delivery, WeightSpace

RIDGE = 0.05
"""Default λ2 over the mean squared norm of the kept filters. From 0.03 to 0.1 the accuracy of
ResNet-56 (CIFAR-10, ratios to 0.4) and LeNet-300-100 (Fashion-MNIST, to 0.8) changes by at most
two points, mostly by less than one; larger values lose at high ratios."""

BIAS = 1e-3
"""Default λ1 over (mean squared norm of the kept filters) / (their mean γ²). At 1 an error of the
bias would count like one of the filter; up to 1e-2 makes no difference on ResNet-56, 0.1 loses."""

FLOAT32_ROUNDING = 1e-7
"""Directions in which float32 filters extend less than this share of the largest are noise."""


@register("restorer", "lbyl")
@dataclass(frozen=True)
class LBYL(WeightSpace):
    """The exact minimiser of LBYL's loss (Lee, Kim & Choi, arXiv 2502.08474) for a whole layer.

    A λ that is given means exactly the loss above. A λ that is None is scale-free, one value for
    every network and ratio: ``RIDGE`` and ``BIAS`` times the scale of the unit's filters.

    Constant channels (γ or running variance ≈ 0, zero filters) are handed on as the constants
    they are and take no part in the combinations. With both λ None, moreover,

    * duplicates and positive multiples of kept channels are merged exactly first;
    * where nothing stands between producer and consumers there is no ridge, so that linearly
      dependent channels are exact, and what remains of their bias becomes an offset;
    * behind an activation the mean that is left, E[f(z_j)] − Σ_k s_k·E[f(z_k)], becomes an offset
      where a batch norm tells the means (:func:`bequest.restorers.gaussian.means`). This isn't
      part of LBYL; on ResNet-56 it wins back 1 to 6 points at ratios of 0.1 to 0.4.

    Attributes:
        lambda1: weight of the bias error, λ1 ≥ 0; unused without batch norm.
        lambda2: weight of the coefficients, λ2 ≥ 0; at 0 the minimiser of least norm.
        compat: "official" repeats what the published code computes; see
            :mod:`bequest.restorers.lee2025official`.
        bias: "add" or "keep": whether consumers without a bias may be given one. None = "keep" for
            classes of transformers, whose configuration couldn't say it. Where one gets none there
            are no offsets, and without activation the bias is one more entry of each filter.
    """

    lambda1: float | None = None
    lambda2: float | None = None
    compat: Literal["official"] | None = None
    bias: str | None = later(None)

    def __post_init__(self) -> None:
        self.require_known_bias()
        for field in ("lambda1", "lambda2"):
            value = getattr(self, field)
            if value is not None and not 0 <= number(value) < float("inf"):
                raise UsageError(f"lbyl: expected {field} ≥ 0 or None, found {value!r}")
        if self.compat not in (None, "official"):
            raise UsageError(f"lbyl: expected compat 'official' or None, found {self.compat!r}")

    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        if self.compat == "official":
            return deliver_as_published(unit.producer, kept, removed, self.lambda1, self.lambda2)

        by_default = self.lambda1 is None and self.lambda2 is None
        matrix, offset, rest, basis = hand_on_exactly(unit, kept, removed, repeats=by_default)
        assert unit.activation is not None  # a restorable unit has one
        unbent = by_default and unit.activation.is_identity
        if len(rest) > 0 and len(basis) > 0:
            if unbent and not unit.takes_constants:
                rows = torch.cat([part.view(unit.size, -1) for part in unit.producer.folded()], 1)
                solution = least_norm(rows[kept[basis]], rows[removed[rest]], FLOAT32_ROUNDING)
            elif unbent:
                solution, offset[rest] = _unpenalised(unit.producer, kept[basis], removed[rest])
            else:
                solution = self._minimiser(unit.producer, kept[basis], removed[rest])
            matrix[rest[:, None], basis] = solution
        # Only constants claim to be exact, so only they are reported where borders break that.
        notes = border_notes(unit, offset)
        centred = by_default and not unbent and unit.takes_constants
        if centred and (mean := means(unit)) is not None:
            offset[rest] = mean[removed[rest]] - matrix[rest] @ mean[kept]
        return Delivery(matrix, offset if offset.any() else None, notes=notes)

    def _minimiser(self, producer: Producer, kept: Tensor, removed: Tensor) -> Tensor:
        """The coefficients s of least loss, (r, p)."""
        slope, bias = affine(producer)
        b = bias[kept]
        normal, right = b.new_zeros(len(b), len(b)), b.new_zeros(len(removed), len(b))
        for part in producer.slices():
            X = part[kept]
            normal += gram(X.T)
            right += part[removed] @ X.T
        if producer.norm is None:
            normal += torch.outer(b, b)
            right += torch.outer(bias[removed], b)
        lambda1, lambda2 = self._lambdas(producer, kept, float(normal.diagonal().mean()))
        if lambda2 == 0:
            return _least_norm_minimiser(producer, kept, removed, lambda1)

        # The norm is folded in only now: two scalings of small matrices.
        normal *= torch.outer(slope[kept], slope[kept])
        right *= torch.outer(slope[removed], slope[kept])
        g = slope[removed].square()
        term = BiasTerm(b, bias[removed], lambda1 * g)
        return ridge(normal, torch.full_like(b, lambda2), g, right, term)

    def _lambdas(self, producer: Producer, kept: Tensor, size: float) -> tuple[float, float]:
        """λ1 and λ2 in numbers; ``size`` is the mean squared norm of the kept filters."""
        lambda2 = RIDGE * size if self.lambda2 is None else self.lambda2
        if producer.norm is None:
            return 0.0, lambda2
        if self.lambda1 is None:
            return BIAS * size / float(producer.norm.gamma[kept].square().mean()), lambda2
        return self.lambda1, lambda2


def _least_norm_minimiser(
    producer: Producer, kept: Tensor, removed: Tensor, lambda1: float
) -> Tensor:
    filters, bias = producer.folded()
    if producer.norm is None:
        filters = torch.cat([filters, bias[:, None]], dim=1)
    X = filters[kept]
    g = affine(producer)[0][removed].square()
    cutoff = torch.finfo(X.dtype).eps * max(X.shape)
    term = BiasTerm(bias[kept], bias[removed], lambda1 * g)
    return least_norm(X, filters[removed], cutoff, term)


def _unpenalised(producer: Producer, kept: Tensor, removed: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares on the filters, and the bias that is then left over: (r, p) and (r,).

    Where the kept filters are dependent, the freedom is used to get the biases right, so that
    less is left over; otherwise the biases must not disturb the filters, hence their weight.
    """
    filters, bias = producer.folded()
    term = BiasTerm(bias[kept], bias[removed], torch.full_like(bias[removed], 1e-12))
    solution = least_norm(filters[kept], filters[removed], FLOAT32_ROUNDING, term)
    left_over = bias[removed] - solution @ bias[kept]
    size = bias[removed].abs() + solution.abs() @ bias[kept].abs()
    return solution, torch.where(left_over.abs() > FLOAT32_ROUNDING * size, left_over, 0.0)
