"""Least squares for many right-hand sides whose matrices differ, from one factorisation."""

from __future__ import annotations

import torch
from torch import Tensor, linalg


def ridge(gram: Tensor, inverse_root: Tensor, strength: Tensor, right: Tensor) -> Tensor:
    """Solves (A + g_j·B)·s_j = y_j for every j at once.

    With C = B^(−1/2)·A·B^(−1/2) = Q·diag(ℓ)·Qᵀ the solutions are
    s_j = B^(−1/2)·Q·[(Qᵀ·B^(−1/2)·y_j) / (ℓ + g_j)]: one eigendecomposition, four matrix products.

    Args:
        gram: A, (p, p), symmetric and positive semi-definite.
        inverse_root: B^(−1/2), (p, p), symmetric.
        strength: g, (r,), positive.
        right: y, (r, p).

    Returns:
        s, (r, p).
    """
    values, vectors = linalg.eigh(inverse_root @ gram @ inverse_root)
    basis = inverse_root @ vectors
    solution: Tensor = ((right @ basis) / (values.clamp(min=0) + strength[:, None])) @ basis.T
    return solution


def least_norm(
    rows: Tensor,
    targets: Tensor,
    row_bias: Tensor,
    target_bias: Tensor,
    weight: Tensor,
    cutoff: float,
) -> Tensor:
    """The least-norm minimiser of ‖w_j − Xᵀs‖² + c_j·(β_j − bᵀs)² for every j at once.

    The pseudo-inverse of Xᵀ solves the first term. Where b reaches out of XXᵀ's range, moving s
    along it sets the second term to zero at no cost to the first; otherwise the second term is
    a rank-one change of XXᵀ within its range (Sherman–Morrison).

    Args:
        rows: X, (p, d).
        targets: w, (r, d).
        row_bias: b, (p,).
        target_bias: β, (r,).
        weight: c, (r,), non-negative; the second term is left out where it is zero throughout.
        cutoff: singular values under this share of the largest count as zero.

    Returns:
        s, (r, p).
    """
    left, values, right = linalg.svd(rows, full_matrices=False)
    rank = int((values > cutoff * values[0]).sum())
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    solution: Tensor = (targets @ right.T / values) @ left.T
    if not weight.any():
        return solution

    missing = target_bias - solution @ row_bias
    outside = row_bias - left @ (left.T @ row_bias)
    if linalg.vector_norm(outside) > cutoff**0.5 * linalg.vector_norm(row_bias):
        return solution + torch.outer(missing / outside.square().sum(), outside)
    reach = left @ ((left.T @ row_bias) / values.square())
    step = weight * missing / (1 + weight * (row_bias @ reach))
    return solution + torch.outer(step, reach)
