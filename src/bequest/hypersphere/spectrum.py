"""Sparsification that keeps a weight's singular values, and what it did to them.

Source: Yu, Yao, Koutis, "Spectrum preserving weight pruning", arXiv 2307.08982.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bequest.errors import UsageError
from bequest.execution.modules import require_module
from bequest.execution.randomness import stream
from bequest.hypersphere.masks import pruned_count


@dataclass(frozen=True)
class SpectralChange:
    """What became of a layer's weight W (out, everything else), now B.

    Attributes:
        layer: its name.
        error: ‖W − B‖₂/‖W‖₂ in the spectral norm.
        shift: max_i |σ_i(W) − σ_i(B)|/σ_1(W).
    """

    layer: str
    error: float
    shift: float


def preserving(weight: Tensor, sparsity: float, *, largest: float = 0.5, seed: int = 0) -> Tensor:
    """A sparse matrix near W in the spectral norm.

    Of the k weights that stay, ``largest`` · k are the largest of W as they are. The others are
    drawn from the rest, entry w with probability p ∝ w², at most 1, and become w/p: the expected
    matrix is W. The draw is systematic, so that exactly k weights stay.

    Args:
        weight: (out, ...).
        sparsity: share of the weights that go, in [0, 1).
        largest: share of k that is not drawn.
        seed: of the draw; the global generators are left alone.

    Returns:
        The weights that stay with zeros between them, in the shape and dtype of ``weight``.
    """
    flat = weight.detach().double().flatten()
    stay = len(flat) - pruned_count(len(flat), sparsity)
    result = torch.zeros_like(flat)
    top = flat.abs().topk(round(largest * stay)).indices
    result[top] = flat[top]
    rest = torch.ones_like(flat, dtype=torch.bool)
    rest[top] = False
    others = rest.nonzero().flatten()
    chances = _inclusion(flat[others].square(), stay - len(top))
    drawn = _systematic(chances, stay - len(top), seed)
    result[others[drawn]] = flat[others[drawn]] / chances[drawn]
    return result.to(weight.dtype).reshape(weight.shape)


def spectral_report(before: nn.Module, after: nn.Module) -> list[SpectralChange]:
    """How far the pruned, or recovered, weights are from those before.

    Args:
        before: the network before, plain or hyperspherical.
        after: the network after.

    Returns:
        One entry for each layer whose weight differs.

    Raises:
        UsageError: the networks don't have layers of the same names and shapes.
    """
    found = []
    theirs = _weights(after)
    for name, weight in _weights(before).items():
        if name not in theirs or theirs[name].shape != weight.shape:
            raise UsageError(f"spectral_report: expected '{name}' in both networks, of one shape")
        if not torch.equal(weight, theirs[name]):
            found.append(_change(name, weight, theirs[name]))
    return found


def _weights(module: nn.Module) -> dict[str, Tensor]:
    """Every weight of two or more dimensions that a layer has or computes, as a matrix."""
    require_module(module)
    found = {}
    for name, layer in module.named_modules():
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and weight.ndim >= 2:
            found[name] = weight.detach().double().flatten(1)
    return found


def _change(name: str, before: Tensor, after: Tensor) -> SpectralChange:
    values, now = torch.linalg.svdvals(before), torch.linalg.svdvals(after)
    largest = values[0].clamp_min(1e-300)
    error = torch.linalg.matrix_norm(before - after, ord=2)
    return SpectralChange(name, float(error / largest), float((values - now).abs().max() / largest))


def _inclusion(sizes: Tensor, count: int) -> Tensor:
    """p_i = min(1, t·size_i) with t such that they add up to ``count``; 0 for a size of 0."""
    if count == 0:
        return torch.zeros_like(sizes)
    ordered = sizes.sort(descending=True).values
    # With the i largest at 1, the others share count - i in proportion to their sizes.
    left = ordered.flip(0).cumsum(0).flip(0)
    fixed = torch.arange(len(ordered), device=sizes.device)
    scale = (count - fixed).clamp_min(0) / left.clamp_min(1e-300)
    fits = (scale * ordered <= 1).nonzero()
    if not len(fits):
        return (sizes > 0).to(sizes)
    return (sizes * scale[fits[0, 0]]).clamp_max(1)


def _systematic(chances: Tensor, count: int, seed: int) -> Tensor:
    """Indices of a draw of ``count`` in which each is drawn with its own chance."""
    if count == 0:
        return chances.new_zeros(0, dtype=torch.long)
    generator = stream(seed)
    order = torch.randperm(len(chances), generator=generator, device="cpu").to(chances.device)
    start = torch.rand((), generator=generator, dtype=torch.float64, device="cpu")
    reached = chances[order].cumsum(0) + start.to(chances.device)
    passed = reached.floor().diff(prepend=reached.new_zeros(1))
    return order[passed > 0]
