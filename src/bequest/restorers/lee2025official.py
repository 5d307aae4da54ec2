"""What the published code of LBYL computes, where it departs from the paper's formulas.

The λ pairs of the published tables belong to this behaviour. Against the loss of
:mod:`bequest.restorers.lee2025lbyl` the code

* uses the running variance V where σ belongs;
* adds the scalar λ1·g·(a·a) to the whole diagonal where the outer product a·aᵀ belongs;
* hands on t where κ∘t belongs;
* for layers without batch norm fits an intercept and drops it.

With V for σ and g_j = (γ_j/V_j)² the normal equations of filter j are
(XᵀX + g_j·[λ1·(a·a)·I + λ2·diag((V_k/γ_k)²)])·t = Xᵀw_j + λ1·g_j·c_j·a: here, too, two matrices
for a whole layer.
"""

from __future__ import annotations

import torch
from torch import Tensor

from bequest.calibration.rows import gram
from bequest.graph.units import Producer
from bequest.restorers.batch_norm import affine, guarded
from bequest.restorers.least_squares import least_norm, ridge
from bequest.restorers.weight_space import Delivery

LAMBDA1, LAMBDA2, LAMBDA2_PLAIN = 1e-5, 1e-2, 0.3
"""Defaults amid the published pairs: with batch norm (λ1, λ2), without (λ2)."""


def deliver_as_published(
    producer: Producer,
    kept: Tensor,
    removed: Tensor,
    lambda1: float | None,
    lambda2: float | None,
) -> Delivery:
    """LBYL as the published code computes it; constant and repeated channels aren't treated apart.

    Args:
        producer: the unit's only producer.
        kept: int64 (p,).
        removed: int64 (r,).
        lambda1: λ1; None = 1e-5.
        lambda2: λ2; None = 1e-2 with batch norm, 0.3 without.
    """
    if producer.norm is None:
        return Delivery(
            _with_intercept(producer, kept, removed, LAMBDA2_PLAIN if lambda2 is None else lambda2)
        )
    producer, notes = guarded(producer)
    lambda1 = LAMBDA1 if lambda1 is None else lambda1
    lambda2 = LAMBDA2 if lambda2 is None else lambda2
    return Delivery(_with_norm(producer, kept, removed, lambda1, lambda2), notes=notes)


def _with_intercept(producer: Producer, kept: Tensor, removed: Tensor, lambda2: float) -> Tensor:
    filters, bias = producer.folded()
    rows = torch.cat([filters, bias[:, None]], dim=1)
    rows = rows - rows.mean(dim=1, keepdim=True)
    X, w = rows[kept], rows[removed]
    penalty, strength = torch.full_like(bias[kept], lambda2), torch.ones_like(bias[removed])
    return _solve(X, w, penalty, strength, w @ X.T)


def _with_norm(
    producer: Producer, kept: Tensor, removed: Tensor, lambda1: float, lambda2: float
) -> Tensor:
    slope, shift = affine(producer, published=True)
    intercept = -shift / slope  # a of the kept, c of the removed: where the filter's output is 0
    a, c = intercept[kept], intercept[removed]
    strength = slope[removed].square()
    penalty = lambda1 * (a @ a) + lambda2 / slope[kept].square()
    X, w = producer.weight[kept], producer.weight[removed]
    right = w @ X.T + torch.outer(lambda1 * strength * c, a)
    return _solve(X, w, penalty, strength, right)


def _solve(X: Tensor, w: Tensor, penalty: Tensor, strength: Tensor, right: Tensor) -> Tensor:
    """(XXᵀ + g_j·diag(penalty))·t_j = right_j; the least-norm least squares without penalty."""
    if (penalty == 0).any():
        return least_norm(X, w, cutoff=torch.finfo(X.dtype).eps * max(X.shape))
    return ridge(gram(X.T), penalty, strength, right)
