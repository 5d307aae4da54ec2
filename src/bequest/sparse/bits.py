"""One bit per truth value instead of eight."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def pack(truths: Tensor) -> Tensor:
    """Eight values to a byte, the first in its lowest bit; the last byte is filled up with 0.

    Args:
        truths: boolean, n values in any shape.

    Returns:
        uint8 (⌈n/8⌉,).
    """
    flat = truths.reshape(-1)
    flat = torch.nn.functional.pad(flat, (0, -len(flat) % 8)).reshape(-1, 8).to(torch.uint8)
    return (flat << torch.arange(8, dtype=torch.uint8, device=flat.device)).sum(
        1, dtype=torch.uint8
    )


def unpack(packed: Tensor, shape: Sequence[int]) -> Tensor:
    """The boolean tensor of this shape that :func:`pack` was given."""
    places = torch.arange(8, dtype=torch.uint8, device=packed.device)
    flat = (packed[:, None] >> places & 1).reshape(-1)
    return flat[: math.prod(shape)].to(torch.bool).reshape(tuple(shape))


def packed_size(count: int) -> int:
    """Bytes that hold ``count`` values."""
    return -(-count // 8)
