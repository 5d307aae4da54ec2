"""Large tensors, a part at a time: sums over them need no copy of the whole in double precision.

A reduction that is told to sum in another type makes such a copy first.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

AT_ONCE = 2**22
"""Bytes in double precision that a part has at most."""


def spans(tensor: Tensor, dim: int = 0) -> Iterator[slice]:
    """Slices of a dimension, in order, between which a tensor is shared out."""
    size = tensor.shape[dim]
    count = max(1, AT_ONCE * size // max(1, 8 * tensor.numel()))
    return (slice(first, min(first + count, size)) for first in range(0, size, count))
