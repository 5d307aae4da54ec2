"""Least squares for many right-hand sides whose matrices differ, from one factorisation."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, linalg


class BiasTerm(NamedTuple):
    """A term c_j·(β_j − bᵀs)² in the loss of every j.

    It changes the Hessian M_j of a quadratic loss by rank one, so that (Sherman–Morrison) the
    minimiser s_j becomes s_j + c_j·(β_j − bᵀs_j)/(1 + c_j·bᵀu_j)·u_j with u_j = M_j⁻¹b.
    """

    row: Tensor
    """b, (p,)."""
    target: Tensor
    """β, (r,)."""
    weight: Tensor
    """c, (r,), non-negative."""

    def missing(self, solution: Tensor) -> Tensor:
        """β_j − bᵀs_j, (r,)."""
        return self.target - solution @ self.row

    def added_to(self, solution: Tensor, reach: Tensor) -> Tensor:
        """The minimisers with the term, (r, p), from those without it and u, (r, p) or (1, p)."""
        step = self.weight * self.missing(solution) / (1 + self.weight * (reach @ self.row))
        return solution + step[:, None] * reach


def ridge(
    normal: Tensor, penalty: Tensor, strength: Tensor, right: Tensor, bias: BiasTerm | None = None
) -> Tensor:
    """Solves (A + g_j·D)·s_j = y_j, D = diag(penalty), plus a bias term, for every j at once.

    With D^(−1/2)·A·D^(−1/2) = Q·diag(ℓ)·Qᵀ and V = D^(−1/2)·Q, the solutions are
    s_j = V·[(Vᵀy_j) / (ℓ + g_j)]: one eigendecomposition, two matrix products. The bias term is
    added in the coordinates V.

    Args:
        normal: A, (p, p), symmetric and positive semi-definite.
        penalty: the diagonal of D, (p,), positive.
        strength: g, (r,), positive.
        right: y, (r, p), without the bias term's part.
        bias: a further term of the loss.

    Returns:
        s, (r, p).
    """
    root = penalty.rsqrt()
    values, vectors = linalg.eigh(root[:, None] * normal * root)
    basis = root[:, None] * vectors
    inverse = 1 / (values.clamp(min=0) + strength[:, None])
    solution: Tensor = (right @ basis) * inverse
    if bias is not None:
        turned = bias._replace(row=bias.row @ basis)
        solution = turned.added_to(solution, reach=turned.row * inverse)
    result: Tensor = solution @ basis.T
    return result


def least_norm(
    rows: Tensor, targets: Tensor, cutoff: float, bias: BiasTerm | None = None
) -> Tensor:
    """The least-norm minimiser of ‖w_j − Xᵀs‖², plus a bias term, for every j at once.

    The pseudo-inverse of Xᵀ gives the first. Where b reaches out of XXᵀ's range, moving s along
    that part of b makes the bias term vanish at no cost.

    Args:
        rows: X, (p, d).
        targets: w, (r, d).
        cutoff: singular values under this share of the largest count as zero.
        bias: a further term of the loss; left out where its weights are all zero.

    Returns:
        s, (r, p).
    """
    left, values, right = linalg.svd(rows, full_matrices=False)
    rank = int((values > cutoff * values[0]).sum())
    left, values, right = left[:, :rank], values[:rank], right[:rank]
    solution: Tensor = (targets @ right.T / values) @ left.T
    if bias is None or not bias.weight.any():
        return solution

    within = left.T @ bias.row
    outside = bias.row - left @ within
    if linalg.vector_norm(outside) > cutoff**0.5 * linalg.vector_norm(bias.row):
        step = bias.missing(solution) / outside.square().sum()
        return solution + torch.outer(step, outside)
    return bias.added_to(solution, reach=(left @ (within / values.square()))[None])
