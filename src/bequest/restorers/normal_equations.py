"""The ridge regression of a layer, from the moments of what it reads and of what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, linalg

from bequest.calibration.moments import Moments

ENOUGH_ROWS = 32
"""Rows per unknown under which the ridge is raised: fewer of them are fitted with their noise."""


class Solution(NamedTuple):
    """A layer's regression: what its weight and biases change by.

    Attributes:
        change: ΔW, (g, o, d).
        intercepts: Δb of each of the moments' biases, (g, o); none without intercepts.
        ridge: that was used, relative to the mean variance of the inputs.
        condition: condition number of the ridged Gram, the worst of the groups.
        by_eigenvalues: solved by them, not by Cholesky factors.
        constant: how many of the inputs (of every group, at least) don't vary but by rounding.
    """

    change: Tensor
    intercepts: tuple[Tensor, ...]
    ridge: float
    condition: float
    by_eigenvalues: bool
    constant: int


def solve(several: Sequence[Moments], ridge: float, *, intercept: bool = True) -> Solution:
    """One ΔW for all calls of a layer, by one Cholesky factorisation per group of the layer.

        (Σ_b C_b + D)·ΔWᵀ = Σ_b B_b,    Δb = mean(e) − ΔW·mean(x) for each bias b,

    C_b and B_b the products of the inputs with themselves and with the errors about their means;
    without intercept about zero. D = diag(ρ + what rounding makes of each input's variance), so
    that what doesn't vary is left alone; ρ = ridge × the mean diagonal of Σ C_b about the means.
    With fewer than :data:`ENOUGH_ROWS` rows per unknown the ridge grows in proportion.

    Args:
        several: the moments of the rows that go with each bias, about one weight.
        ridge: relative.
        intercept: whether the layer's biases are fitted too.
    """
    rows, unknowns = sum(one.rows for one in several), several[0].unknowns
    ridge = ridge * max(1.0, ENOUGH_ROWS * unknowns / rows)
    centred = [one.centred() for one in several]
    spread = torch.stack([gram.diagonal(dim1=1, dim2=2) for gram, _ in centred]).sum(0)
    rounding = _total([one.rounding() for one in several])
    penalty = ridge * spread.mean(1, keepdim=True).clamp(min=0) + rounding
    # Where all inputs are zero whatever is taken is right: their products with errors are zero too.
    penalty = penalty + torch.where(penalty.amax(1, keepdim=True) > 0, 0.0, 1.0)
    pairs = zip(several, centred, strict=True)
    parts = centred if intercept else [one.about_zero(*products) for one, products in pairs]
    gram, cross = (_total(part) for part in zip(*parts, strict=True))
    change, condition, by_eigenvalues = _ridged(gram, penalty, cross, several[0].epsilon)
    means = [one.means() for one in several] if intercept else []
    intercepts = tuple(e - (change * x[:, :, None]).sum(1) for x, e in means)
    constant = int((spread == 0).sum(1).min())
    return Solution(change.mT, intercepts, ridge, condition, by_eigenvalues, constant)


def _total(parts: Sequence[Tensor]) -> Tensor:
    """The sum; of one part itself, without a copy."""
    return parts[0] if len(parts) == 1 else torch.stack([*parts]).sum(0)


def _ridged(
    gram: Tensor, penalty: Tensor, right: Tensor, epsilon: float
) -> tuple[Tensor, float, bool]:
    """(G + D)⁻¹·R with D = diag(penalty), the condition number, and whether by eigenvalues.

    D^(−1/2)·G·D^(−1/2) has eigenvalues ≥ 0 but for rounding. Where that leaves G + D indefinite,
    they are clamped at 0, so that nothing is divided by less than the ridge, and directions that
    rounding alone makes (eigenvalues under d·ε of the largest) are left out.
    """
    system = gram.clone()
    system.diagonal(dim1=1, dim2=2).add_(penalty)
    factor, failed = linalg.cholesky_ex(system)
    if not failed.any():
        diagonal = factor.diagonal(dim1=1, dim2=2)
        condition = float((diagonal.amax(1) / diagonal.amin(1)).square().max())
        return torch.cholesky_solve(right, factor), condition, False
    least = epsilon**2 * torch.maximum(penalty, gram.diagonal(dim1=1, dim2=2)).amax(1, keepdim=True)
    scale = penalty.clamp(min=least).rsqrt()
    values, vectors = linalg.eigh(scale[:, :, None] * gram * scale[:, None, :])
    largest = values[:, -1:] + 1
    kept = values > gram.shape[1] * epsilon * largest
    inverse = torch.where(kept, 1 / (values.clamp(min=0) + 1), 0.0)
    inner = inverse[:, :, None] * (vectors.mT @ (scale[:, :, None] * right))
    return (
        scale[:, :, None] * (vectors @ inner),
        float((largest[:, 0] * inverse.amax(1)).max()),
        True,
    )
