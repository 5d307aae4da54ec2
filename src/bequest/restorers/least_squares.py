"""Least squares for many right-hand sides whose matrices differ, from one factorisation."""

from __future__ import annotations

import torch
from torch import Tensor, linalg


def ridge(gram: Tensor, penalty: Tensor, strength: Tensor, right: Tensor) -> Tensor:
    """Solves (A + g_j·D)·s_j = y_j, D = diag(penalty), for every j at once.

    With D^(−1/2)·A·D^(−1/2) = Q·diag(ℓ)·Qᵀ the solutions are
    s_j = D^(−1/2)·Q·[(Qᵀ·D^(−1/2)·y_j) / (ℓ + g_j)]: one eigendecomposition, two matrix products.

    Args:
        gram: A, (p, p), symmetric and positive semi-definite.
        penalty: the diagonal of D, (p,), positive.
        strength: g, (r,), positive.
        right: y, (r, p).

    Returns:
        s, (r, p).
    """
    root = penalty.rsqrt()
    values, vectors = linalg.eigh(root[:, None] * gram * root)
    basis = root[:, None] * vectors
    solution: Tensor = ((right @ basis) / (values.clamp(min=0) + strength[:, None])) @ basis.T
    return solution


def with_bias(
    solution: Tensor, reach: Tensor, row_bias: Tensor, target_bias: Tensor, weight: Tensor
) -> Tensor:
    """Adds c_j·(β_j − bᵀs)² to quadratic losses whose minimisers and inverse Hessians are known.

    The term changes the Hessian M_j by rank one, so that (Sherman–Morrison)
    s_j + c_j·(β_j − bᵀs_j)/(1 + c_j·bᵀu_j)·u_j with u_j = M_j⁻¹b is the new minimiser.

    Args:
        solution: s, (r, p), the minimisers without the term.
        reach: u, (r, p), or (1, p) if it's the same for all.
        row_bias: b, (p,).
        target_bias: β, (r,).
        weight: c, (r,), non-negative.

    Returns:
        (r, p).
    """
    missing = target_bias - solution @ row_bias
    step = weight * missing / (1 + weight * (reach @ row_bias))
    return solution + step[:, None] * reach


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
    along it sets the second term to zero at no cost to the first; otherwise see :func:`with_bias`.

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

    outside = row_bias - left @ (left.T @ row_bias)
    if linalg.vector_norm(outside) > cutoff**0.5 * linalg.vector_norm(row_bias):
        missing = target_bias - solution @ row_bias
        return solution + torch.outer(missing / outside.square().sum(), outside)
    reach = left @ ((left.T @ row_bias) / values.square())
    return with_bias(solution, reach[None], row_bias, target_bias, weight)
