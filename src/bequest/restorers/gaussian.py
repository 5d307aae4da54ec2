"""What a batch norm tells of a channel without data: its output is about normal, N(β, γ²)."""

from __future__ import annotations

import torch
from torch import Tensor

from bequest.graph.units import Unit


def means(unit: Unit) -> Tensor | None:
    """E[f(z)] of each channel behind the activation f for z ~ N(β, γ²); None without batch norm.

    Training leaves every output of a batch norm with mean β and standard deviation γ over the
    data; that it's normal is an assumption (Nagel et al., arXiv 1906.04721, section 4.2.1). The
    integral is a sum over 601 points between ±6 standard deviations.

    Returns:
        float64 (n,).
    """
    norm = unit.producer.norm
    if norm is None or unit.activation is None:
        return None
    points = torch.linspace(-6, 6, 601, dtype=norm.beta.dtype, device=norm.beta.device)
    density = (-points.square() / 2).softmax(dim=0)
    return unit.activation.apply(norm.beta[:, None] + norm.gamma[:, None] * points) @ density
