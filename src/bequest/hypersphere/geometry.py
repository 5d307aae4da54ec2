"""Filters as directions and lengths."""

from __future__ import annotations

import torch
from torch import Tensor


def unit(filters: Tensor) -> Tensor:
    """Each filter divided by its Euclidean norm.

    Args:
        filters: (out, ...).

    Returns:
        The same shape and dtype; a filter of zeros stays one.
    """
    return (filters / lengths(filters)).to(filters.dtype)


def lengths(filters: Tensor) -> Tensor:
    """What to divide each filter by, (out, 1, ..., 1): its norm, or 1 where that is zero.

    1 rather than a tiny number keeps the gradient of a filter of zeros as large as that of others.
    """
    found = norms(filters)
    return torch.where(found > 0, found, 1)


def norms(filters: Tensor) -> Tensor:
    """Euclidean norm of each filter as (out, 1, ..., 1), in single precision at least."""
    axes = tuple(range(1, filters.ndim))
    exact = torch.promote_types(filters.dtype, torch.float32)
    found: Tensor = torch.linalg.vector_norm(filters, dim=axes, keepdim=True, dtype=exact)
    return found
