"""The batch norm behind a producer as restorers use it: one factor and one shift per channel."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from bequest.graph.units import Producer

SMALLEST = 1e-12
"""Divisors are kept this far from zero."""


def affine(producer: Producer, published: bool = False) -> tuple[Tensor, Tensor]:
    """What the batch norm makes of the filters' outputs: slope·(w·x) + shift.

    slope = γ/σ and shift = b̃ = β + γ/σ·(b − μ); 1 and b without batch norm.

    Args:
        producer: n filters.
        published: put running_var where σ belongs, as the published code of two methods does.

    Returns:
        float64 (n,) and (n,).
    """
    norm, shift = producer.norm, producer.bias
    if shift is None:
        shift = producer.stored.new_zeros(len(producer.stored), dtype=torch.float64)
    if norm is None:
        return torch.ones_like(shift), shift
    slope = norm.gamma / (norm.var if published else norm.sigma)
    return slope, norm.beta + slope * (shift - norm.mean)


def away_from_zero(values: Tensor) -> Tensor:
    """``values`` with those nearer to zero than ``SMALLEST`` moved there, signs kept."""
    return torch.where(values < 0, -1.0, 1.0).to(values) * values.abs().clamp(min=SMALLEST)


def guarded(producer: Producer) -> tuple[Producer, tuple[str, ...]]:
    """The producer with γ and running_var away from zero, and a note if any of them was moved."""
    norm = producer.norm
    if norm is None:
        return producer, ()
    safe = dataclasses.replace(norm, gamma=away_from_zero(norm.gamma), var=away_from_zero(norm.var))
    count = int(((norm.gamma.abs() < SMALLEST) | (norm.var < SMALLEST)).sum())
    note = f"{count} channels with gamma or running_var under {SMALLEST:g}: set to it"
    return dataclasses.replace(producer, norm=safe), (note,) if count else ()
