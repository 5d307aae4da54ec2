"""Keeps formulas that divide by γ, σ or a filter's norm finite on dead channels."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from bequest.graph.units import BatchNorm

SMALLEST = 1e-12
"""Divisors are kept this far from zero."""


def away_from_zero(values: Tensor) -> Tensor:
    """``values`` with those nearer to zero than ``SMALLEST`` moved there, signs kept."""
    return torch.where(values < 0, -1.0, 1.0) * values.abs().clamp(min=SMALLEST)


def guarded(norm: BatchNorm) -> tuple[BatchNorm, tuple[str, ...]]:
    """The norm with γ and running_var away from zero, and a note if any of them was moved."""
    count = int(((norm.gamma.abs() < SMALLEST) | (norm.var < SMALLEST)).sum())
    safe = dataclasses.replace(norm, gamma=away_from_zero(norm.gamma), var=away_from_zero(norm.var))
    if count == 0:
        return safe, ()
    return safe, (f"{count} channels with gamma or running_var under {SMALLEST:g}: set to it",)
