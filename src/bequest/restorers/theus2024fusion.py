"""Intra-Fusion: channels are transported to those that stay, at least cost.

Theus, Geimer, Wicke, Hofmann, Anagnostidis & Singh, ICLR 2024 (arXiv 2402.07839).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor, linalg

from bequest.config import register
from bequest.errors import ModelError
from bequest.graph.coupled import Coupled
from bequest.restorers.merging import Merge, Merging


@register("restorer", "fusion")
@dataclass(frozen=True)
class Fusion(Merging):
    """The plan T of least cost Σ T_jk·‖r̃_j − r̃_k‖ from all n channels to the p kept ones.

    r̃ is [w̃; b̃] of every layer that writes the channel. Channel j sends Σ_k T_jk = 1/n (or its
    share of Σ‖r̃‖), each kept one receives Σ_j T_jk = 1/p. Kept filter k becomes the mean of what it
    receives, A = Tᵀ with rows scaled to 1; what reads channel j goes where it is sent, B = T with
    rows scaled to 1.

    Attributes:
        importance: whether channels send as much as their filters' norms say; False = all alike.
    """

    importance: bool = False

    def merge(self, coupled: Coupled, kept: Tensor, seed: int) -> Merge:
        """By one exact linear program per group."""
        rows = torch.cat([member.rows() for member in coupled.members], dim=1)
        norms = linalg.vector_norm(rows, dim=1)
        uniform = torch.full_like(norms, 1 / len(norms))
        weighed = self.importance and bool(norms.min() > 0)
        sent = norms / norms.sum() if weighed else uniform
        cost = torch.cdist(rows, rows[kept], compute_mode="donot_use_mm_for_euclid_dist")
        plan = transport(cost, sent, torch.full_like(norms[kept], 1 / len(kept)))
        received = plan.T / plan.sum(dim=0)[:, None]
        return Merge(received, plan / plan.sum(dim=1)[:, None], (None,) * len(coupled.members))


def transport(cost: Tensor, sent: Tensor, received: Tensor) -> Tensor:
    """The plan T ≥ 0 of least Σ cost·T with given sums of its rows and columns.

    Args:
        cost: float64 (n, p).
        sent: float64 (n,), the sums of the rows.
        received: float64 (p,), the sums of the columns; both add up to the same.

    Returns:
        float64 (n, p), exact to rounding.

    Raises:
        ModelError: the solver finds none, as where costs are not finite.
    """
    n, p = cost.shape
    rows = sparse.kron(sparse.eye(n), np.ones((1, p)))
    columns = sparse.kron(np.ones((1, n)), sparse.eye(p))
    sums = torch.cat([sent, received]).cpu().numpy()
    scale = float(cost.max()) or 1.0
    matrix = sparse.vstack([rows, columns]).tocsr()[:-1]  # the last sum follows from the others
    goal = (cost / scale).flatten().cpu().numpy() if np.isfinite(scale) else np.zeros(n * p)
    found = linprog(goal, A_eq=matrix, b_eq=sums[:-1] * n * p, method="highs-ds")
    if not found.success or not np.isfinite(scale):
        raise ModelError(
            f"fusion: expected finite distances between filters, found a largest of {scale}"
        )
    return torch.from_numpy(found.x.reshape(n, p) / (n * p)).to(cost).clamp(min=0)
