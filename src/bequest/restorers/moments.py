"""Regression on the moments that batch norms and filters foretell: no input, no forward pass.

Our own method, the analytic form of :mod:`bequest.restorers.regression`. The pre-activations of a
layer count as jointly normal. A batch norm tells mean and deviation of each, and the filters, met
by white inputs, how they correlate; without one the filters and biases tell all:

    z ~ N(β, γγᵀ ∘ cos(w_i, w_j))        z ~ N(b, W·Wᵀ)

With the expansion of each channel in normalised Hermite polynomials h_k,
f(μ_i + s_i·u) = Σ_k a_ik·h_k(u), Mehler's formula gives the covariance behind the activation f,

    Cov[f(z_i), f(z_j)] = Σ_{k ≥ 1} a_ik·a_jk·ρ_ij^k,

and a ridge regression with intercept of removed on kept channels gives what is handed on.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, linalg

from bequest.config import later, register
from bequest.graph.units import Activation, Producer, Unit
from bequest.restorers.batch_norm import away_from_zero
from bequest.restorers.exact import border_notes, constants, hand_on_exactly
from bequest.restorers.least_squares import least_norm
from bequest.restorers.weight_space import Delivery, WeightSpace

DEGREE = 24
"""Of the expansion, even. What it leaves of the variance of a channel's even and odd part counts as
one term of the next even and odd degree, so that it is exact for repeated channels."""

REACH, POINTS = 14.0, 2801
"""Integrals over u are sums over so many points between ± so many standard deviations; the
polynomials of the highest degree oscillate up to 2·sqrt(DEGREE) ≈ 10. A kink of the activation
costs up to 1e-5 of its change of slope."""

FLOAT32_ROUNDING = 1e-7
"""Directions in which float32 filters extend less than this share of the largest are noise."""


@register("restorer", "moments")
@dataclass(frozen=True)
class MomentsRegression(WeightSpace):
    """Ridge regression of removed on kept channels from analytic moments, a factorisation a layer.

    Constant channels, duplicates and positive multiples are handed on exactly first. Where nothing
    stands between producer and consumers there is no ridge: linearly dependent channels are exact.

    Attributes:
        ridge: penalty on the coefficients, relative to the mean variance of the kept channels.
        bias: "add" or "keep": whether consumers without a bias may be given one. None = "keep" for
            classes of transformers, whose configuration couldn't say it. Where one gets none,
            moments are taken about zero, Cov[f(z_i), f(z_j)] + E[f(z_i)]·E[f(z_j)].
    """

    ridge: float = 0.02
    bias: str | None = later(None)

    def __post_init__(self) -> None:
        self.require_known_bias()
        self.require_positive("ridge")

    def _deliver(self, unit: Unit, kept: Tensor, removed: Tensor, seed: int) -> Delivery:
        matrix, offset, rest, basis = hand_on_exactly(unit, kept, removed, repeats=True)
        if not unit.takes_constants:
            (lost,) = offset.nonzero(as_tuple=True)  # fitted like all others
            rest, offset = torch.cat([rest, lost]), torch.zeros_like(offset)
            basis = torch.arange(len(kept), device=kept.device)
        notes = border_notes(unit, offset)
        if len(rest) == 0:
            return Delivery(matrix, offset if offset.any() else None, notes=notes)

        assert unit.activation is not None  # a restorable unit has one
        known, wanted = kept[basis], removed[rest]
        if unit.activation.is_identity and len(known) > 0:
            filters, mean = unit.producer.folded()
            if not unit.takes_constants:
                filters = torch.cat([filters, mean[:, None]], dim=1)
            solution = least_norm(filters[known], filters[wanted], FLOAT32_ROUNDING)
        else:
            mean, covariance = behind(unit.activation, *pre_activations(unit.producer))
            size = covariance.diagonal()[known].mean()
            if not unit.takes_constants:
                covariance = _about_zero(unit, mean, covariance)
            solution = self._solve(covariance[known][:, known], covariance[wanted][:, known], size)
        if len(basis) > 0:
            matrix[rest[:, None], basis] = solution
        if unit.takes_constants:
            offset[rest] = mean[wanted] - solution @ mean[known]
        return Delivery(matrix, offset if offset.any() else None, notes=notes)

    def _solve(self, among: Tensor, across: Tensor, variance: Tensor) -> Tensor:
        """(r, p): across·(among + ridge·variance·I)⁻¹."""
        if len(among) == 0:
            return across
        size = variance.clamp(min=torch.finfo(among.dtype).tiny)
        system = among + self.ridge * size * torch.eye(
            len(among), dtype=among.dtype, device=among.device
        )
        return torch.cholesky_solve(across.T, linalg.cholesky(system)).T


def _about_zero(unit: Unit, mean: Tensor, covariance: Tensor) -> Tensor:
    """E[f(z_i)·f(z_j)], (n, n), from moments about the means; constants are themselves."""
    constant, value = constants(unit)
    mean = torch.where(constant, value, mean)
    return covariance * torch.outer(~constant, ~constant) + torch.outer(mean, mean)


def pre_activations(producer: Producer) -> tuple[Tensor, Tensor]:
    """Mean of each pre-activation, and rows whose products are their covariances.

    Returns:
        float64 (n,) and (n, d).
    """
    if producer.norm is None:
        return producer.folded()[1], producer.weight
    norms = away_from_zero(linalg.vector_norm(producer.weight, dim=1, keepdim=True))
    return producer.norm.beta, producer.norm.gamma[:, None] * producer.weight / norms


def behind(activation: Activation, centre: Tensor, roots: Tensor) -> tuple[Tensor, Tensor]:
    """Moments of f(z) for z ~ N(centre, roots·rootsᵀ).

    Args:
        activation: f, of each channel.
        centre: (n,).
        roots: (n, d).

    Returns:
        Means (n,) and covariances (n, n). For a ReLU of standard normal z means, variances and
        covariances are within 1e-5 of the exact ones at ρ = ±1 and within 1e-4 between.
    """
    scale = linalg.vector_norm(roots, dim=1)
    coefficients, rest = _expand(activation, centre, scale)
    directions = roots / away_from_zero(scale)[:, None]
    correlation = (directions @ directions.T).clamp(-1, 1)
    power, covariance = torch.ones_like(correlation), torch.zeros_like(correlation)
    for term in (*coefficients.T[1:], *rest):
        power *= correlation
        covariance += torch.outer(term, term) * power
    return coefficients[:, 0], covariance


def _expand(activation: Activation, centre: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """The coefficients a of f(centre + scale·u) = Σ_k a_k·h_k(u).

    Returns:
        (n, DEGREE + 1); and (2, n), those that stand for all odd and all even degrees above.
    """
    points = torch.linspace(-REACH, REACH, POINTS, dtype=centre.dtype, device=centre.device)
    density = (-points.square() / 2).softmax(dim=0)
    values = activation.apply(centre[:, None] + scale[:, None] * points)
    polynomials = [torch.ones_like(points), points]
    for k in range(1, DEGREE):  # h_{k+1} = (u·h_k − √k·h_{k−1}) / √(k+1)
        following = points * polynomials[k] - k**0.5 * polynomials[k - 1]
        polynomials.append(following / (k + 1) ** 0.5)
    coefficients = values @ (density * torch.stack(polynomials)).T
    odd, even = ((values - sign * values.flip(1)) / 2 for sign in (1, -1))
    left = [
        part.square() @ density - coefficients[:, first::2].square().sum(1)
        for first, part in ((1, odd), (0, even))
    ]
    return coefficients, torch.stack(left).clamp(min=0).sqrt()
