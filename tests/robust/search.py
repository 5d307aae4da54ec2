"""Looks for the largest change of each output within a box: what any bound must hold."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def reached(
    change: Callable[[Tensor], Tensor],
    lower: Tensor,
    upper: Tensor,
    steps: int = 20,
    starts: int = 3,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """(least, greatest) of each output of ``change`` that projected gradient ascent finds.

    Args:
        change: inputs (N, ...) → (N, K), differentiable.
        lower: ends of the boxes, (N, ...).
        upper: likewise.
        steps: of ascent.
        starts: random ones, corners among them.
        seed: of the starts.

    Returns:
        Two tensors (N, K).
    """
    generator = torch.Generator().manual_seed(seed)
    count = change(lower).shape[1]
    ends = []
    for sign in (-1, 1):
        best = torch.full((len(lower), count), -torch.inf, dtype=torch.float64)
        for start in range(starts):
            places = torch.rand(count, *lower.shape, generator=generator, dtype=torch.float64)
            if start % 2:
                places = places.round()
            x = lower + (upper - lower) * places
            for step in range(steps + 1):
                x = x.detach().requires_grad_()
                flat = change(x.flatten(0, 1)).view(count, len(lower), count)
                found = sign * flat.diagonal(dim1=0, dim2=2)  # (N, K): output k of its own start
                best = torch.maximum(best, found.detach())
                (slope,) = torch.autograd.grad(found.sum(), x)
                stride = (upper - lower) * (0.4 * (1 - step / steps) + 0.01)
                x = torch.minimum(torch.maximum(x + stride * slope.sign(), lower), upper)
        ends.append(sign * best)
    return ends[0], ends[1]
