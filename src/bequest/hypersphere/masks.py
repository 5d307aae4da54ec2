"""Which weights stay: masks over the filters' unit directions at a target sparsity."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from bequest.errors import UsageError
from bequest.hypersphere.geometry import norms, unit

SCOPES = ("layer", "filter", "global")
"""Over what unstructured masks rank the weights."""

WHOLE = ("whole-filter", "spectrum")
"""Masks for pruning alone: no penalty prepares a network for them."""


def check_sparsity(sparsity: float) -> float:
    """The share of weights to prune.

    Raises:
        UsageError: not a number in [0, 1).
    """
    number = isinstance(sparsity, int | float) and not isinstance(sparsity, bool)
    if not number or not 0 <= sparsity < 1:
        raise UsageError(f"sparsity: expected a number in [0, 1), found {sparsity!r}")
    return float(sparsity)


def pruned_count(total: int, sparsity: float) -> int:
    """⌊total · sparsity + 1e-6⌋, so that 0.3 of 10 is 3; at least one weight stays."""
    return min(int(total * sparsity + 1e-6), total - 1)


def check_mask(mask: str, sparsity: float) -> None:
    """Whether the mask exists and goes with the sparsity.

    Raises:
        UsageError: it doesn't.
    """
    if mask in SCOPES or mask in WHOLE:
        return
    kept, block = parse_block(mask)
    if abs(sparsity - (1 - kept / block)) > 1e-6:
        raise UsageError(
            f"sparsity: a {mask} mask prunes {1 - kept / block:g} of the weights, found {sparsity}"
        )


def make_masks(weights: Mapping[str, Tensor], sparsity: float, mask: str) -> dict[str, Tensor]:
    """True where a weight stays.

    Unstructured masks rank |v|, v = w/‖w‖ per filter. Equal values are told apart by their place,
    so that every mask leaves exactly the number of weights that was asked for.

    Args:
        weights: the filters of each layer, (out, in/groups, *kernel).
        sparsity: share of the weights that go.
        mask: "layer", "filter" or "global": what is ranked together; "N:M", such as "2:4": of
            every M weights in a row along the inputs N stay; "whole-filter": the filters with the
            smallest ‖w‖ of each layer go.

    Returns:
        A boolean tensor of the weight's shape for every layer.

    Raises:
        UsageError: no such mask, or one that does not go with the sparsity or a layer's width.
    """
    check_mask(mask, sparsity)
    if mask == "global":
        return _global(weights, sparsity)
    if mask in SCOPES:
        one = {"layer": _layer, "filter": _filter}[mask]
        return {name: one(unit(weight).abs(), sparsity) for name, weight in weights.items()}
    if mask == "whole-filter":
        return {name: _whole_filter(weight, sparsity) for name, weight in weights.items()}
    kept, block = parse_block(mask)
    return {name: _block(weight, kept, block, name) for name, weight in weights.items()}


def parse_block(mask: str) -> tuple[int, int]:
    """From "2:4" to (2, 4).

    Raises:
        UsageError: not N:M with 1 <= N < M.
    """
    found = re.fullmatch(r"(\d{1,4}):(\d{1,4})", mask) if isinstance(mask, str) else None
    if found is None or not 1 <= int(found[1]) < int(found[2]):
        raise UsageError(
            f"mask: expected {', '.join(SCOPES + WHOLE)} or N:M such as 2:4 with 1 <= N < M; "
            f"found {mask!r}"
        )
    return int(found[1]), int(found[2])


def _without_smallest(scores: Tensor, count: int) -> Tensor:
    """False at the ``count`` smallest of the last dimension."""
    kept = torch.ones_like(scores, dtype=torch.bool)
    smallest = scores.topk(count, dim=-1, largest=False, sorted=False).indices
    return kept.scatter_(-1, smallest, False)


def _layer(sizes: Tensor, sparsity: float) -> Tensor:
    flat = sizes.flatten()
    return _without_smallest(flat, pruned_count(len(flat), sparsity)).reshape(sizes.shape)


def _filter(sizes: Tensor, sparsity: float) -> Tensor:
    rows = sizes.flatten(1)
    return _without_smallest(rows, pruned_count(rows.shape[1], sparsity)).reshape(sizes.shape)


def _global(weights: Mapping[str, Tensor], sparsity: float) -> dict[str, Tensor]:
    sizes = torch.cat([unit(weight).abs().flatten() for weight in weights.values()])
    kept = _without_smallest(sizes, pruned_count(len(sizes), sparsity))
    parts = torch.split(kept, [weight.numel() for weight in weights.values()])
    return {
        name: part.reshape(weight.shape)
        for (name, weight), part in zip(weights.items(), parts, strict=True)
    }


def _whole_filter(weight: Tensor, sparsity: float) -> Tensor:
    lengths = norms(weight).flatten()
    kept = _without_smallest(lengths, pruned_count(len(lengths), sparsity))
    return kept.reshape(-1, *[1] * (weight.ndim - 1)).expand(weight.shape).clone()


def _block(weight: Tensor, kept: int, block: int, name: str) -> Tensor:
    if weight.shape[1] % block:
        raise UsageError(
            f"mask {kept}:{block}: '{name}' has {weight.shape[1]} inputs per filter, which is no "
            f"multiple of {block}; leave it out with skip=['{name}']"
        )
    inputs_last = weight.abs().movedim(1, -1)
    blocks = inputs_last.reshape(-1, block)
    stay = _without_smallest(blocks, block - kept)
    return stay.reshape(inputs_last.shape).movedim(-1, 1)
